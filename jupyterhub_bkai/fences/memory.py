"""The most main memory that a lease's processes took: as the kernel counted it, else as far as we saw.

In a cgroup the kernel keeps the peak itself, the files it read on behalf of the session included. Elsewhere each look
adds up the memory of the processes (what several share, in parts) and the largest sum is kept: a peak between two
looks is missed. Owns no clock: who wants looks, looks.
"""

import contextlib
import os
from collections.abc import Iterable

from jupyterhub_bkai.fences.process import ProcessFence
from jupyterhub_bkai.fences.proctable import read

#: in version 1, and in version 2 since Linux 5.19
_PEAKS = ("memory.max_usage_in_bytes", "memory.peak")
_NOW = "memory.current"


class MemoryGauge:
    """One gauge for all leases of this machine. Calls read files under /proc and /sys, a few for each process."""

    def __init__(self, fence: ProcessFence) -> None:
        self._fence = fence
        self._seen: dict[str, int] = {}

    def look(self, leases: Iterable[str]) -> None:
        """Notes what leases take now, where the kernel keeps no peak; others than these are forgotten."""
        unknown = [lease_id for lease_id in leases if self._counted(lease_id, _PEAKS) is None]
        self._seen = {lease_id: self._seen.get(lease_id, 0) for lease_id in unknown}
        carriers = self._fence.survey() if unknown else {}
        for lease_id in unknown:
            counted = self._counted(lease_id, (_NOW,))
            now = sum(map(_kib, carriers.get(lease_id, ()))) if counted is None else counted
            self._seen[lease_id] = max(self._seen[lease_id], now)

    def peak_kib(self, lease_id: str) -> int | None:
        """The most that was seen of a lease so far; None when nothing was."""
        return self._counted(lease_id, _PEAKS) or self._seen.get(lease_id) or None

    def _counted(self, lease_id: str, names: Iterable[str]) -> int | None:
        """A counter of the lease's cgroup, in KiB."""
        for folder in self._fence.groups.paths(lease_id) if self._fence.groups else ():
            for name in names:
                with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, name)) as file:
                    return int(file.read()) // 1024
        return None


def _kib(pid: int) -> int:
    """What one process takes; of memory it shares, its part (or all of it, where we may not know who shares)."""
    for file, key in ((f"/proc/{pid}/smaps_rollup", b"\nPss:"), (f"/proc/{pid}/status", b"\nVmRSS:")):
        _, found, after = read(file).partition(key)
        if found:
            return int(after.split(maxsplit=1)[0])
    return 0
