"""A program and everything it started: found and signalled as one.

Owns the mark by which the processes of one run are known, `BKAI_RUN_ID` in their environment (a process may leave its
process group, but does not lose its environment by accident), and the order in which they are asked to end.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MARK = "BKAI_RUN_ID"
Ladder = tuple[tuple[signal.Signals, float], ...]
#: what to send, and for how many seconds to wait before the next: to a program that somebody wants to end …
ASKED: Ladder = ((signal.SIGINT, 5.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
#: … and to what is left when its time is over
LEFT: Ladder = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))
_PROC = Path("/proc")


def marked(run: str) -> set[int]:
    """The living processes that carry this run's mark."""
    wanted = f"{MARK}={run}".encode()
    return {pid for pid in _pids() if wanted in _environment(pid) and not _is_zombie(pid)}


def send(run: str, leader: int | None, number: signal.Signals) -> None:
    """Signal the group of `leader` (while it is not reaped) and whoever else carries the mark."""
    outside = marked(run)
    if leader is not None:
        outside = {pid for pid in outside if _group(pid) != leader}
        _quietly(os.killpg, leader, number)
    for pid in outside:
        _quietly(os.kill, pid, number)


def _quietly(kill: Callable[[int, int], None], target: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        kill(target, number)


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []  # gone meanwhile, or somebody else's


def _is_zombie(pid: int) -> bool:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
