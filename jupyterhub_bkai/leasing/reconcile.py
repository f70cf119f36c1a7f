"""The loop that makes what is true of the Hub and of the processes agree with the books.

`decide` is pure: one record and the facts about it → what to do. `Reconciler` reads the facts, performs, and goes
round again: after something changed, and at least once a second. It never gives a slice back without the fence's
proof.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Protocol

from jupyterhub_bkai.errors import PublicError, Unavailable
from jupyterhub_bkai.hub import Hub, HubUnavailable, User
from jupyterhub_bkai.leasing.broker import Broker, Progress
from jupyterhub_bkai.leasing.lifecycle import HOLDING, Cause, State
from jupyterhub_bkai.store.records import Record

log = logging.getLogger(__name__)

#: Seconds nobody may wait for a request before the Hub is asked to start it.
UNATTENDED_S = 0.7
#: Seconds in which nothing may be seen of a running session (the Hub lists no server, or its process is dead)
#: before its lease is ended: longer than a stop through the Hub takes to tell us.
GONE_S = 3.0
#: Seconds a stopping server may take in the Hub before the fence ends it.
STOP_S = 20.0
#: Seconds to wait for a Hub that does not answer before a stopping lease is fenced without it.
HUB_S = 10.0
#: Seconds in which the Hub may list no server for a lease that is starting: a spawner that failed says so sooner.
RESTART_S = 2.0
#: How often the memory of sessions is looked at, where the kernel keeps no peak itself.
MEMORY_S = 5.0
#: So many starts the Hub is asked for at once: each costs it a while in which it answers nobody.
STARTS = 4
#: How often a start that the Hub lost is tried again.
TRIES = 3


class Fence(Protocol):
    """Proof that nothing carrying a lease id is alive."""

    def alive(self, lease_id: str) -> list[int]:
        """The processes that still carry the lease."""

    def end(self, lease_id: str, grace_s: float, *, tidy: bool = True) -> bool:
        """Ends them; True when none is left. Without `tidy` what the kernel counted of them stays readable."""

    def tidy(self, lease_id: str) -> None:
        """Removes what was kept of a lease that has ended."""

    def launched_is_dead(self, handle: Mapping[str, Any]) -> bool:
        """True when the very process that was launched is gone; False while it lives or cannot be told."""


class Gauge(Protocol):
    """What a lease's processes took of the machine."""

    def look(self, leases: Iterable[str]) -> None:
        """Notes what live leases take now."""

    def peak_kib(self, lease_id: str) -> int | None:
        """The most main memory that was seen of the lease; None when nothing was."""


