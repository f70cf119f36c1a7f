"""Our service made careless on purpose, in the way that `SOAK_WAY` names: what the judge must find."""

import os
import sys
from typing import Any

from jupyterhub_bkai import app
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
    careful = broker.Broker._books

    def careless(self: broker.Broker, records: Any) -> dict[str, NodeBook]:
        return careful(self, [])

    broker.Broker._books = careless  # type: ignore[method-assign]


def forgotten_queue() -> None:
    """A restarted service forgets who waits."""
    careful = broker.Broker.load

    async def careless(self: broker.Broker, nodes: Any) -> None:
        await careful(self, nodes)
        for record in [*self.records.values()]:
            if record.state == "queued":
                del self.records[record.id]

    broker.Broker.load = careless  # type: ignore[method-assign]


WAYS = {
    "fence": without_fence,
    "order": last_come_first_served,
    "books": empty_books,
    "queue": forgotten_queue,
}

if __name__ == "__main__":
    WAYS[os.environ["SOAK_WAY"]]()
    sys.exit(app.main())
