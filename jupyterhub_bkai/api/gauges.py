"""Figures about the whole that more than one answer shows: fragmentation, and what stood free while somebody waited."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.leftover import Fragmentation, IdleMeter, Want, free_while_waiting, usual
from jupyterhub_bkai.model import Request


@dataclass(slots=True)
class Gauges:
    """Reads a broker. `clock_s` is a clock that never goes back."""

    broker: Broker
    clock_s: Callable[[], float]
    idle: IdleMeter = field(init=False)
    _fragmentation: Fragmentation = field(default_factory=Fragmentation)

    def __post_init__(self) -> None:
        self.idle = IdleMeter(self.clock_s())

    def wants(self) -> dict[str, Counter[Want]]:
        """The usual requests of each group."""
        by_group: dict[str, list[Request]] = {}
        for record in self.broker.records.values():
            by_group.setdefault(record.request.group, []).append(record.request)
        return {group: usual(requests) for group, requests in by_group.items()}

    def fragmentation(self, books: Iterable[NodeBook], wants: Iterable[Mapping[Want, int]]) -> float | None:
        """Of what is free on some nodes, the share that usual requests cannot use."""
        return self._fragmentation.of(books, sum(map(Counter, wants), Counter()))

    def look(self) -> None:
        """Counts up to now what stood free while somebody waited."""
        halls = self.broker.scheduler.halls.values()
        self.idle.advance(self.clock_s(), {hall.name: free_while_waiting(hall) for hall in halls})

    async def run(self) -> None:
        """Looks when something changed, at most once a second; cancelled at the end."""
        async with self.broker.watch() as watcher:
            while True:
                self.look()
                await asyncio.sleep(1)
                await watcher.changes(10)
                watcher.groups.clear()
                watcher.ended.clear()
