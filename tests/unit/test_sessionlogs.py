"""The sessions' logs: capped under writers that keep them open, read across the cut, removed in the end."""

import os
import stat
import time
from pathlib import Path

import pytest

from jupyterhub_bkai import sessionlogs
from jupyterhub_bkai.sessionlogs import KEPT_S, tail, tidy


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessionlogs, "LARGEST", 1000)


def test_a_log_is_capped_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "lease.log"
    writer = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        for number in range(50_000):
            os.write(writer, f"line {number}\n".encode())
        tidy(tmp_path, {"lease"})
        assert log.stat().st_size == 0
        assert (tmp_path / "lease.log.1").stat().st_size == 1000
        assert stat.S_IMODE((tmp_path / "lease.log.1").stat().st_mode) == 0o600
        os.write(writer, b"after\n")
        assert log.read_text() == "after\n"
        tidy(tmp_path, {"lease"})
        assert log.read_text() == "after\n"
    finally:
        os.close(writer)
    assert tail(tmp_path, "lease", 3, 4096) == "line 49998\nline 49999\nafter\n"
    assert tail(tmp_path, "lease", 1, 4096) == "after\n"
    assert len(tail(tmp_path, "lease", 5000, 100)) <= 101
    assert tail(tmp_path, "nothing", 3, 4096) == ""


def test_the_end_of_a_log_that_grows_is_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "lease.log").write_bytes(b"x" * 5000)
    assert len(tail(tmp_path, "lease", 10, 100)) == 101
    # A device never comes to an end, as a log that is written faster than it is read.
    (tmp_path / "endless.log").symlink_to("/dev/zero")
    assert len(tail(tmp_path, "endless", 10, 100)) <= 101


def test_logs_of_ended_sessions_go_after_a_while(tmp_path: Path) -> None:
    names = ["old.log", "old.log.1", "alive.log", "young.log", "notes.txt"]
    for name in names:
        (tmp_path / name).write_text("x")
        if name != "young.log":
            os.utime(tmp_path / name, (0, time.time() - KEPT_S - 60))
    tidy(tmp_path, {"alive"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive.log", "notes.txt", "young.log"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    other = tmp_path / "other"
    other.write_bytes(b"x" * 5000)
    (tmp_path / "logs" / "lease.log").symlink_to(other)
    tidy(tmp_path / "logs", set())
    assert other.stat().st_size == 5000


def test_no_logs_yet(tmp_path: Path) -> None:
    tidy(tmp_path / "absent", set())
