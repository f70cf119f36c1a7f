"""The simulated world: people, the Hub, processes and a clock around the live broker.

Everything that decides is the live code: `leasing.broker` with its scheduler, over a database, and
`leasing.reconcile.decide` for what ends when. What is made up here is only when things happen: a heap of events, each
of which hands the broker a command as the service would; a refused, lost or unanswered one is handed in again, as the
Hub and the reconcile loop do. The same seed gives the same run.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any, TypeVar

import sqlalchemy as sa

from jupyterhub_bkai.clock import Clock, Stamp
from jupyterhub_bkai.errors import PublicError, Unavailable
from jupyterhub_bkai.leasing import reconcile
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.draft import Command
from jupyterhub_bkai.leasing.lifecycle import Cause, State
from jupyterhub_bkai.model import Person, Request
from jupyterhub_bkai.simulation.faults import Fault, Faults, Kind
from jupyterhub_bkai.simulation.judge import Broken, Judge
from jupyterhub_bkai.simulation.site import Site
from jupyterhub_bkai.simulation.trace import Job
from jupyterhub_bkai.store.database import Batch, Store
from jupyterhub_bkai.store.records import Record

T = TypeVar("T")
#: 2026-01-05, a Monday, 00:00 UTC: when every simulation begins
BEGIN_MS = 1_767_571_200_000
#: how long things take that are not the scheduler's: a launch, the first answer of a session, a stop
LAUNCH_MS, READY_MS, STOP_MS = 1_000, 4_000, 2_000
#: after this long something that failed is tried again
AGAIN_MS = 2_000
#: a dead session is noticed after this long
NOTICED_MS = int(reconcile.GONE_S * 1000) + 1_000


class Died(BaseException):
    """The service was killed."""


class Event(IntEnum):
    """What can happen to a job, in the order in which simultaneous things are handed in."""

    LOOK = 0
    EXIT = 1
    LEAVE = 2
    READY = 3
    START = 4
    ASK = 5
    FAULT = 6


@dataclass(frozen=True, slots=True)
class Pace:
    """How a simulation is run. What happens within `step_ms` is decided together."""

    seed: int = 0
    step_ms: int = 1000
    launch_ms: int = LAUNCH_MS
    ready_ms: int = READY_MS
    stop_ms: int = STOP_MS
    #: compare all that the service believes with what is written after every so many turns; 0: after faults only
    compare: int = 0


class VirtualClock(Clock):
    """A clock that is told the time. `step` sets the wall clock and leaves the even one alone."""

    def __init__(self) -> None:
        self.even_ms = 0
        self.step_ms = 0

    def now(self) -> Stamp:
        """The simulated moment."""
        return Stamp(self.wall_ms, self.even_ms * 1_000_000, "simulated")

    def now_ms(self) -> int:
        """The same, for people alone."""
        return self.wall_ms

    @property
    def wall_ms(self) -> int:
        """What people's clocks show."""
        return BEGIN_MS + self.even_ms + self.step_ms


class Witness:
    """A database whose transactions the judge sees, and that can be made to fail at each."""

    def __init__(self, store: Store, judge: Judge) -> None:
        self._store = store
        self._judge = judge
        self.next: Kind | None = None

    async def write(self, batch: Batch) -> None:
        """As the database does it."""
        if not batch:
            return
        fault, self.next = self.next, None
        if fault is Kind.DIE_BEFORE:
            raise Died
        if fault is Kind.REFUSE:
            raise Unavailable("There is no space left.", reason="database")
        await self._store.write(batch)
        self._judge.see(batch)
        if fault is Kind.DIE_AFTER:
            raise Died
        if fault is Kind.LOSE_ANSWER:
            raise Unavailable("Nobody knows whether it was written.", reason="database")

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """As the database does it."""
        return await self._store.read(query)


@dataclass(slots=True)
class Life:
    """One job as it went, in milliseconds of the even clock from the beginning."""

    job: Job
    lease: str | None = None
    granted_ms: int | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    cause: str | None = None
    refused: str | None = None
    devices: float = 0.0

    @property
    def asked_ms(self) -> int:
        """When it was asked for."""
        return int(self.job.asked_s * 1000)


