"""What a simulation comes to: waits, fairness, what was given away and what stood idle.

Owns the definitions; `docs/simulate.md` has them in words.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jupyterhub_bkai.simulation.world import Life, World

HOUR_MS = 3_600_000
#: a session shorter than this counts as this long where its slowdown is counted, so that seconds do not weigh as hours
LEAST_RUN_MS = 600_000


@dataclass(slots=True)
class Meter:
    """Adds up what a world holds, up to its horizon (the end of its demand), and hour by hour."""

    horizon_ms: int
    devices: int
    held: float = 0.0
    idle: float = 0.0
    free: float = 0.0
    pieces: float = 0.0
    hours: list[float] = field(default_factory=list)

    def observe(self, world: World, until_ms: int) -> None:
        """A stretch of time in which nothing changes begins at the world's moment."""
        judge, begin = world.judge, world.clock.even_ms
        until_ms = min(until_ms, self.horizon_ms)
        if until_ms <= begin:
            return
        length = (until_ms - begin) / HOUR_MS
        free = self.devices - judge.held
        self.held += judge.held * length
        self.free += free * length
        self.pieces += max(0.0, judge.broken_into - judge.held) * length
        if judge.wanting:
            self.idle += free * length
        while begin < until_ms:
            hour = begin // HOUR_MS
            end = min(until_ms, (hour + 1) * HOUR_MS)
            while len(self.hours) <= hour:
                self.hours.append(0.0)
            self.hours[hour] += judge.held * (end - begin) / HOUR_MS
            begin = end


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds from an ask to its grant."""

    sessions: int
    median_s: float
    p95_s: float
    worst_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy's figures. `waits` is by group, "" over all; `seconds` are all waits, sorted."""

    policy: str
    waits: dict[str, Waits]
    fairness: float
    allocation: float
    idle_h: float
    fragmentation: float
    finished_a_day: float
    device_h_a_day: float
    refused: int
    gave_up: int
    deaths: int
    turns: int
    seconds: Sequence[float]
    hours: Sequence[float]

    def public(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "policy": self.policy,
            "waits": {
                name or "all": {
                    "sessions": one.sessions,
                    "median_s": round(one.median_s, 3),
                    "p95_s": round(one.p95_s, 3),
                    "worst_s": round(one.worst_s, 3),
                }
                for name, one in self.waits.items()
            },
            "fairness": round(self.fairness, 4),
            "allocation": round(self.allocation, 4),
            "idle_slice_hours": round(self.idle_h, 1),
            "fragmentation": round(self.fragmentation, 4),
            "finished_a_day": round(self.finished_a_day, 1),
            "device_hours_a_day": round(self.device_h_a_day, 1),
            "refused": self.refused,
            "gave_up": self.gave_up,
            "service_deaths": self.deaths,
            "transactions": self.turns,
            "allocation_by_hour": [round(one, 4) for one in self.hours],
        }


def figures(world: World, meter: Meter) -> Figures:
    """The figures of a world that has come to its end."""
    lives = world.lives
    by_group: dict[str, list[float]] = {"": []}
    for life in lives:
        if life.granted_ms is not None:
            wait = max(0.0, (life.granted_ms - life.asked_ms) / 1000)
            by_group[""].append(wait)
            by_group.setdefault(life.job.group, []).append(wait)
    if len(by_group) == 2:
        by_group = {"": by_group[""]}
    for waits in by_group.values():
        waits.sort()
    days = meter.horizon_ms / HOUR_MS / 24
    whole = meter.devices * meter.horizon_ms / HOUR_MS
    finished = sum(
        life.started_ms is not None and life.ended_ms is not None and life.ended_ms <= meter.horizon_ms
        for life in lives
    )
    return Figures(
        policy=world.site.name,
        waits={name: _waits(waits) for name, waits in by_group.items()},
        fairness=jain(slowdowns(lives)),
        allocation=meter.held / whole if whole else 0.0,
        idle_h=meter.idle,
        fragmentation=meter.pieces / meter.free if meter.free else 0.0,
        finished_a_day=finished / days,
        device_h_a_day=meter.held / days,
        refused=sum(life.refused is not None for life in lives),
        gave_up=sum(life.granted_ms is None and life.ended_ms is not None for life in lives),
        deaths=world.deaths,
        turns=world.turns,
        seconds=by_group[""],
        hours=[one / meter.devices if meter.devices else 0.0 for one in meter.hours],
    )


def _waits(seconds: Sequence[float]) -> Waits:
    return Waits(
        len(seconds), quantile(seconds, 0.5), quantile(seconds, 0.95), seconds[-1] if seconds else 0.0
    )


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value that so much of the ordered values does not exceed (the nearest rank)."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-part * len(ordered) // 1) - 1))]


def slowdowns(lives: Iterable[Life]) -> list[float]:
    """Each person's mean bounded slowdown: how many times longer than alone their sessions took, waits included."""
    by_user: dict[str, list[float]] = {}
    for life in lives:
        if life.granted_ms is None or life.started_ms is None or life.ended_ms is None:
            continue
        run = life.ended_ms - life.granted_ms
        wait = max(0, life.granted_ms - life.asked_ms)
        by_user.setdefault(life.job.user, []).append(max(1.0, (wait + run) / max(run, LEAST_RUN_MS)))
    return [sum(mine) / len(mine) for mine in by_user.values()]


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when all are alike, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def below(ordered: Sequence[float], seconds: float) -> float:
    """The part of the waits that is no longer than so many seconds."""
    return bisect_right(ordered, seconds) / len(ordered) if ordered else 1.0
