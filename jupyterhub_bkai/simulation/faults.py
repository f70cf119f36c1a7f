"""What goes wrong in a simulation: drawn beforehand from a seed, so that a failure can be played again.

Owns the kinds of faults and which machines and devices are away because of them.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from jupyterhub_bkai.model import Device, Node

HOUR_MS = 3_600_000
#: the wall clock is set by so much at most, in either direction
MOST_STEP_MS = 2 * HOUR_MS
#: devices and machines are away for this long on average
AWAY_MS = 4 * HOUR_MS


class Kind(StrEnum):
    """One kind of fault."""

    DIE_BEFORE = "die-before"
    DIE_AFTER = "die-after"
    REFUSE = "refuse"
    LOSE_ANSWER = "lose-answer"
    DEVICE = "device"
    NODE = "node"
    CLOCK = "clock"
    CRASH = "crash"


#: kind → what happens, for the documentation
MEANING = {
    Kind.DIE_BEFORE: "the service is killed before a transaction is written, and starts again from its database",
    Kind.DIE_AFTER: "the service is killed when a transaction is written and nobody has been answered",
    Kind.REFUSE: "the database refuses a transaction",
    Kind.LOSE_ANSWER: "a transaction is written, and the database's answer is lost",
    Kind.DEVICE: "a device falls ill, and comes back hours later",
    Kind.NODE: "a machine is drained or not there, and comes back hours later",
    Kind.CLOCK: "the wall clock is set, by up to two hours in either direction",
    Kind.CRASH: "a session's processes die",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `pick` (0 to 1) says which session, device or machine; `back` that it comes back."""

    at_ms: int
    kind: Kind
    pick: float = 0.0
    step_ms: int = 0
    back: bool = False


@dataclass(slots=True)
class Faults:
    """The faults of one simulation, and what is away now."""

    coming: Sequence[Fault] = ()
    _ill: dict[str, int] = field(default_factory=dict)
    _gone: dict[str, int] = field(default_factory=dict)

    def change(self, fault: Fault, nodes: Sequence[Node]) -> None:
        """A device or machine goes, or comes back; who went twice comes back after the second time."""
        away = self._ill if fault.kind is Kind.DEVICE else self._gone
        names = _devices(nodes) if fault.kind is Kind.DEVICE else [node.name for node in nodes]
        if not names:
            return
        name = names[int(fault.pick * len(names))]
        away[name] = away.get(name, 0) + (-1 if fault.back else 1)
        if not away[name]:
            del away[name]

    def nodes(self, nodes: Sequence[Node]) -> list[Node]:
        """The machines as the service is told of them now."""
        if not self._ill and not self._gone:
            return list(nodes)
        return [
            replace(node, devices=tuple(self._seen(device) for device in node.devices))
            for node in nodes
            if node.name not in self._gone
        ]

    def _seen(self, device: Device) -> Device:
        return replace(device, healthy=False) if device.id in self._ill else device


def _devices(nodes: Sequence[Node]) -> list[str]:
    return [device.id for node in nodes for device in node.devices]


def draw(seed: int, per_hour: float, hours: float, kinds: Collection[Kind] = tuple(Kind)) -> Faults:
    """So many faults an hour on average, of some kinds; what goes away comes back."""
    chance = random.Random(f"faults {seed}")
    ordered = [kind for kind in Kind if kind in kinds]
    found: list[Fault] = []
    at = chance.expovariate(per_hour) if per_hour > 0 and ordered else hours
    while at < hours:
        at_ms, kind, pick = int(at * HOUR_MS), chance.choice(ordered), chance.random()
        step_ms = chance.randrange(-MOST_STEP_MS, MOST_STEP_MS + 1)
        found.append(Fault(at_ms, kind, pick, step_ms if kind is Kind.CLOCK else 0))
        if kind in (Kind.DEVICE, Kind.NODE):
            away_ms = int(chance.expovariate(1 / AWAY_MS))
            found.append(Fault(at_ms + away_ms, kind, pick, back=True))
        at += chance.expovariate(per_hour)
    found.sort(key=lambda fault: fault.at_ms)
    return Faults(found)