@dataclass(slots=True)
class World:
    """One site with its demand. `observe` is called with every stretch of time in which nothing changed."""

    site: Site
    jobs: Sequence[Job]
    store: Store
    pace: Pace = field(default_factory=Pace)
    faults: Faults = field(default_factory=Faults)
    observe: Callable[["World", int], None] = lambda world, until_ms: None
    clock: VirtualClock = field(default_factory=VirtualClock)
    lives: list[Life] = field(init=False)
    judge: Judge = field(init=False)
    broker: Broker = field(init=False)
    turns: int = 0
    deaths: int = 0
    #: moments of promised starts by lease: the first promise to each head, for who wants to hold us to it
    promises: dict[str, int] = field(default_factory=dict)
    _witness: Witness = field(init=False)
    _chance: random.Random = field(init=False)
    _events: list[tuple[int, int, int, int]] = field(default_factory=list)
    _number: int = 0
    _open: int = 0

    def __post_init__(self) -> None:
        self.lives = [Life(job) for job in self.jobs]
        self.judge = Judge(self.site.settings, self.site.nodes)
        self._witness = Witness(self.store, self.judge)
        self._chance = random.Random(f"world {self.pace.seed}")
        self._open = len(self.lives)
        for number, life in enumerate(self.lives):
            self._at(life.asked_ms, Event.ASK, number)
        for number, fault in enumerate(self.faults.coming):
            self._at(fault.at_ms, Event.FAULT, number)

    def _at(self, at_ms: int, event: Event, number: int) -> None:
        self._number += 1
        heappush(self._events, (at_ms, event, self._number, number))

    # -- time ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until everybody was answered and everything has ended. Raises `Broken`."""
        await self._boot()
        while self._events and self._open:
            at_ms = self._events[0][0]
            step = self.pace.step_ms
            await self._moment(max(self.clock.even_ms, -(-at_ms // step) * step))
        await self._turn([])
        self.judge.compare(self.broker)
        self.judge.settled()

    async def _moment(self, now_ms: int) -> None:
        self.observe(self, now_ms)
        self.clock.even_ms = self.judge.now_ms = now_ms
        self.judge.wall_ms = self.clock.wall_ms
        happening = []
        while self._events and self._events[0][0] <= now_ms:
            _, event, _, number = heappop(self._events)
            happening.append((event, number))
        commands: list[tuple[Event, int, Command[Any]]] = []
        for code, number in happening:
            if code == Event.FAULT:
                self._suffer(self.faults.coming[number])
                continue
            event = Event(code)
            command = _DO[event](self, number)
            if command is not None:
                commands.append((event, number, command))
        await self._turn(commands)
        self.judge.look()

    async def _turn(self, commands: Sequence[tuple[Event, int, Command[Any]]]) -> None:
        """One transaction of the service, and what follows from its answers."""
        self.turns += 1
        faulty = self._witness.next is not None
        try:
            answers = await self.broker.turn([command for _, _, command in commands])
        except Died:
            self.deaths += 1
            await self._boot()
            answers = [Unavailable("The service was killed.")] * len(commands)
        self._take_note()
        for (event, number, _), answer in zip(commands, answers, strict=True):
            if isinstance(answer, Unavailable):
                self._at(self.clock.even_ms + AGAIN_MS, event, number)
            elif isinstance(answer, PublicError):
                self._refused(event, number, answer)
            elif isinstance(answer, BaseException):
                raise Broken(f"{event.name} of session {number} failed: {answer!r}") from answer
            else:
                _THEN[event](self, number)
        if faulty or (self.pace.compare and self.turns % self.pace.compare == 0):
            self.judge.compare(self.broker)

    async def _boot(self) -> None:
        """A service process begins, from what the database holds; the loop looks at every record."""
        self.broker = Broker(self._witness, self.site.settings, self.clock, self._chance.randbytes)
        await self.broker.load(self.faults.nodes(self.site.nodes))
        self._look_at_all()
        answers: list[Any] = []
        while True:
            try:
                answers = await self.broker.turn()
                break
            except Died:
                await self._boot()
                return
        assert not answers

    def _look_at_all(self) -> None:
        for record in self.broker.records.values():
            self._at(self.clock.even_ms + AGAIN_MS, Event.LOOK, _number(record.server))

    # -- what was written ------------------------------------------------------------------------

    def _take_note(self) -> None:
        now_ms = self.clock.even_ms
        for seen in self.judge.granted:
            number = _number(seen.server)
            life = self.lives[number]
            life.lease, life.granted_ms, life.devices = seen.id, seen.granted_ms, seen.devices
            self._at(now_ms + self.pace.launch_ms, Event.START, number)
        self.judge.granted.clear()
        for seen in self.judge.ended:
            life = self.lives[_number(seen.server)]
            life.lease, life.ended_ms, life.cause = seen.id, seen.ended_ms, seen.cause
            self._open -= 1
        self.judge.ended.clear()
        for hall in self.broker.scheduler.halls.values():
            kept = hall.reservation
            if kept is not None and kept.at_ms is not None:
                self.promises.setdefault(kept.id, kept.at_ms)

    def _refused(self, event: Event, number: int, error: PublicError) -> None:
        """The service says no: to an ask that is an answer, anything else was overtaken by an end."""
        if event is Event.ASK:
            self.lives[number].refused = error.reason
            self._open -= 1

    # -- what people, the Hub and the loop do ----------------------------------------------------------

    def _record(self, number: int) -> Record | None:
        life = self.lives[number]
        if life.lease is not None:
            return self.broker.records.get(life.lease)
        return self.broker.of_server(life.job.user, f"s{number}")

    def _ask(self, number: int) -> Command[Any] | None:
        life = self.lives[number]
        job = life.job
        if self._record(number) is not None or life.ended_ms is not None:
            self._asked(number)  # the answer was lost, the wish was not
            return None
        request = Request(
            "simulated/1", job.group, job.cpu_milli, job.memory_mib, 64, job.wish,
            project=job.project, duration_s=job.duration_s, name=f"s{number}", priority=job.priority,
        )  # fmt: skip
        # Who is in a trace was let in, with the priority they had.
        return self.broker.asking(Person(job.user, admin=True), f"s{number}", request)

    def _asked(self, number: int) -> None:
        life = self.lives[number]
        if life.job.patience_s is not None:
            self._at(life.asked_ms + int(life.job.patience_s * 1000), Event.LEAVE, number)
        limit_ms = self.site.settings.queue_limit_s * 1000
        self._at(self.clock.even_ms + limit_ms + 1, Event.LOOK, number)

    def _leave(self, number: int) -> Command[Any] | None:
        record = self._record(number)
        if record is None or record.state != State.QUEUED:
            return None
        return self.broker.ending(record.id, Cause.CANCELLED, record.user, "not any more")

    def _start(self, number: int) -> Command[Any] | None:
        record = self._record(number)
        if record is None or record.state not in (State.GRANTED, State.STARTING):
            return None
        self.judge.alive.add(record.id)
        return self.broker.starting(record.id, {"pid": number})

    def _started(self, number: int) -> None:
        self._at(self.clock.even_ms + self.pace.ready_ms, Event.READY, number)

    def _ready(self, number: int) -> Command[Any] | None:
        record = self._record(number)
        if record is None or record.state not in (State.STARTING, State.RUNNING):
            return None
        return self.broker.readying(record.id)

    def _readied(self, number: int) -> None:
        life, now_ms = self.lives[number], self.clock.even_ms
        if life.started_ms is None:
            life.started_ms = now_ms
        took_ms, most_s = int(life.job.took_s * 1000), life.job.duration_s
        exits_ms = life.started_ms + took_ms
        if most_s is not None and (most_s * 1000 <= took_ms or self.faults.coming):
            self._at(life.started_ms + most_s * 1000 + 1, Event.LOOK, number)
        if most_s is None or took_ms < most_s * 1000:
            self._at(max(now_ms, exits_ms), Event.EXIT, number)

    def _exit(self, number: int) -> Command[Any] | None:
        """Its owner stops it, or it has done what it was for."""
        record = self._record(number)
        if record is None or record.state == State.QUEUED:
            return None
        return self.broker.ending(record.id, Cause.STOPPED, record.user, "done")

    def _ending(self, number: int) -> None:
        self._at(self.clock.even_ms + self.pace.stop_ms, Event.LOOK, number)

    def _look(self, number: int) -> Command[Any] | None:
        """What the reconcile loop does about one record now."""
        record = self._record(number)
        if record is None:
            return None
        settings, wall_ms = self.site.settings, self.clock.wall_ms
        action = reconcile.decide(
            record, self._facts(record), wall_ms, settings.queue_limit_s, settings.start_limit_s
        )
        if action is reconcile.Action.FENCE:
            self.judge.alive.discard(record.id)
            return self.broker.freeing(record.id, "fence", "nothing of it is alive")
        if action in _ENDS:
            return self.broker.ending(record.id, _ENDS[action], "reconcile", action.value)
        if action in (reconcile.Action.START, reconcile.Action.RESTART):
            self._at(self.clock.even_ms, Event.START, number)
        elif record.state == State.RUNNING and record.deadline_ms is not None:
            # Looked at too early: somebody set the clock meanwhile.
            self._at(self.clock.even_ms + max(AGAIN_MS, record.deadline_ms - wall_ms + 1), Event.LOOK, number)
        return None

    def _facts(self, record: Record) -> reconcile.Facts:
        alive = record.id in self.judge.alive
        gone_s = reconcile.GONE_S + 1 if record.state == State.RUNNING and not alive else 0.0
        hub = "ready" if alive and record.state == State.RUNNING else "spawn"
        return reconcile.Facts(
            in_state_s=max(0.0, (self.clock.wall_ms - record.since_ms) / 1000),
            unattended_s=0.0,
            silent_s=0.0,
            hub="none" if record.state == State.STOPPING else hub,
            released=record.state == State.STOPPING,
            gone_s=gone_s,
        )

    def _looked(self, number: int) -> None:
        record = self._record(number)
        if record is not None and record.state == State.STOPPING:
            self._ending(number)

    # -- faults ------------------------------------------------------------------------------------

    def _suffer(self, fault: Fault) -> None:
        if fault.kind in (Kind.DIE_BEFORE, Kind.DIE_AFTER, Kind.REFUSE, Kind.LOSE_ANSWER):
            self._witness.next = fault.kind
        elif fault.kind is Kind.CLOCK:
            self.clock.step_ms += fault.step_ms
            self.judge.wall_ms = self.clock.wall_ms
            self._look_at_all()
        elif fault.kind is Kind.CRASH:
            if self.judge.alive:
                lease = sorted(self.judge.alive)[int(fault.pick * len(self.judge.alive))]
                self.judge.alive.discard(lease)
                number = _number(self.judge.live[lease].server)
                self._at(self.clock.even_ms + NOTICED_MS, Event.LOOK, number)
        else:
            self.faults.change(fault, self.site.nodes)
            self.broker.set_nodes(self.faults.nodes(self.site.nodes))


_ENDS = {
    reconcile.Action.DEADLINE: Cause.DEADLINE,
    reconcile.Action.LOST: Cause.SERVER_GONE,
    reconcile.Action.TOO_LONG: Cause.QUEUE_LIMIT,
}
_DO: dict[Event, Callable[[World, int], Command[Any] | None]] = {
    Event.ASK: World._ask,
    Event.START: World._start,
    Event.READY: World._ready,
    Event.EXIT: World._exit,
    Event.LEAVE: World._leave,
    Event.LOOK: World._look,
}
_THEN: dict[Event, Callable[[World, int], None]] = {
    Event.ASK: World._asked,
    Event.START: World._started,
    Event.READY: World._readied,
    Event.EXIT: World._ending,
    Event.LEAVE: lambda world, number: None,
    Event.LOOK: World._looked,
}


def _number(server: str) -> int:
    """Which job a server's name stands for."""
    return int(server[1:])