class Action(Enum):
    """What the loop does about a record."""

    NOTHING = "nothing"
    START = "start"
    RESTART = "restart"
    STOP_SERVER = "stop server"
    FENCE = "fence"
    LOST = "lost"
    DEADLINE = "deadline"
    SILENT = "silent"
    TOO_LONG = "too long"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a record's server: how long in its state, in the Hub's words, and who waits for it.

    `hub` is None when the Hub did not answer, and `hub_silent_s` for how long it has not. `released` is true when
    the spawner has said that it stopped the session. `gone_s` says for how long nothing has been seen of its
    server, and `fresh` that nobody has ever waited for it.
    """

    in_state_s: float
    unattended_s: float
    silent_s: float
    hub: str | None  # "none", "spawn", "ready", "stop", "check"
    hub_silent_s: float = 0.0
    tries: int = 0
    released: bool = False
    gone_s: float = 0.0
    fresh: bool = False


def decide(record: Record, facts: Facts, now_ms: int, queue_limit_s: int, start_limit_s: int = 600) -> Action:
    """What to do about one record now."""
    state = record.state
    if state == State.STOPPING:
        return _stopping(facts)
    if record.keepalive_s is not None and facts.silent_s > record.keepalive_s:
        return Action.SILENT
    if state == State.QUEUED:
        if now_ms - max(record.asked_ms, record.request.not_before_ms) > queue_limit_s * 1000:
            return Action.TOO_LONG
        waiting = facts.hub == "none" and (facts.fresh or facts.unattended_s > UNATTENDED_S)
        return Action.START if waiting else Action.NOTHING
    if state == State.RUNNING:
        if record.deadline_ms is not None and now_ms > record.deadline_ms:
            return Action.DEADLINE
        return Action.LOST if facts.gone_s > GONE_S else Action.NOTHING
    if facts.hub != "none" or facts.unattended_s == 0:
        return Action.NOTHING
    if facts.in_state_s > start_limit_s:
        return Action.LOST  # nobody gets a slice for longer that the Hub will not start
    if facts.fresh:
        return Action.START
    if facts.gone_s <= RESTART_S:
        return Action.NOTHING
    return Action.RESTART if facts.tries < TRIES else Action.LOST


def _stopping(facts: Facts) -> Action:
    if facts.released:
        return Action.FENCE
    if facts.hub is None:
        return Action.FENCE if facts.hub_silent_s > HUB_S else Action.NOTHING
    if facts.hub == "check":
        # A restarted Hub is still looking at the session, and takes no stop before it has seen it answer or end.
        return Action.FENCE if facts.in_state_s > HUB_S else Action.NOTHING
    if facts.hub in ("ready", "spawn"):
        return Action.STOP_SERVER if facts.in_state_s < STOP_S else Action.FENCE
    if facts.hub == "stop" and facts.in_state_s < STOP_S:
        return Action.NOTHING
    return Action.FENCE


class Reconciler:
    """The doer of the loop."""

    def __init__(
        self, broker: Broker, hub: Hub, fence: Fence, gauge: Gauge, now_ms: Callable[[], int]
    ) -> None:
        self._broker = broker
        self._hub = hub
        self._fence = fence
        self._gauge = gauge
        self._now_ms = now_ms
        self._tries: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hub_answered = 0.0
        self._looked: dict[str, float] = {}
        self._released: set[str] = set()
        self._gone: dict[str, float] = {}
        self._asked: dict[tuple[str, str], float] = {}
        self._starts = asyncio.Semaphore(STARTS)

    def asked_here(self, user: str, server: str) -> bool:
        """True once after the loop asked the Hub for a server: the start that now arrives is for a known request."""
        asked = self._asked.pop((user, server), None)
        return asked is not None and asyncio.get_running_loop().time() - asked < 60.0

    def released(self, record_id: str) -> None:
        """The spawner says it stopped the session: it is fenced in the next round, not after the next look."""
        self._released.add(record_id)
        self._not_before.pop(record_id, None)
        self._broker.touch(record_id)

    async def run(self) -> None:
        """Goes round for ever; cancelled at the end."""
        loop = asyncio.get_running_loop()
        self._hub_answered = loop.time()
        async with self._broker.watch() as watcher:
            while True:
                try:
                    self._broker.nudge()
                    await self.round()
                except Exception:
                    log.exception("A round of the reconcile loop failed")
                await watcher.changes(timeout_s=1.0)
                watcher.ended.clear()
                # Let what comes together be looked at together.
                await asyncio.sleep(0.02)

    async def watch_memory(self) -> None:
        """Keeps the gauge up to date, for ever; cancelled at the end."""
        while True:
            await asyncio.sleep(MEMORY_S)
            leases = [r.id for r in self._broker.records.values() if r.state in HOLDING]
            try:
                await asyncio.to_thread(self._gauge.look, leases)
            except Exception:
                log.exception("The memory of the sessions could not be looked at")

    async def round(self) -> None:
        """Looks at every live record once."""
        now = asyncio.get_running_loop().time()
        self._forget_ended()
        by_user: dict[str, list[Record]] = {}
        for record in list(self._broker.records.values()):
            if record.id not in self._busy and self._not_before.get(record.id, 0) <= now:
                by_user.setdefault(record.user, []).append(record)
        for record in self._broker.unwanted.values():
            if record.id not in self._busy and self._not_before.get(record.id, 0) <= now:
                self._spawn(record, Action.FORGET)
        for name, records in by_user.items():
            if not self._worth_looking(name, records, now):
                continue
            user = await self._look(name, now)
            for record in records:
                facts, settings = self._facts(record, user, now), self._broker.settings
                action = decide(
                    record,
                    facts,
                    self._now_ms(),
                    settings.queue_limit_of(record.request.group),
                    settings.start_limit_s,
                )
                if action is not Action.NOTHING:
                    self._spawn(record, action)

    def _forget_ended(self) -> None:
        known = {*self._tries, *self._not_before, *self._released, *self._gone}
        for ended in known - set(self._broker.records) - set(self._broker.unwanted):
            self._tries.pop(ended, None)
            self._not_before.pop(ended, None)
            self._released.discard(ended)
            self._gone.pop(ended, None)

    def _worth_looking(self, name: str, records: list[Record], now: float) -> bool:
        """The Hub is asked about a person every five seconds, sooner while something of theirs is moving."""
        moving = any(
            r.state == State.STOPPING
            or (r.state != State.RUNNING and self._broker.unattended_s(r.id) > UNATTENDED_S)
            or r.id in self._broker.fresh
            or self._overdue(r)
            or r.id in self._gone
            or self._dead(r)
            for r in records
        )
        return moving or now - self._looked.get(name, -60.0) > 5.0

    def _overdue(self, record: Record) -> bool:
        silent = record.keepalive_s is not None and self._broker.silent_s(record.id) > record.keepalive_s
        return silent or (record.deadline_ms is not None and self._now_ms() > record.deadline_ms)

    def _dead(self, record: Record) -> bool:
        if record.state != State.RUNNING or record.handle is None:
            return False
        return self._fence.launched_is_dead(record.handle)

    async def _look(self, name: str, now: float) -> User | None:
        try:
            user = await self._hub.user(name)
        except PublicError as error:
            log.debug("The Hub did not tell about %s: %s", name, error)
            return None
        self._hub_answered = now
        self._looked[name] = now
        return user or User(name, False, (), {})

    def _facts(self, record: Record, user: User | None, now: float) -> Facts:
        in_state = max(0.0, (self._now_ms() - record.since_ms) / 1000)
        hub = None if user is None else _hub_word(user, record.server)
        if hub == "none" or (hub != "stop" and self._dead(record)):
            gone_s = now - self._gone.setdefault(record.id, now)
        else:
            self._gone.pop(record.id, None)
            gone_s = 0.0
        return Facts(
            in_state_s=in_state,
            unattended_s=self._broker.unattended_s(record.id),
            silent_s=self._broker.silent_s(record.id) if record.keepalive_s is not None else 0.0,
            hub=hub,
            hub_silent_s=now - self._hub_answered,
            tries=self._tries.get(record.id, 0),
            released=record.id in self._released,
            gone_s=gone_s,
            fresh=record.id in self._broker.fresh,
        )

    def _spawn(self, record: Record, action: Action) -> None:
        """Performs beside the loop, so that one slow stop holds up nobody."""
        self._busy.add(record.id)
        task = asyncio.create_task(self._perform(record, action), name=f"{action.value} {record.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(self, record: Record, action: Action) -> None:
        try:
            log.info("lease %s of %s/%s: %s", record.id, record.user, record.server, action.value)
            await _PERFORM[action](self, record)
        except Unavailable as error:
            log.info("lease %s: %s is tried again: %s", record.id, action.value, error)
            self._later(record.id, 2.0)
        except Exception:
            log.exception("lease %s: %s failed", record.id, action.value)
            self._later(record.id, 5.0)
        finally:
            self._busy.discard(record.id)

    def _later(self, record_id: str, seconds: float) -> None:
        self._not_before[record_id] = asyncio.get_running_loop().time() + seconds

    # -- what is done ----------------------------------------------------------------------

    async def _start(self, record: Record) -> bool:
        """Asks the Hub for the server; its spawner then attaches to the waiting request. True when the Hub took it."""
        try:
            async with self._starts:
                live = self._broker.records.get(record.id)
                if live is None or live.state == State.STOPPING:
                    return False
                self._later(record.id, 3.0)
                self._asked[record.user, record.server] = asyncio.get_running_loop().time()
                await self._hub.start(record.user, record.server)
                return True
        except HubUnavailable:
            raise
        except PublicError as error:
            # Kept: the person may have to log in again, or to make room among their servers.
            self._asked.pop((record.user, record.server), None)
            self._broker.set_progress(record.id, Progress(None, error.message))
            self._later(record.id, 15.0)
            return False

    async def _restart(self, record: Record) -> None:
        """A start that a killed Hub lost: whatever was launched is ended first, then it is asked for again."""
        # Counted only when the Hub took it: a Hub that refuses says nothing about the session.
        if await asyncio.to_thread(self._fence.end, record.id, 0.0) and await self._start(record):
            self._tries[record.id] = self._tries.get(record.id, 0) + 1

    async def _stop_server(self, record: Record) -> None:
        self._later(record.id, 1.0)
        await self._hub.stop(record.user, record.server, remove=record.remove_server)

    async def _fenced(self, record: Record) -> None:
        """Ends what is left and frees the slices; without the proof they stay held and it is tried again."""
        if not await asyncio.to_thread(partial(self._fence.end, record.id, 5.0, tidy=False)):
            log.warning("lease %s: something of it is still alive; its slices stay held", record.id)
            self._later(record.id, 2.0)
            return
        measured_kib = self._gauge.peak_kib(record.id)
        await self._broker.free(record.id, "fence", "nothing of the session is alive", measured_kib)
        # Only now: a service that is killed before reads again what the kernel counted.
        await asyncio.to_thread(self._fence.tidy, record.id)

    async def _forget(self, record: Record) -> None:
        """Has the Hub forget the server of an ended request, unless somebody has asked for one of that name since."""
        self._later(record.id, 2.0)
        again = self._broker.of_server(record.user, record.server)
        if again is not None or await self._hub.stop(record.user, record.server, remove=True):
            await self._broker.forgotten(record.id)

    async def _lost(self, record: Record) -> None:
        started = record.started_ms is not None
        cause = Cause.SERVER_GONE if started else Cause.START_FAILED
        message = "The session's server is gone." if started else "The session could not be started."
        await self._broker.end(record.id, cause, "reconcile", message)

    async def _deadline(self, record: Record) -> None:
        await self._broker.end(record.id, Cause.DEADLINE, "reconcile", "Its maximum duration is over.")

    async def _silent(self, record: Record) -> None:
        message = f"Nobody was connected for {record.keepalive_s} seconds."
        await self._broker.end(record.id, Cause.UNATTENDED, "reconcile", message)

    async def _too_long(self, record: Record) -> None:
        await self._broker.end(
            record.id, Cause.QUEUE_LIMIT, "reconcile", "It waited as long as this site allows."
        )


_PERFORM = {
    Action.START: Reconciler._start,
    Action.RESTART: Reconciler._restart,
    Action.STOP_SERVER: Reconciler._stop_server,
    Action.FENCE: Reconciler._fenced,
    Action.LOST: Reconciler._lost,
    Action.DEADLINE: Reconciler._deadline,
    Action.SILENT: Reconciler._silent,
    Action.TOO_LONG: Reconciler._too_long,
    Action.FORGET: Reconciler._forget,
}


def _hub_word(user: User, server: str) -> str:
    """The Hub's view of a server in one word."""
    found = user.servers.get(server)
    if found is None or (found.stopped and found.pending is None):
        return "none"
    return found.pending if found.pending in ("spawn", "stop", "check") else "ready"
