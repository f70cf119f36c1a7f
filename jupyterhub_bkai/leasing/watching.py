"""Who watches sees what changed: ids, not steps, so that a slow reader costs nothing."""

import asyncio
from collections.abc import Iterable, Mapping

from jupyterhub_bkai.store.records import Record


class Watcher:
    """Collects the ids that changed; a slow reader sees each once, not every step.

    `ended` holds the last form of records that ended since it was last cleared by the reader.
    """

    def __init__(self, only: str | None = None) -> None:
        self.only = only
        #: resource groups in which places in the queue may have changed since the reader last cleared it
        self.groups: set[str] = set()
        self._ids: set[str] = set()
        self.ended: dict[str, Record] = {}
        self._event = asyncio.Event()

    def tell(self, ids: set[str], ended: Mapping[str, Record], groups: Iterable[str] = ()) -> None:
        """Notes changed ids, the last form of records that ended, and groups whose queues moved."""
        if self.only is not None:
            ids = ids & {self.only}
            ended = {key: record for key, record in ended.items() if key == self.only}
            groups = ()
        self.groups.update(groups)
        if ids or groups:
            self._ids |= ids
            self.ended.update(ended)
            self._event.set()

    async def changes(self, timeout_s: float) -> set[str]:
        """The ids that changed since the last call; empty when nothing did for `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return set()
        self._event.clear()
        ids, self._ids = self._ids, set()
        return ids
