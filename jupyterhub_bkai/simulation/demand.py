"""Demand that nobody recorded: people of unequal appetite, days and weeks, many short sessions and few long ones.

`docs/simulate.md` says what is drawn how. The same `Demand` and machines give the same sessions.
"""

import math
import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from jupyterhub_bkai import policy
from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.model import Device, Node, Wish
from jupyterhub_bkai.simulation.trace import Job

HOUR = 3600
#: durations people ask for; they take the next one above what they think they need
ASKED_H = (1, 2, 4, 8, 12, 24, 48, 72, 168)
#: how much longer than needed people ask for
CAUTION = (1.0, 1.25, 2.0, 4.0)
#: of a hundred sessions with a device, so many use part of one, one, two, four, eight
PART, WHOLE, TWO, FOUR, EIGHT = 45, 35, 10, 6, 4
SHARES = (Fraction(1, 10), Fraction(1, 5), Fraction(1, 4), Fraction(1, 2))
#: median hours of use by how many devices; the spread is log-normal
MEDIAN_H = {0: 1.0, 1: 4.0, 2: 8.0, 4: 8.0, 8: 8.0}
PART_MEDIAN_H = 2.0
SPREAD = 1.3
LONGEST_H = 168.0
#: one of so many sessions asks for no device
WITHOUT = 5
#: the spread of people's appetites, log-normal
APPETITE = 1.2


@dataclass(frozen=True, slots=True)
class Demand:
    """`load` is what is asked for, in device-hours, as a part of all there are (cores where there are no devices)."""

    days: float = 7.0
    load: float = 1.0
    users: int = 0
    seed: int = 0


def generate(demand: Demand, settings: policy.Settings, nodes: Sequence[Node]) -> list[Job]:
    """The sessions, in the order in which they are asked for. Raises `SettingsError` for a site without a machine."""
    chance = random.Random(f"demand {demand.seed}")
    halls = [_Hall(group, settings, nodes) for group in settings.groups]
    halls = [hall for hall in halls if hall.capacity]
    if not halls:
        raise SettingsError([("groups", "no resource group has a machine to run anything on.")])
    users = demand.users or max(10, round(sum(hall.capacity for hall in halls) / 4))
    appetites = list(accumulate(chance.lognormvariate(0.0, APPETITE) for _ in range(users)))
    moments = _Rhythm(demand.days)
    jobs = []
    for hall in halls:
        asked, wanted = 0.0, demand.load * hall.capacity * demand.days * 24
        while asked < wanted:
            user = bisect(appetites, chance.random() * appetites[-1])
            job = hall.draw(chance, f"u{user + 1}", moments.draw(chance))
            asked += hall.weight(job)
            jobs.append(job)
    jobs.sort(key=lambda job: job.asked_s)
    return jobs


class _Rhythm:
    """Moments of a period: most in the afternoon, few at night, half as many on the sixth and seventh day."""

    def __init__(self, days: float) -> None:
        self._end_s = days * 24 * HOUR
        weights = []
        for hour in range(math.ceil(days * 24)):
            day = 0.5 if hour // 24 % 7 >= 5 else 1.0
            weights.append(day * (1 + 0.7 * math.cos(2 * math.pi * (hour % 24 + 0.5 - 15) / 24)))
        self._sums = list(accumulate(weights))

    def draw(self, chance: random.Random) -> float:
        hour = bisect(self._sums, chance.random() * self._sums[-1])
        moment = HOUR * (min(hour, len(self._sums) - 1) + chance.random())
        return round(min(moment, self._end_s * chance.random() if moment >= self._end_s else moment), 3)


