"""What a site stands on gives way: a full disk, a database that is locked or damaged, a device that disappears."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chain.site import Site

pytestmark = [pytest.mark.hub, pytest.mark.timeout(300)]
ASK = {"version": "python/3.11", "cpu": "0.1", "memory": "256m"}


def ask(site: Site, token: str, **options: Any) -> Any:
    return site.call(token, "POST", "/sessions", json={"options": {**ASK, **options}})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "none", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_told_and_nothing_is_lost(a_site: Callable[..., Site], small_disk: Path) -> None:
    site = a_site()
    site.prepare()
    (site.data / "bkai.sqlite").symlink_to(small_disk / "bkai.sqlite")
    site.start()
    token = site.token("ada")
    assert ask(site, token, name="first", not_before="+1d").status_code == 201
    with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    answers = [ask(site, token, name=f"more-{n}", not_before="+1d") for n in range(12)]
    refused = next(answer for answer in answers if answer.status_code != 201)
    assert refused.status_code == 503
    assert "The database did not take the change" in refused.json()["error"]["message"]
    assert "first" in site.states(token)
    (small_disk / "filler").unlink()
    site.until(
        lambda: ask(site, token, name="after", not_before="+1d").status_code in (201, 409), 30, "it goes on"
    )
    taken = {f"more-{n}" for n, answer in enumerate(answers) if answer.status_code == 201}
    assert set(site.states(token)) == {"first", "after", *taken}


def test_a_locked_database_is_told_and_let_go(a_site: Callable[..., Site]) -> None:
    site = a_site().start()
    token = site.token("ada")
    other = sqlite3.connect(site.data / "bkai.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused = ask(site, token, name="meanwhile", not_before="+1d")
    assert refused.status_code == 503
    assert "database is locked" in refused.json()["error"]["message"]
    other.execute("ROLLBACK")
    other.close()
    assert ask(site, token, name="after", not_before="+1d").status_code == 201
    assert list(site.states(token)) == ["after"]


def test_a_damaged_database_is_told_at_the_start(a_site: Callable[..., Site]) -> None:
    site = a_site().start()
    ada = site.token("ada")
    for n in range(30):
        ask(site, ada, name=f"s-{n}", not_before="+1d")
    site.stop()
    database = site.data / "bkai.sqlite"
    copy = database.with_suffix(".copy")
    shutil.copy(database, copy)
    raw = bytearray(database.read_bytes())
    for place in range(4096, len(raw) - 100, 4096):
        raw[place : place + 64] = os.urandom(64)
    database.write_bytes(raw)
    for rest in ("-wal", "-shm"):
        Path(f"{database}{rest}").unlink(missing_ok=True)
    with pytest.raises(AssertionError) as failed:
        site.start(timeout_s=30)
    assert "the file is damaged" in str(failed.value) or "it cannot be opened" in str(failed.value)
    assert "Traceback" not in (site.data / "up.out").read_text()


def cards(*names: str) -> str:
    return "".join(
        f'[[devices]]\nid = "{n}"\nmodel = "Test card"\nmemory_mib = 8192\nsms = 20\n' for n in names
    )


def test_a_device_that_disappears_while_it_is_leased(a_site: Callable[..., Site], tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(cards("one"))
    tmp_path.chmod(0o755)
    site = a_site(devices=f"fake:{file}").start()
    token = site.token("ada")
    [one] = ask(site, token, name="work", fgpu="1").json()["sessions"]
    site.until(lambda: site.states(token) == {"work": "RUNNING"}, 120, "it runs")
    assert site.sessions(token)[0]["trouble"] is None
    file.write_text(cards("one") + '[faults]\nunhealthy = ["one"]\n')
    site.until(lambda: "does not work" in (site.sessions(token)[0]["trouble"] or ""), 40, "it is told")
    file.write_text(cards("another"))
    site.until(lambda: "is gone from" in (site.sessions(token)[0]["trouble"] or ""), 40, "it is told")
    told = site.sessions(token)[0]
    assert told["state"] == "RUNNING"
    assert told["trouble"].startswith("Card 0 (Test card) is gone from the machine ")
    assert ask(site, token, name="next", fgpu="2").status_code == 201
    site.until(lambda: site.states(token).get("next") == "RUNNING", 60, "the card that came is given out")
    assert site.call(token, "DELETE", f"/sessions/{one['id']}").status_code == 202
    site.until(lambda: "work" not in site.states(token), 30, "it ends")
    file.write_text(cards("another", "one"))
    site.until(
        lambda: len(site.call(token, "GET", "/devices").json()["nodes"][0]["devices"]) == 2, 40, "it is back"
    )
    free = {
        d["id"]: d["share_free"] for d in site.call(token, "GET", "/devices").json()["nodes"][0]["devices"]
    }
    assert sorted(free.values()) == ["0", "1"]
