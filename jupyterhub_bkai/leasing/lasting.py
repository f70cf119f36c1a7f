"""How long sessions last, as commands of the broker: more time for one that runs, a warning before it ends.

What is granted counts in the books at once, so that of two who ask at the same moment the second is judged by what the
first was given.
"""

import asyncio
import logging
from collections.abc import Callable

from jupyterhub_bkai.errors import Conflict, InvalidOptions
from jupyterhub_bkai.leasing import extension, telling
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.draft import Command, Draft
from jupyterhub_bkai.leasing.lifecycle import State
from jupyterhub_bkai.notices.kinds import Kind, due
from jupyterhub_bkai.options import duration_text
from jupyterhub_bkai.store.records import Record

log = logging.getLogger(__name__)
LOOK_S = 1.0


def extend(broker: Broker, record_id: str, by_s: int, who: str) -> Command[Record]:
    """Gives a running session so many more seconds. Raises `Conflict` with the most there could be when others would
    start later for it, or when it would last longer than is allowed.
    """

    def command(draft: Draft) -> Record:
        record = draft.get(record_id)
        if by_s < extension.LEAST_S:
            sentence = "by: give at least a minute, such as 30m or 2h."
            raise InvalidOptions({"by": sentence})
        now_ms, ends_ms = draft.now.wall_ms, deadline_of(record)
        until_ms, most = ends_ms + by_s * 1000, bound(broker, record, now_ms)
        if until_ms > most.until_ms:
            raise Conflict(most.sentence(ends_ms), reason="not-extended")
        why = f"goes on for {duration_text(by_s)} more, until {extension.moment_text(until_ms, now_ms)}"
        longer = draft.postpone(record, until_ms, who, why)
        broker.expect(longer, now_ms)
        return longer

    return command


def warn(broker: Broker, record_id: str) -> Command[bool]:
    """Warns of a session's end where that is due; False where it is not (any more)."""

    def command(draft: Draft) -> bool:
        record = draft.changed.get(record_id) or broker.records.get(record_id)
        step_s = _due(broker, record, draft.now.wall_ms) if record is not None else None
        if record is None or step_s is None:
            return False
        draft.tell(record, Kind.ENDING, telling.ending(record, draft.now.wall_ms), step_s)
        return True

    return command


def _due(broker: Broker, record: Record, now_ms: int) -> int | None:
    if record.state != State.RUNNING or record.deadline_ms is None:
        return None
    since_ms, last = record.started_ms or record.since_ms, broker.warned.get(record.id)
    return due(broker.settings.warn_before_s, record.deadline_ms, since_ms, last, now_ms)


async def warn_all(broker: Broker, now_ms: Callable[[], int]) -> None:
    """Warns whom it is time to warn, for ever; cancelled at the end."""
    while True:
        try:
            now = now_ms()
            for record in [one for one in broker.records.values() if _due(broker, one, now) is not None]:
                if await broker.submit(warn(broker, record.id)):
                    log.info("lease %s of %s: warned of its end", record.id, record.user)
                    broker.touch(record.id)
        except Exception:
            log.exception("Those whose sessions end soon could not be warned")
        await asyncio.sleep(LOOK_S)


def bound(broker: Broker, record: Record, now_ms: int) -> extension.Bound:
    """Until when a running session could go on. Raises `Conflict` for one that says not when it ends."""
    deadline_of(record)
    who = record.person, record.request
    started_ms = record.started_ms or record.since_ms
    return extension.bound(broker.scheduler, broker.settings, record.id, who, started_ms, now_ms)


def deadline_of(record: Record) -> int:
    """When a running session ends. Raises `Conflict` where there is no such moment."""
    if record.state != State.RUNNING:
        raise Conflict("It does not run, so its time is not counted; only a running session is extended.")
    if record.deadline_ms is None:
        raise Conflict("It has no end, so there is nothing to extend.", reason="no-deadline")
    return record.deadline_ms