class _Hall:
    """What one resource group can be asked for."""

    def __init__(self, group: policy.Group, settings: policy.Settings, nodes: Sequence[Node]) -> None:
        self._group = group
        inside = [node for node in nodes if not group.nodes or node.name in group.nodes]
        self._cores = max((node.cpu_milli for node in inside), default=0)
        self._kinds: dict[tuple[str, bool, bool], list[Device]] = {}
        self._most: dict[tuple[str, bool, bool], int] = {}
        self._cpu_milli = sum(node.cpu_milli for node in inside)
        for node in inside:
            mine: dict[tuple[str, bool, bool], int] = {}
            for device in node.devices:
                kind = device.slot, bool(device.mig), device.divisible
                self._kinds.setdefault(kind, []).append(device)
                mine[kind] = mine.get(kind, 0) + 1
            for kind, count in mine.items():
                self._most[kind] = max(self._most.get(kind, 0), count)
        #: devices, or cores where there are none
        self.capacity = float(sum(map(len, self._kinds.values())) or self._cpu_milli / 1000)
        self._per_device = min(
            (node.cpu_milli // len(node.devices) for node in inside if node.devices), default=1000
        )
        self._memory_mib = min(
            (node.memory_mib // max(1, len(node.devices)) for node in inside), default=1024
        )

    def weight(self, job: Job) -> float:
        """Device-hours (or core-hours) that a session uses."""
        hours = job.took_s / HOUR
        if not self._kinds:
            return job.cpu_milli / 1000 * hours
        return float(_devices(job.wish, self._kinds)) * hours

    def draw(self, chance: random.Random, user: str, asked_s: float) -> Job:
        wish = self._wish(chance) if self._kinds and chance.randrange(WITHOUT) else None
        devices = float(_devices(wish, self._kinds))
        part = wish is not None and devices < 1
        median = PART_MEDIAN_H if part else MEDIAN_H[max(n for n in MEDIAN_H if n <= devices)]
        took_h = min(median * chance.lognormvariate(0.0, SPREAD), LONGEST_H)
        duration_s = self._asked_s(took_h * chance.choice(CAUTION))
        # Whole cores, so many for each device that all devices can be used at once; memory likewise.
        most = max(1000, int(max(devices, 0.25) * self._per_device))
        cpu = max(1000, int(most * chance.choice((0.25, 0.5, 1.0))) // 1000 * 1000)
        memory = max(256, int(max(devices, 0.1) * self._memory_mib * chance.choice((0.25, 0.5, 0.9))))
        return Job(
            asked_s, user, f"p{chance.randrange(1, 9)}", self._group.name, min(cpu, self._cores), memory, wish,
            duration_s, round(min(took_h * HOUR, duration_s), 3),
        )  # fmt: skip

    def _asked_s(self, hours: float) -> int:
        found = next((one for one in ASKED_H if one >= hours), ASKED_H[-1]) * HOUR
        most = self._group.max_duration_s
        return min(found, most) if most is not None else found

    def _wish(self, chance: random.Random) -> Wish:
        kinds = list(self._kinds)
        sizes = [len(self._kinds[kind]) for kind in kinds]
        kind = chance.choices(kinds, sizes)[0]
        slot, mig, divisible = kind
        if mig:
            profiles = list({p.name: p for device in self._kinds[kind][:64] for p in device.mig}.values())
            name = chance.choices([p.name for p in profiles], [1 / p.size for p in profiles])[0]
            return Wish(slot, 1, Fraction(1), name)
        count = chance.choices((0, 1, 2, 4, 8), (PART if divisible else 0, WHOLE, TWO, FOUR, EIGHT))[0]
        if count == 0:
            quantum = self._group.unit.share(self._group.unit.quantum)
            shares = [share for share in SHARES if (share / quantum).denominator == 1] or [quantum]
            return Wish(slot, 1, chance.choice(shares))
        while count > self._most[kind]:
            count //= 2
        return Wish(slot, count)


def _devices(wish: Wish | None, kinds: dict[tuple[str, bool, bool], list[Device]]) -> Fraction:
    """How many devices a wish is, a MIG instance as the part of the memory that it has."""
    if wish is None:
        return Fraction(0)
    if wish.profile is None:
        return wish.share * wish.count
    return next(
        Fraction(profile.memory_mib, device.memory_mib) * wish.count
        for device in _with_mig(kinds)
        if device.slot == wish.slot
        for profile in device.mig
        if profile.name == wish.profile
    )


def _with_mig(kinds: dict[tuple[str, bool, bool], list[Device]]) -> Iterator[Device]:
    for (_, mig, _), devices in kinds.items():
        if mig:
            yield from devices
