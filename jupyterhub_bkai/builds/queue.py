"""Identical work joins: who asks for what is already under way hears everything from its beginning.

Owns joining, replaying and the limit of how much goes on at once; knows nothing of what is being made.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from jupyterhub_bkai.builds.progress import Progress
from jupyterhub_bkai.errors import PublicError, Unavailable

log = logging.getLogger(__name__)

Report = Callable[[Progress], None]


@dataclass(eq=False, slots=True)
class _Work:
    """What is under way, as far as it has told. `changed` is replaced each time it is set."""

    told: list[Progress] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    done: bool = False
    error: PublicError | None = None

    def tell(self, progress: Progress) -> None:
        if not self.told or self.told[-1] != progress:
            self.told.append(progress)
            self._wake()

    def finish(self, error: PublicError | None) -> None:
        self.done, self.error = True, error
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[Progress]:
        heard = 0
        while True:
            while heard < len(self.told):
                yield self.told[heard]
                heard += 1
            if self.done:
                break
            await self.changed.wait()
        if self.error is not None:
            raise self.error.with_traceback(None)


class Queue:
    """At most `slots` works at once; one work per key, however many ask."""

    def __init__(self, slots: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self._works: dict[str, _Work] = {}

    def ask(self, key: str, make: Callable[[Report], Awaitable[None]]) -> AsyncIterator[Progress]:
        """Begin the work, or join it. It goes on when its askers leave: the next one will be glad of it."""
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = _Work()
            task = work.task = asyncio.create_task(self._run(work, make), name=f"making {key}")
            task.add_done_callback(partial(self._ended, key, work))
        return work.follow()

    def under_way(self) -> frozenset[str]:
        """The keys that are being worked on or wait their turn."""
        return frozenset(self._works)

    async def aclose(self) -> None:
        """Stop everything; those who listen are told."""
        tasks = [work.task for work in self._works.values() if work.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, work: _Work, make: Callable[[Report], Awaitable[None]]) -> None:
        if self._free.locked():
            work.tell(Progress(None, "Waiting for other image versions that are being made"))
        async with self._free:
            await make(work.tell)

    def _ended(self, key: str, work: _Work, task: "asyncio.Task[None]") -> None:
        del self._works[key]
        caught = None if task.cancelled() else task.exception()
        if task.cancelled():
            work.finish(Unavailable("The service was stopped meanwhile: ask again.", reason="stopped"))
        elif caught is None or isinstance(caught, PublicError):
            work.finish(caught)
        else:
            log.error("making %s failed", key, exc_info=caught)
            work.finish(Unavailable(f"Making {key} failed by a fault of ours: the service's log names it."))
