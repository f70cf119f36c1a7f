"""`bkai admin rules` and `apply` against a real service: what differs is shown, asked about, and done."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chain.site import ROOT, Site
from tests.cli.conftest import Bkai, Environment, as_process

pytestmark = [pytest.mark.hub, pytest.mark.timeout(300)]
RULES = "presets:\n  small: {title: Small, options: {cpu: 0.5}}\nusers:\n  ada: {max_priority: 50}\n"


@pytest.fixture
def bkai(site: Site, variables: Environment) -> Bkai:
    given = {"BKAI_URL": site.url, "BKAI_TOKEN": site.token("admin"), "PYTHONPATH": str(ROOT)}
    return as_process(variables | given)


def _rules(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.call(site.token("admin"), "GET", "/rules").json()["rules"]
    return found


@pytest.fixture
def file(tmp_path: Path, site: Site) -> Iterator[Path]:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    yield path
    gone = {kind: dict.fromkeys(names) for kind, names in _rules(site).items() if kind != "groups"}
    assert site.call(site.token("admin"), "PUT", "/rules", json={"rules": gone}).status_code == 200


def test_apply_shows_asks_and_changes(bkai: Bkai, file: Path, site: Site) -> None:
    looked = bkai("admin", "apply", file, "--check")
    assert looked.returncode == 0, looked.stderr
    assert "+ users ada: added\n    max_priority: not set → 50\n" in looked.stdout
    assert "+ presets small: added\n" in looked.stdout
    assert "Nobody who waits starts by this." in looked.stdout
    declined = bkai("admin", "apply", file, stdin="n\n")
    assert declined.returncode == 1
    assert "small" not in site.call(site.token("admin"), "GET", "/rules").text
    done = bkai("admin", "apply", file, stdin="y\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Changed.\n")
    again = bkai("admin", "apply", file)
    assert "Nothing differs" in again.stdout
    shown = bkai("admin", "rules")
    assert "max_priority: 50" in shown.stdout
    file.write_text(shown.stdout)
    assert "Nothing differs" in bkai("admin", "apply", file).stdout, "what is printed can be applied"


def test_prune_removes_what_is_not_named(bkai: Bkai, file: Path) -> None:
    assert bkai("admin", "apply", file, "--yes").returncode == 0
    file.write_text("users:\n  bob: {}\n")
    looked = bkai("--json", "admin", "apply", file, "--prune", "--check")
    changes = [(d["kind"], d["name"], d["change"]) for d in json.loads(looked.stdout)["differences"]]
    assert changes == [("users", "bob", "added"), ("users", "ada", "removed")]


WRONG = {
    "users: {ada: {max_priority: high}}": "users.ada.max_priority: “high” is not a whole number.",
    "groups: [": "this is not YAML",
    "devices: nvidia": "devices: this is read when the service starts",
    "people: {}": "people: unknown setting",
    "users: {ada: {limits: {total: {cpu: 2}, running: {cpu: 4}}}}": "it is more than total allows",
}


@pytest.mark.parametrize("text", WRONG)
def test_mistakes_in_the_file(text: str, bkai: Bkai, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    done = bkai("admin", "apply", path, "--yes")
    assert done.returncode != 0
    assert WRONG[text] in done.stderr
    assert done.stdout == ""


def test_files_that_are_none(bkai: Bkai, tmp_path: Path) -> None:
    done = bkai("admin", "apply", tmp_path / "none.yaml")
    assert "No such file" in done.stderr
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    done = bkai("admin", "apply", tmp_path / "image.png")
    assert "image.png is no text in UTF-8" in done.stderr
    (tmp_path / "huge.yaml").write_text("# " + "x" * (10 << 20))
    done = bkai("admin", "apply", tmp_path / "huge.yaml")
    assert done.returncode != 0
    assert "larger than 1 MiB" in done.stderr


def test_others_may_not(site: Site, variables: Environment, tmp_path: Path) -> None:
    bkai = as_process(variables | {"BKAI_URL": site.url, "BKAI_TOKEN": site.token("ada")})
    done = bkai("admin", "rules")
    assert done.returncode != 0
    assert "Only administrators" in done.stderr
