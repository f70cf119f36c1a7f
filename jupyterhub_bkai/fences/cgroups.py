"""One cgroup per lease, `bkai/<lease id>`, in the kernel's version 1 or 2 hierarchies.

Owns finding them, entering, listing, freezing and removing. Knows no session and sets no limit but the
number of processes. Where this process may not write to them (not root) there are none.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Sequence

from jupyterhub_bkai.fences import proctable

PARENT = "bkai"
#: a lease's name becomes a folder's name, so nothing that could be a path gets through
SAFE = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}\Z")
#: in /proc/<pid>/cgroup, by version; in version 1 the freezer tracks
_PLACES = {
    1: re.compile(
        rb"^\d+:(?:[^:\n]*,)?freezer(?:,[^:\n]*)?:.*/bkai/([0-9A-Za-z][0-9A-Za-z_-]{0,63})(?=[/ ]|$)", re.M
    ),
    2: re.compile(rb"^0::.*/bkai/([0-9A-Za-z][0-9A-Za-z_-]{0,63})(?=[/ ]|$)", re.M),
}
FREEZE_PATIENCE_S = 2.0
KILL_SWITCH = "cgroup.kill"


class Cgroups:
    """The folders that hold a lease's processes: `tracker` lists and freezes, `others` only count.

    In version 2 there is one hierarchy. In version 1 each controller has its own, and the freezer tracks.
    """

    def __init__(self, tracker: str, *, version: int, others: Sequence[str] = ()) -> None:
        self.tracker = tracker
        self.version = version
        self.others = tuple(others)

    def path(self, lease_id: str) -> str:
        """The tracking folder of one lease."""
        return _folder(self.tracker, lease_id)

    def paths(self, lease_id: str) -> list[str]:
        """All of the lease's folders, the tracking one first."""
        return [_folder(root, lease_id) for root in (self.tracker, *self.others)]

    def create(self, lease_id: str, *, pids_limit: int = 0) -> None:
        """Make the lease's folders, empty; with `pids_limit` no more processes than that can be in them."""
        for root in (self.tracker, *self.others):
            folder = _folder(root, lease_id)
            os.makedirs(folder, exist_ok=True)
            if self.version == 2:
                _hand_down(root)
            if os.path.exists(limit := os.path.join(folder, "pids.max")):
                _write(limit, str(pids_limit or "max"))  # also where a former session's end closed it

    def enter(self, lease_id: str, pid: int) -> None:
        """Move a process, and with it every child it will ever have, into the lease's folders."""
        for root in (self.tracker, *self.others):
            _write(os.path.join(_folder(root, lease_id), "cgroup.procs"), str(pid))

    def pids(self, lease_id: str) -> list[int]:
        """Every process in the lease's folder and in folders made beneath it."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path(lease_id)):
            with contextlib.suppress(OSError), open(os.path.join(folder, "cgroup.procs")) as file:
                # 0 stands for a process that another pid namespace hides from us
                found.extend(pid for line in file if (pid := int(line)))
        return found

    def lease_of(self, pid: int, facts: proctable.Stat) -> str | None:
        """The lease in whose folder a process is. The kernel's word: a process cannot move itself elsewhere."""
        for file in proctable.files(pid, facts, "cgroup"):
            if place := _PLACES[self.version].search(proctable.read(file)):
                return place[1].decode()
        return None

    def leases(self) -> list[str]:
        """The leases that have a folder, whether or not anything is in it."""
        try:
            names = os.listdir(os.path.join(self.tracker, PARENT))
        except FileNotFoundError:
            return []
        return [name for name in names if SAFE.match(name) and os.path.isdir(self.path(name))]

    def kill(self, lease_id: str) -> None:
        """SIGKILL all of it at once: by the kernel's own switch, or frozen so that nothing can fork away."""
        folder = self.path(lease_id)
        for root in (self.tracker, *self.others):
            with contextlib.suppress(OSError):  # no forks any more, where processes are counted
                _write(os.path.join(_folder(root, lease_id), "pids.max"), "0")
        with contextlib.suppress(OSError):
            _write(os.path.join(folder, KILL_SWITCH), "1")
            return
        self._freeze(folder, True)
        try:
            # Frozen processes cannot end, so their numbers cannot be anybody else's by now.
            for pid in self.pids(lease_id):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        finally:
            self._freeze(folder, False)

    def remove(self, lease_id: str) -> None:
        """Remove the folders if they are empty; a folder in use is left for the next time."""
        for root in (self.tracker, *self.others):
            for folder, _, _ in os.walk(_folder(root, lease_id), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    def _freeze(self, folder: str, frozen: bool) -> None:
        name, words = (
            ("cgroup.freeze", "01") if self.version == 2 else ("freezer.state", ("THAWED", "FROZEN"))
        )
        with contextlib.suppress(FileNotFoundError):
            _write(os.path.join(folder, name), words[frozen])
            deadline = time.monotonic() + FREEZE_PATIENCE_S
            while frozen and not self._is_frozen(folder) and time.monotonic() < deadline:
                time.sleep(0.002)

    def _is_frozen(self, folder: str) -> bool:
        if self.version == 2:
            with open(os.path.join(folder, "cgroup.events")) as file:
                return "frozen 1" in file.read()
        with open(os.path.join(folder, "freezer.state")) as file:
            return file.read().strip() == "FROZEN"


def find(mounts: str = "/proc/self/mountinfo") -> Cgroups | None:
    """The hierarchies this process may write to, or None."""
    unified, controllers = _mounted(mounts)
    freezer = controllers.get("freezer")
    if freezer and _writable(freezer):
        others = [root for name in ("pids", "memory") if (root := controllers.get(name)) and _writable(root)]
        return Cgroups(freezer, version=1, others=list(dict.fromkeys(others)))
    if unified and _writable(unified):
        return Cgroups(unified, version=2)
    return None


def _mounted(mounts: str) -> tuple[str | None, dict[str, str]]:
    """The version 2 mount point, and the version 1 mount points by controller."""
    unified, controllers = None, {}
    with open(mounts) as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            point = before.split()[4]
            if kind == "cgroup2":
                unified = point
            elif kind == "cgroup":
                controllers.update(dict.fromkeys(options.strip().split(","), point))
    return unified, controllers


def _hand_down(unified: str) -> None:
    """Let the leases' folders count processes and memory, where whoever owns the top allows it."""
    for folder in (unified, os.path.join(unified, PARENT)):
        for controller in ("+pids", "+memory"):
            with contextlib.suppress(OSError):
                _write(os.path.join(folder, "cgroup.subtree_control"), controller)


def _folder(root: str, lease_id: str) -> str:
    if not SAFE.match(lease_id):
        raise ValueError(f"{lease_id!r} is not the id of a lease")
    return os.path.join(root, PARENT, lease_id)


def _writable(root: str) -> bool:
    return os.access(root, os.W_OK) and os.access(os.path.join(root, "cgroup.procs"), os.W_OK)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
