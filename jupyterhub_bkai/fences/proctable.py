"""The kernel's process table as plain facts: who runs, since when, whose child.

Imports nothing but `os`, because the keeper that stays beside every session loads it. Signals nobody.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Stat:
    """What `/proc/<pid>/stat` says, as far as it matters here.

    `start_time` counts clock ticks since boot: with the pid it names one process of this boot for good.
    A process is `headless` when its first thread has ended and others still run: it looks like a zombie.
    """

    __slots__ = ("alive", "headless", "parent", "start_time")

    def __init__(self, parent: int, start_time: int, *, ended: bool, threads: int) -> None:
        self.parent = parent
        self.start_time = start_time
        self.headless = ended and threads > 1
        self.alive = not ended or self.headless


def pids() -> "Iterator[int]":
    """Every process id there is, read while it is used: those born meanwhile mostly come, too."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name[0] in "123456789":
                yield int(entry.name)


def stat(pid: int) -> Stat | None:
    """The facts of one process, or None when there is none of that number."""
    text = read(f"/proc/{pid}/stat")
    if not text:
        return None
    # The second field is the program's name in parentheses and may itself hold anything.
    fields = text[text.rindex(b")") + 2 :].split(maxsplit=20)
    return Stat(int(fields[1]), int(fields[19]), ended=fields[0] in b"ZXx", threads=int(fields[17]))


def table() -> dict[int, Stat]:
    """Every process with its facts; those that end while we read are left out."""
    return {pid: facts for pid in pids() if (facts := stat(pid)) is not None}


def environment(pid: int, facts: Stat) -> bytes:
    """The environment a process was started with; empty where we may not read it."""
    if not facts.headless:
        return read(f"/proc/{pid}/environ")
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return b""
    return next(filter(None, (read(f"/proc/{pid}/task/{thread}/environ") for thread in threads)), b"")


def descendants(processes: dict[int, Stat], roots: set[int]) -> set[int]:
    """The `roots` and all their children's children, as far as they are in `processes`."""
    children: dict[int, list[int]] = {}
    for pid, facts in processes.items():
        children.setdefault(facts.parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def read(path: str) -> bytes:
    """The whole of a small file under /proc; empty when the process is gone or somebody else's."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        pieces = []
        while piece := os.read(file, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    except OSError:  # it ended between the two calls
        return b""
    finally:
        os.close(file)
