"""Our service made careless on purpose, in the way that `SOAK_WAY` names: what the judge must find."""

import os
import sys
import zlib
from dataclasses import replace
from typing import Any

from jupyterhub_bkai import app, metering
from jupyterhub_bkai.clock import Stamp
from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.leasing import broker, queue, reconcile
from jupyterhub_bkai.store.records import Record


def without_fence() -> None:
    """Gives slices back on the Hub's word alone."""

    async def free_at_once(self: reconcile.Reconciler, record: Record) -> None:
        await self._broker.free(record.id, "fence", "it should be gone by now")

    reconcile._PERFORM[reconcile.Action.FENCE] = free_at_once
    reconcile._PERFORM[reconcile.Action.STOP_SERVER] = free_at_once


def last_come_first_served() -> None:
    careful = queue.order

    def careless(waiting: Any) -> Any:
        return {name: line[::-1] for name, line in careful(waiting).items()}

    queue.order = careless


def empty_books() -> None:
    """A restarted service believes that everything is free."""
    careful_load, careful_books = broker.Broker.load, broker.Broker._books

    async def careless(self: broker.Broker, nodes: Any) -> None:
        await careful_load(self, nodes)
        former = set(self.records)

        def books(self: broker.Broker, records: Any) -> dict[str, NodeBook]:
            return careful_books(self, [record for record in records if record.id not in former])

        broker.Broker._books = books  # type: ignore[method-assign]
        self.set_nodes(nodes)

    broker.Broker.load = careless  # type: ignore[method-assign]


def forgotten_queue() -> None:
    """A restarted service forgets who waits."""
    careful = broker.Broker.load

    async def careless(self: broker.Broker, nodes: Any) -> None:
        await careful(self, nodes)
        for record in [*self.records.values()]:
            if record.state == "queued":
                del self.records[record.id]

    broker.Broker.load = careless  # type: ignore[method-assign]


def wall_meter() -> None:
    """Measures how long something was held by the clock that people set."""
    careful = metering.close_interval

    def careless(
        interval: metering.Interval, now: Stamp, measured_kib: int | None = None
    ) -> metering.Interval:
        length = max(0, now.wall_ms - interval.opened.wall_ms)
        return replace(careful(interval, now, measured_kib), duration_ms=length)

    metering.close_interval = careless


def open_meter() -> None:
    """Forgets to close every second interval."""
    careful = metering.closing_row

    def careless(interval: metering.Interval) -> dict[str, Any]:
        row = careful(interval)
        return row if zlib.crc32(interval.lease.encode()) % 2 else {**row, "duration_ms": None}

    metering.closing_row = careless


WAYS = {
    "fence": without_fence,
    "order": last_come_first_served,
    "books": empty_books,
    "queue": forgotten_queue,
    "wall-meter": wall_meter,
    "open-meter": open_meter,
}

if __name__ == "__main__":
    WAYS[os.environ["SOAK_WAY"]]()
    sys.exit(app.main())
