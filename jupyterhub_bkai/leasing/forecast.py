"""When those who wait will start, kept up to date beside the broker while somebody looks.

Owns how often and for how long the future is looked at, and what is learnt from sessions that started and ended. What
a range is, and how it is reckoned, is `leasing.when`'s business.
"""

import asyncio
import logging
from collections.abc import Callable

from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.lifecycle import HOLDING, State
from jupyterhub_bkai.leasing.when import Expectation, Guess, Range, Running
from jupyterhub_bkai.store import queries
from jupyterhub_bkai.store.records import Record

log = logging.getLogger(__name__)

#: how often at most the future is looked at, for how much processor time, and of what part of all of it
EVERY_S = 5.0
BUDGET_S = 0.1
PART = 0.04
#: for so long after somebody asked, ranges are kept up to date
ASKED_S = 60.0
#: of those who are watched, so many are told at a time that their range has moved by this part
TOLD, MOVED = 200, 0.2
#: so many past sessions are read at the beginning
PAST = 2000


class Forecast:
    """Ranges for everybody who waits. `clock_s` never goes back; `cost_s` is processor time."""

    def __init__(
        self,
        broker: Broker,
        now_ms: Callable[[], int],
        clock_s: Callable[[], float],
        cost_s: Callable[[], float],
    ) -> None:
        self.expectation = Expectation()
        self._broker, self._now_ms = broker, now_ms
        self._clock_s, self._cost_s = clock_s, cost_s
        self._asked: dict[str, tuple[float, Range | None]] = {}
        self._wanted = asyncio.Event()
        self._not_before = 0.0

    def of(self, record: Record) -> Range | None:
        """When a waiting request starts; None when nobody can say (yet)."""
        if record.state != State.QUEUED:
            return None
        found = self.expectation.range(record.id, self._now_ms())
        self._asked[record.id] = self._clock_s(), found
        self._wanted.set()
        return found

    async def run(self) -> None:
        """Learns and looks ahead, for ever; cancelled at the end."""
        try:
            for user, asked_s, took_s in await self._broker.database.read(queries.lengths(PAST)):
                self.expectation.history.add(user, asked_s, took_s)
        except Exception:
            log.exception("How long earlier sessions lasted could not be read")
        async with self._broker.watch() as watcher:
            while True:
                changed = await watcher.changes(1.0)
                ended, watcher.ended = watcher.ended, {}
                watcher.groups.clear()
                try:
                    for id in changed:
                        self._learn(id, ended.get(id))
                    if self._wanted.is_set() and self._clock_s() >= self._not_before:
                        await self.look()
                except Exception:
                    log.exception("When those who wait will start could not be reckoned")
                    self._not_before = self._clock_s() + 60.0

    def _learn(self, id: str, ended: Record | None) -> None:
        live = self._broker.records.get(id)
        record = ended or live
        if record is None:
            return
        if record.granted_ms is not None:
            self.expectation.started(id, record.granted_ms)
        elif ended is not None:
            self.expectation.left(id)
        if ended is not None and ended.started_ms is not None and ended.granted_ms and ended.ended_ms:
            took_s = (ended.ended_ms - ended.granted_ms) / 1000
            self.expectation.history.add(ended.user, ended.request.duration_s, took_s)

    async def look(self) -> None:
        """Looks ahead from the present state, beside everything else, and tells who is watched and moved."""
        self._wanted.clear()
        running = {
            record.id: Running(record.user, record.granted_ms, record.request.duration_s)
            for record in self._broker.records.values()
            if record.state in HOLDING and record.granted_ms is not None
        }
        now_ms, scheduler = self._now_ms(), self._broker.scheduler.copy()

        def ahead() -> tuple[dict[str, Guess], float]:
            begun = self._cost_s()
            found = self.expectation.ahead(
                scheduler, running, now_ms, lambda: self._cost_s() - begun < BUDGET_S
            )
            return found, self._cost_s() - begun

        found, cost_s = await asyncio.to_thread(ahead)
        waits = {
            id: guess
            for id, guess in found.items()
            if (record := self._broker.records.get(id)) is not None and record.state == State.QUEUED
        }
        self.expectation.take(waits, now_ms)
        now_s = self._clock_s()
        self._not_before = now_s + max(EVERY_S, cost_s / PART)
        self._tell(now_ms, now_s)

    def _tell(self, now_ms: int, now_s: float) -> None:
        told = 0
        for id, (asked_s, before) in [*self._asked.items()]:
            if now_s - asked_s > ASKED_S or id not in self._broker.records:
                del self._asked[id]
                continue
            self._wanted.set()
            if told < TOLD and _moved(before, self.expectation.range(id, now_ms), now_ms):
                told += 1
                self._broker.touch(id)


def _moved(before: Range | None, after: Range | None, now_ms: int) -> bool:
    """Whether it is worth telling."""
    if before is None or after is None:
        return before is not after
    most = MOVED * max(60_000, after.latest_ms - now_ms)
    return (
        abs(after.latest_ms - before.latest_ms) > most or abs(after.earliest_ms - before.earliest_ms) > most
    )
