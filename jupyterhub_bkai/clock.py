"""The clocks: wall time for people, boot time for durations.

A step of the system clock moves wall time only; `Stamp.boot_ns` (CLOCK_BOOTTIME) goes on evenly through steps,
suspends and restarts of a process, and means something only together with the boot it was read in.
"""

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stamp:
    """One moment: milliseconds since the epoch (UTC), nanoseconds since boot, and which boot."""

    wall_ms: int
    boot_ns: int
    boot_id: str


def boot_id() -> str:
    """The kernel's id of the present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Clock:
    """The real clocks."""

    def __init__(self) -> None:
        self._boot_id = boot_id()

    def now(self) -> Stamp:
        """The present moment."""
        return Stamp(
            time.time_ns() // 1_000_000,
            time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            self._boot_id,
        )

    def now_ms(self) -> int:
        """The present moment for people alone."""
        return time.time_ns() // 1_000_000
