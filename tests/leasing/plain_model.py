"""Disciplines as their definitions say, by looking at everything each time: slow, and plain enough to be believed."""

from dataclasses import dataclass, field
from math import log

from jupyterhub_bkai.gpus.fit import Choice, NodeBook, Placement
from jupyterhub_bkai.leasing.queue import Discipline, Waiting
from tests.unit import every_place


@dataclass
class Plain:
    """One group without backfill."""

    discipline: Discipline
    half_life_s: float
    nodes: dict[str, NodeBook]
    waiting: list[Waiting] = field(default_factory=list)
    held: dict[str, tuple[Waiting, Choice, int]] = field(default_factory=dict)
    #: what anybody ever held: (user, share, from, to)
    past: list[tuple[str, float, int, int]] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for book in self.nodes.values():
            for name, amount in (("cpu", book.cpu_milli), ("memory", book.memory_mib)):
                self.totals[name] = self.totals.get(name, 0.0) + amount
            for device in book.devices:
                self.totals[device.device.slot] = self.totals.get(device.device.slot, 0.0) + 1

    def share(self, item: Waiting, choice: Choice) -> float:
        amounts = {"cpu": float(item.request.cpu_milli), "memory": float(item.request.memory_mib)}
        for piece in choice.slices:
            amounts[piece.slot] = amounts.get(piece.slot, 0.0) + float(piece.share)
        return max(amount / self.totals[name] for name, amount in amounts.items())

    def score(self, user: str, now_ms: int) -> float:
        held = sum(self.share(item, choice) for item, choice, _ in self.held.values() if item.user == user)
        if self.discipline is Discipline.DRF:
            return held
        intervals = [(share, start, end) for who, share, start, end in self.past if who == user]
        intervals += [
            (self.share(item, choice), start, now_ms)
            for item, choice, start in self.held.values()
            if item.user == user
        ]
        used = sum(
            share * (self.decay(now_ms - end) - self.decay(now_ms - start)) for share, start, end in intervals
        )
        return used / log(2) + held

    def decay(self, ms: int) -> float:
        return float(0.5 ** (ms / 1000 / self.half_life_s))

    def key(self, item: Waiting, now_ms: int) -> tuple[object, ...]:
        match self.discipline:
            case Discipline.FIFO:
                return -item.priority, item.order
            case Discipline.LIFO:
                return -item.priority, -item.order
        return -item.priority, round(self.score(item.user, now_ms), 9), item.order

    def decide(self, now_ms: int) -> list[tuple[str, Choice]]:
        """Who starts, in order, up to the first who does not fit."""
        grants = []
        while self.waiting:
            item = min(self.waiting, key=lambda item: self.key(item, now_ms))
            request = item.request
            choice = every_place.choose(
                self.nodes.values(), request.wish, request.cpu_milli, request.memory_mib, Placement.PACK
            )
            if choice is None:
                break
            self.waiting.remove(item)
            self.held[item.id] = item, choice, now_ms
            self.nodes[choice.node] = self.nodes[choice.node].take(
                request.cpu_milli, request.memory_mib, choice.slices
            )
            grants.append((item.id, choice))
        return grants

    def free(self, id: str, now_ms: int) -> None:
        item, choice, start = self.held.pop(id)
        self.past.append((item.user, self.share(item, choice), start, now_ms))
        request = item.request
        self.nodes[choice.node] = self.nodes[choice.node].give_back(
            request.cpu_milli, request.memory_mib, choice.slices
        )
