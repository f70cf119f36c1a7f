"""Figures about the whole that more than one answer shows: fragmentation, and what stood free while somebody waited."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.leftover import Fragmentation, IdleMeter, free_while_waiting, usual


@dataclass(slots=True)
class Gauges:
    """Reads a broker. `clock_s` is a clock that never goes back."""

    broker: Broker
    clock_s: Callable[[], float]
    idle: IdleMeter = field(init=False)
    _fragmentation: Fragmentation = field(default_factory=Fragmentation)

    def __post_init__(self) -> None:
        self.idle = IdleMeter(self.clock_s())

    def fragmentation(self, books: Iterable[NodeBook], groups: Iterable[str]) -> float | None:
        """Of what is free on some nodes, the share that the usual requests of some groups cannot use."""
        wanted = set(groups)
        wants = usual(r.request for r in self.broker.records.values() if r.request.group in wanted)
        return self._fragmentation.of(books, wants)

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
