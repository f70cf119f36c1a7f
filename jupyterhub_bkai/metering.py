"""Lease moves become usage intervals: opened by a grant, closed by a release, in the same transaction.

Owns what an interval is and how long it lasted. Summing is done over the rows of
`store.queries.Overlapping`, closed and open ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

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


def row(interval: Interval) -> dict[str, Any]:
    """The row of `intervals` for an interval just opened."""
    return {
        "lease": interval.lease,
        "user_name": interval.user,
        "project": interval.project,
        "group_name": interval.group,
        "version": interval.version,
        "cpu_milli": interval.cpu_milli,
        "memory_mib": interval.memory_mib,
        "gpu_memory_mib": interval.gpu_memory_mib,
        "share": str(interval.share),
        "opened_ms": interval.opened.wall_ms,
        "opened_boot_ns": interval.opened.boot_ns,
        "boot_id": interval.opened.boot_id,
    }


def closing_row(interval: Interval) -> dict[str, Any]:
    """The columns a close sets."""
    assert interval.closed is not None
    return {
        "lease": interval.lease,
        "closed_ms": interval.closed.wall_ms,
        "duration_ms": interval.duration_ms,
        "measured_kib": interval.measured_kib,
    }


def read(row: Mapping[str, Any]) -> Interval:
    """An open interval from its row."""
    return Interval(
        row["lease"],
        row["user_name"],
        row["project"],
        row["group_name"],
        row["version"],
        row["cpu_milli"],
        row["memory_mib"],
        row["gpu_memory_mib"],
        Fraction(row["share"]),
        Stamp(row["opened_ms"], row["opened_boot_ns"], row["boot_id"]),
    )
