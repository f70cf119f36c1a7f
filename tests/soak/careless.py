"""Our service made careless on purpose, in the way that `SOAK_WAY` names: what the judge must find."""

import os
import sys
import zlib
from dataclasses import replace
from typing import Any

from jupyterhub_bkai import app, metering
from jupyterhub_bkai.clock import Stamp
from jupyterhub_bkai.leasing import broker, queue, reconcile, scheduler
from jupyterhub_bkai.store.records import Record


def without_fence() -> None:
    """Gives slices back on the Hub's word alone."""

    async def free_at_once(self: reconcile.Reconciler, record: Record) -> None:
        await self._broker.free(record.id, "fence", "it should be gone by now")

    reconcile._PERFORM[reconcile.Action.FENCE] = free_at_once
    reconcile._PERFORM[reconcile.Action.STOP_SERVER] = free_at_once


def last_come_first_served() -> None:
    careful = queue.Line.key

    def careless(self: queue.Line, item: queue.Waiting) -> queue.Key:
        priority, order, id = careful(self, item)
        return priority, -order, id

    queue.Line.key = careless  # type: ignore[method-assign]


def empty_books() -> None:
    """A restarted service believes that everything is free."""

    def careless(self: scheduler.Scheduler, held: scheduler.Held, now_ms: int) -> None:
        return None

    careful = broker.Broker.load

    async def load(self: broker.Broker, nodes: Any) -> None:
        hold, scheduler.Scheduler.hold = scheduler.Scheduler.hold, careless  # type: ignore[method-assign]
        await careful(self, nodes)
        scheduler.Scheduler.hold = hold  # type: ignore[method-assign]

    broker.Broker.load = load  # type: ignore[method-assign]


def forgotten_queue() -> None:
    """A restarted service forgets who waits."""
    careful = broker.Broker.load

    async def careless(self: broker.Broker, nodes: Any) -> None:
        await careful(self, nodes)
        for record in [*self.records.values()]:
            if record.state == "queued":
                del self.records[record.id]
                self.scheduler.remove(record.id)

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
