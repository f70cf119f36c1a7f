"""The receipt says what was given, is the owner's alone, and is there even when the service is not."""

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupyterhub_bkai.singleuser import receipt
from jupyterhub_bkai.singleuser.place import Place, place
from tests.singleuser.servers import OURS, Server, environment, running, wait_for
from tests.singleuser.standin import LEASE, SERVER_TOKEN, StandIn

HERE = Place(lease=LEASE, service_url="http://hub/services/bkai", token="secret", image="sklearn/1.7")


def read(home: Path) -> dict[str, Any]:
    path = home / ".local/share/bkai/receipts" / f"{LEASE}.json"
    content: dict[str, Any] = json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    return content


def test_it_holds_what_the_service_told(http: httpx.Client, server: Server) -> None:
    wait_for(lambda: read(server.home)["source"] == "service")
    content = read(server.home)
    assert content["session"] == LEASE
    assert content["enforcement"] == "booked, not enforced"
    assert content["share"] == "1/4"
    assert content["cpu"] == 1.0
    assert content["fake"] is True
    assert SERVER_TOKEN not in json.dumps(content)


def test_without_the_service_it_holds_what_the_environment_says(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    standin.mood = "silent"
    with running(OURS, environment(standin, tmp_path, free_port()), tmp_path, tmp_path / "log"):
        content = read(tmp_path)
    assert content["source"] == "environment"
    assert content["image"] == "sklearn/1.7"
    assert content["slices"][0]["share"] == "1/4"
    assert content["enforcement"] == "booked, not enforced"


def test_a_home_that_cannot_be_written_stops_nothing(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local/share").write_text("in the way")
    variables = {**environment(standin, tmp_path, free_port()), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run")}
    with running(OURS, variables, tmp_path, tmp_path / "log") as server, server.client() as client:
        assert client.get("bkai/run").status_code == 200
    assert "the receipt cannot be written" in (tmp_path / "log").read_text()


def test_old_receipts_go(tmp_path: Path) -> None:
    leases = [f"01kb00000000000000000000{number:02d}" for number in range(receipt.KEPT + 5)]
    for lease in leases:
        receipt.write(tmp_path / "receipts", lease, {"session": lease})
    kept = sorted(file.stem for file in (tmp_path / "receipts").iterdir())
    assert kept == leases[-receipt.KEPT - 1 :]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "receipts"
    folder.mkdir()
    (folder / f"{LEASE}.json").symlink_to(victim)
    receipt.write(folder, LEASE, {"session": LEASE})
    assert victim.read_text() == "precious"
    assert not (folder / f"{LEASE}.json").is_symlink()


def test_data_folder() -> None:
    assert receipt.folder({}, Path("/home/a")) == Path("/home/a/.local/share/bkai/receipts")
    assert receipt.folder({"XDG_DATA_HOME": "/data"}, Path("/home/a")) == Path("/data/bkai/receipts")
    assert receipt.folder({"XDG_DATA_HOME": "rel"}, Path("/h")) == Path("/h/.local/share/bkai/receipts")


def test_the_service_wins_over_the_environment() -> None:
    told = {"image": "sklearn/1.8", "slices": [], "enforcement": "enforced", "secret": 1}
    content = receipt.receipt(HERE, told, datetime(2026, 1, 2, tzinfo=UTC))
    assert (content["image"], content["enforcement"], content["source"]) == (
        "sklearn/1.8",
        "enforced",
        "service",
    )
    assert content["written"] == "2026-01-02T00:00:00.000+00:00"
    assert "secret" not in content


@pytest.mark.parametrize(
    "change",
    [
        {"BKAI_LEASE_ID": "../../etc/passwd"},
        {"BKAI_LEASE_ID": ""},
        {"BKAI_SERVICE_URL": "file:///etc/passwd"},
        {"JUPYTERHUB_API_TOKEN": ""},
    ],
)
def test_no_place_without_all_it_takes(change: dict[str, str]) -> None:
    whole = {
        "BKAI_LEASE_ID": LEASE,
        "BKAI_SERVICE_URL": "http://h/services/bkai",
        "JUPYTERHUB_API_TOKEN": "t",
    }
    assert place(whole) is not None
    assert place({**whole, **change}) is None


@pytest.mark.parametrize("text", ["", "nonsense", "{}", "[1, 2]", "null"])
def test_slices_that_are_none(text: str) -> None:
    whole = {"BKAI_LEASE_ID": LEASE, "BKAI_SERVICE_URL": "http://h/s", "JUPYTERHUB_API_TOKEN": "t"}
    found = place({**whole, "BKAI_SLICES": text})
    assert found is not None
    assert found.slices == ()


def test_the_token_is_not_in_the_representation() -> None:
    assert "secret" not in repr(HERE)
