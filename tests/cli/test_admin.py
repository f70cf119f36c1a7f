"""`bkai admin …` on a whole site."""

import json
import os
from pathlib import Path

import pytest

from tests.chain.site import Site
from tests.cli.conftest import ROOT, Bkai, Environment, as_process

pytestmark = pytest.mark.hub
ASK = (
    "session",
    "create",
    "--version",
    "python/3.11",
    "--cpu",
    "0.1",
    "--memory",
    "256m",
    "--fgpu",
    "1",
    "--json",
)


@pytest.fixture
def variables(site: Site, tmp_path: Path) -> Environment:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BKAI_", "JUPYTERHUB_"))}
    here = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return clean | here | {"BKAI_URL": site.url, "BKAI_TOKEN": site.token("admin")}


@pytest.fixture
def bkai(variables: Environment) -> Bkai:
    return as_process(variables, seconds=180)


def test_drain_and_undrain_a_machine_and_a_device(bkai: Bkai) -> None:
    for name in ("local", "local:0"):
        done = bkai("admin", "drain", name, "--why", "new fans")
        assert (done.returncode, done.stdout) == (0, f"{name} is drained.\n"), done.stderr
        shown = bkai("devices").stdout
        assert ("drained: new fans" in shown) == (name == "local")
        [one] = json.loads(bkai(*ASK).stdout)["sessions"]
        assert one["state"] == "PENDING"
        assert "new fans" in bkai("queue").stdout.replace("\n", " ") or "drains" in bkai("queue").stdout
        assert bkai("session", "stop", one["id"]).returncode == 0
        done = bkai("admin", "undrain", name, "--json")
        assert json.loads(done.stdout) == {"name": name, "state": "in use again"}
    assert "drained" not in bkai("devices").stdout


def test_hold_a_group_and_let_somebody_pass(bkai: Bkai) -> None:
    done = bkai("admin", "hold", "default", "--why", "the exam", "--json")
    answer = json.loads(done.stdout)
    assert (answer["name"], answer["state"], answer["why"], answer["who"]) == (
        "default",
        "held",
        "the exam",
        "admin",
    )
    assert "default is held: the exam" in bkai("queue").stdout
    first, second = (json.loads(bkai(*ASK).stdout)["sessions"][0] for _ in range(2))
    assert bkai("admin", "priority", f"admin/{first['server']}", "20").stdout.endswith(
        "has priority 20, position 1.\n"
    )
    done = bkai("admin", "priority", second["id"], "90")
    assert done.stdout.endswith("has priority 90, position 1.\n"), done.stderr
    assert bkai("admin", "priority", second["id"], "101").returncode == 2
    assert bkai("admin", "release", "default").stdout == "default is released.\n"
    for one in (first, second):
        assert bkai("session", "stop", one["id"]).returncode == 0


def test_refusals_name_the_nearest_and_who_may(bkai: Bkai, site: Site, variables: Environment) -> None:
    done = bkai("admin", "drain", "locl", "--why", "x")
    assert done.returncode == 1
    assert "There is no node locl; the nearest is local." in done.stderr
    assert bkai("admin", "drain", "local").returncode == 2
    done = bkai("admin", "drain", "local", "--why", " ")
    assert done.returncode == 2
    assert "say in a few words why" in done.stderr
    done = bkai("admin", "drain", "local:7", "--why", "x")
    assert (done.returncode, done.stderr) == (1, "bkai: local has no device 7; it has 0.\n")
    done = bkai("admin", "priority", "ada/nothing", "20")
    assert "ada has no session “nothing”; ada has none." in done.stderr
    ada = as_process({**variables, "BKAI_TOKEN": site.token("ada")}, seconds=180)
    done = ada("admin", "hold", "default", "--why", "x")
    assert done.returncode == 1
    assert "Only administrators may do this." in done.stderr
