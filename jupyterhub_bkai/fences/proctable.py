"""The kernel's process table as plain facts: who runs, since when, whose child.

Imports nothing but `os`, because the keeper that stays beside every session loads it. Signals nobody.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator


#: The most that is read of a file. A program's environment cannot be longer than 6 MiB when it is started, but a
#: process may point the kernel at anything it has mapped and call that its environment.
MOST = 8 * 1024 * 1024
PIECE = 65536
#: the most of a variable's value that is looked at
LONGEST_VALUE = 4096


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


def variable(pid: int, facts: Stat, name: bytes) -> bytes | None:
    """One variable of the environment a process was started with: empty where it has none of that name, None
    where nothing can be read at all. Never holds more than a piece of the environment."""
    for path in files(pid, facts, "environ"):
        found = _search(path, b"\0" + name + b"=")
        if found is not None:
            return found
    return None


def files(pid: int, facts: Stat, name: str) -> "list[str]":
    """Where /proc has a file about a process: with itself, or with the threads it left behind."""
    if not facts.headless:
        return [f"/proc/{pid}/{name}"]
    try:
        return [f"/proc/{pid}/task/{thread}/{name}" for thread in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _search(path: str, wanted: bytes) -> bytes | None:
    text = None
    for piece in pieces(path):
        text = (b"\0" if text is None else text) + piece
        before, found, after = text.partition(wanted)
        if found and (b"\0" in after or len(after) > LONGEST_VALUE):
            return after.partition(b"\0")[0][:LONGEST_VALUE]
        # Kept for the next piece: the value so far, or what may be the beginning of the name.
        text = found + after if found else before[-len(wanted) :]
    if text is None:
        return None
    return text[len(wanted) :] if text.startswith(wanted) else b""


def user(pid: int) -> int | None:
    """The user who started a process, whatever program it runs; None when it is gone."""
    _, found, after = read(f"/proc/{pid}/status").partition(b"\nUid:\t")
    return int(after.split(maxsplit=1)[0]) if found else None


def descendants(
    processes: dict[int, Stat], roots: set[int], without: "Container[int]" = frozenset()
) -> set[int]:
    """The `roots` and all their children's children, as far as they are in `processes` and not in `without`."""
    children: dict[int, list[int]] = {}
    for pid, facts in processes.items():
        children.setdefault(facts.parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(child for child in children.get(pid, ()) if child not in without)
    return found


def read(path: str) -> bytes:
    """The whole of a small file under /proc; empty when the process is gone or somebody else's."""
    return b"".join(pieces(path))


def pieces(path: str) -> "Iterator[bytes]":
    """A file under /proc in pieces, up to the most that is read; none when the process is gone or somebody else's."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        left = MOST
        while left > 0 and (piece := os.read(file, PIECE)):
            left -= len(piece)
            yield piece
    except OSError:  # it ended between the two calls
        return
    finally:
        os.close(file)
