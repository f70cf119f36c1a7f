"""Lease moves become usage intervals: opened by a grant, closed by a release, in the same transaction.

Owns what an interval is and how long it lasted. Summing is a query over closed and open intervals (`store.usage`).
"""

from dataclasses import dataclass, replace
from fractions import Fraction

from jupyterhub_bkai.clock import Stamp
from jupyterhub_bkai.model import Slice


@dataclass(frozen=True, slots=True)
class Interval:
    """What a lease held from one moment to another. `duration_ms` is None while it is open."""

    lease: str
    user: str
    project: str | None
    group: str
    version: str
    cpu_milli: int
    memory_mib: int
    gpu_memory_mib: int
    share: Fraction
    opened: Stamp
    closed: Stamp | None = None
    duration_ms: int | None = None
    measured_kib: int | None = None


def open_interval(
    lease: str,
    who: tuple[str, str | None, str, str],
    cpu_milli: int,
    memory_mib: int,
    slices: tuple[Slice, ...],
    now: Stamp,
) -> Interval:
    """The interval a grant opens; `who` is (user, project, group, version)."""
    user, project, group, version = who
    return Interval(
        lease,
        user,
        project,
        group,
        version,
        cpu_milli,
        memory_mib,
        sum(piece.memory_mib for piece in slices),
        sum((piece.share for piece in slices), Fraction(0)),
        now,
    )


def close_interval(interval: Interval, now: Stamp, measured_kib: int | None = None) -> Interval:
    """The interval as the release closes it.

    Within one boot the length is that of the boot clock, so steps of the wall clock do not change it. Across a reboot
    only wall time is left; it never gives less than nothing.
    """
    if interval.opened.boot_id == now.boot_id:
        length = (now.boot_ns - interval.opened.boot_ns + 500_000) // 1_000_000
    else:
        length = max(0, now.wall_ms - interval.opened.wall_ms)
    return replace(interval, closed=now, duration_ms=length, measured_kib=measured_kib)
