"""The only writer: every wish and every move of a lease goes through here.

Owns the live records in memory and their rows in the database. Commands are collected and written together: each
changes a draft, the draft is written in one transaction, and only then does it become the present state and are the
callers answered. What was answered survives a power cut; what was not written never happened.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, TypeVar

from jupyterhub_bkai import metering, names, policy, rulebook, settings
from jupyterhub_bkai.clock import Clock
from jupyterhub_bkai.errors import Conflict, InvalidOptions, NotFound, PublicError, SettingsError
from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.leasing.draft import Command, Draft, rule_row
from jupyterhub_bkai.leasing.lifecycle import ENDS_AS, FINAL, HOLDING, Cause, Move, State
from jupyterhub_bkai.leasing.queue import Discipline, Waiting
from jupyterhub_bkai.leasing.scheduler import Held, Scheduler
from jupyterhub_bkai.leasing.switches import Kind, Switch, Switches
from jupyterhub_bkai.leasing.tally import Tally
from jupyterhub_bkai.leasing.watching import Watcher
from jupyterhub_bkai.leasing.why import Standing, standing
from jupyterhub_bkai.model import Device, Node, Person, Request
from jupyterhub_bkai.notices import kinds
from jupyterhub_bkai.options import shown
from jupyterhub_bkai.store import queries
from jupyterhub_bkai.store.database import Batch, Store
from jupyterhub_bkai.store.records import (
    Record,
)

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a session is doing while it is not running yet; not stored, since it is true only while it is done."""

    percent: int | None
    message: str


@dataclass(slots=True)
class _Pending:
    command: Command[Any]
    done: "asyncio.Future[Any]"


@dataclass(slots=True)
class _Attendance:
    """Acquire streams open for a record, and since when there is none."""

    streams: int = 0
    since_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class Broker:
    """The live state and the only way to change it."""

    def __init__(
        self,
        database: Store,
        settings: policy.Settings,
        clock: Clock,
        entropy: Callable[[int], bytes] = os.urandom,
        file: tuple[Mapping[str, Any], settings.Bodies] | None = None,
    ) -> None:
        """`file` is the settings file: what it says of the site, and the rules that seed the database. Without one the
        settings are `settings` for good.
        """
        self.database = database
        self.settings = settings
        self.rules: tuple[rulebook.Entry, ...] = ()
        self._file = file
        self.records: dict[str, Record] = {}
        self.intervals: dict[str, metering.Interval] = {}
        self.by_user: dict[str, dict[str, None]] = {}
        self.scheduler = Scheduler()
        self.progress: dict[str, Progress] = {}
        #: what an administrator has closed by hand
        self.switches: Switches = {}
        #: what people want to be told, and what live sessions have been warned of
        self.choices: dict[str, kinds.Choice] = {}
        self.warned: dict[str, kinds.Warned] = {}
        #: set when something is to be delivered
        self.outgoing = asyncio.Event()
        self.tally = Tally()
        #: ended requests whose servers the Hub is still to forget
        self.unwanted: dict[str, Record] = {}
        self.last_order = 0
        self._nodes: tuple[Node, ...] = ()
        self._devices: dict[str, Device] = {}
        self._clock = clock
        self.entropy = entropy
        self._pending: list[_Pending] = []
        self._work = asyncio.Event()
        self._again = False
        #: the machines changed since queues and books were laid out; a failed write left open what is true
        self._stale = self._lost = False
        #: requests that nobody has waited for yet, so that nobody but the reconcile loop will start them
        self.fresh: set[str] = set()
        self._attendance: dict[str, _Attendance] = {}
        self._seen: dict[str, float] = {}
        self._watchers: set[Watcher] = set()

    # -- life ------------------------------------------------------------------------------

    async def load(self, nodes: Sequence[Node]) -> None:
        """Takes up where the last process ended: what the database holds is what is true."""
        await self._seed()
        await self._read()
        self.set_nodes(nodes)
        self._lay_out()
        await self._recall()

    async def _seed(self) -> None:
        """What changed in the settings file since it was last read goes into the database."""
        if self._file is None:
            return
        entries = [_entry(row) for row in await self.database.read(queries.rules)]
        taken = [*rulebook.taken_over(entries, self._file[1])]
        self.composed(
            rulebook.put(entries, [entry for entry, _ in taken])
        )  # refused before anything is written
        batch = Batch(rules=[rule_row(entry) for entry, _ in taken])
        at_ms = self._clock.now().wall_ms
        batch.changes = [
            {"at_ms": at_ms, "who": "bkai.yaml", "kind": entry.kind, "name": entry.name, "body": entry.body}
            for entry, counts in taken
            if counts
        ]
        for change in batch.changes if entries else ():
            log.info("%s %s: as the settings file has it now", change["kind"], change["name"])
        await self.database.write(batch)

    @property
    def site(self) -> Mapping[str, Any]:
        """What the settings file says of the site itself, which counts until the service is restarted."""
        return self._file[0] if self._file is not None else {}

    def composed(self, entries: Iterable[rulebook.Entry]) -> policy.Settings:
        """The settings with these rules. Raises `SettingsError`."""
        return settings.compose(self.site, rulebook.bodies_of(entries))

    async def _read(self) -> None:
        """Takes what the database holds for the truth."""
        if self._file is not None:
            self.rules = tuple(_entry(row) for row in await self.database.read(queries.rules))
            self.settings = self.composed(self.rules)
        self.last_order = await self.database.read(queries.last_order)
        live = {record.id: record for record in await self.database.read(queries.live)}
        self.unwanted = {record.id: record for record in await self.database.read(queries.unwanted)}
        self.intervals = {
            row["lease"]: metering.read(row) for row in await self.database.read(queries.open_intervals)
        }
        self.switches = {
            (row["kind"], row["name"]): Switch(**{**row, "kind": Kind(row["kind"])})
            for row in await self.database.read(queries.switches)
        }
        self.choices = {row["name"]: _choice(row) for row in await self.database.read(queries.choices)}
        self.warned = {row["request"]: _warned(row) for row in await self.database.read(queries.warned)}
        ended = {}
        for record_id in self.records.keys() - live.keys():
            if (record := await self.database.read(queries.One(record_id))) is not None:
                ended[record_id] = replace(record, state=State(record.state))
        for record in ended.values():
            self._drop(record)
        for record in live.values():
            self._keep(replace(record, state=State(record.state)))
        for watcher in self._watchers:
            watcher.tell({*live, *ended}, ended, [group.name for group in self.settings.groups])

    async def _recall(self) -> None:
        """What people used before this process, for groups whose order depends on it."""
        now_ms = self._clock.now().wall_ms
        for group in self.settings.groups:
            if group.rules.discipline is not Discipline.FAIR:
                continue
            since_ms = now_ms - int(10_000 * group.rules.half_life_s)
            for row in await self.database.read(queries.Overlapping(since_ms, now_ms)):
                if row["group_name"] == group.name and row["duration_ms"] is not None:
                    self.scheduler.charge(
                        group.name,
                        row["user_name"],
                        (row["cpu_milli"], row["memory_mib"], float(Fraction(row["share"]))),
                        (row["opened_ms"], row["opened_ms"] + row["duration_ms"]),
                        now_ms,
                    )

    async def run(self) -> None:
        """Writes what is pending, for ever; cancelled at the end."""
        while True:
            await self._work.wait()
            self._work.clear()
            pending, self._pending = self._pending, []
            try:
                await self._turn(pending)
            except Exception as error:
                log.exception("A transaction of %d commands failed", len(pending))
                for item in pending:
                    if not item.done.done():
                        item.done.set_exception(error)

    async def turn(self, commands: Iterable[Command[Any]] = ()) -> list[Any]:
        """One transaction, for who drives a broker step by step in place of `run`: for each command what it gave or
        the exception that it raised.
        """
        loop = asyncio.get_running_loop()
        mine = [_Pending(command, loop.create_future()) for command in commands]
        pending, self._pending = [*self._pending, *mine], []
        await self._turn(pending)
        return [item.done.exception() or item.done.result() for item in mine]

    async def _turn(self, pending: Sequence[_Pending]) -> None:
        """One transaction: the commands, then the grants they make possible."""
        try:
            await self._catch_up()
        except Exception as error:  # noqa: BLE001  whatever keeps the truth from us is told to who asks
            _fail(pending, error)
            return
        draft = Draft(self, self._clock.now())
        answers: list[tuple[_Pending, Any]] = []
        for item in pending:
            mark = draft.mark()
            try:
                answers.append((item, item.command(draft)))
            except Exception as error:  # noqa: BLE001  whatever it is, it is the caller's, and only the caller's
                draft.undo(mark)
                if not item.done.done():
                    item.done.set_exception(error)
        try:
            groups = self._decide(draft)
            with self.tally.write() if draft.batch else contextlib.nullcontext():
                await self.database.write(draft.batch)
        except Exception as error:
            # Queues and books have gone ahead, and nobody knows whether the write is on disk.
            self._lost = self._again = True
            if not isinstance(error, PublicError):
                log.exception("A transaction of %d commands failed", len(pending))
            with contextlib.suppress(Exception):  # else at the next turn
                await self._catch_up()
            _fail(pending, error)
            return
        self._adopt(draft, groups)
        for item, answer in answers:
            if not item.done.done():
                item.done.set_result(answer)

    async def _catch_up(self) -> None:
        """Makes queues and books true again after a failed write, or when the machines changed."""
        if self._lost:
            await self._read()
        if self._lost or self._stale:
            self._lay_out()
        self._lost = False

    def _decide(self, draft: Draft) -> set[str]:
        """Brings queues and books up to the draft and grants what they allow; returns the groups that moved."""
        now_ms = draft.now.wall_ms
        groups = set()
        for record_id, record in draft.changed.items():
            if self._follow(self.records.get(record_id), record, now_ms):
                groups.add(record.request.group)
        if draft.switches is not self.switches:
            self.scheduler.close(draft.switches)
            groups |= set(self.scheduler.halls)
        with self.tally.decision():
            grants = self.scheduler.decide(now_ms)
        for grant in grants:
            groups.add(draft.grant(draft.get(grant.id), grant.choice).request.group)
        return groups

    def _follow(self, old: Record | None, new: Record, now_ms: int) -> bool:
        """Does in queues and books what happened to a record; True when others may have moved by it."""
        waited = old is not None and old.state == State.QUEUED
        held = old is not None and old.state in HOLDING
        if new.state == State.QUEUED:
            if waited and old is not None:
                if old.request == new.request:
                    return False
                self.scheduler.remove(new.id)
            self.scheduler.add(self._waiting(new, self.settings))
        elif waited:
            self.scheduler.remove(new.id)
        elif held and new.state not in HOLDING:
            self.scheduler.free(new.id, now_ms)
        elif (
            held
            and old is not None
            and (old.deadline_ms, old.started_ms) != (new.deadline_ms, new.started_ms)
        ):
            self.scheduler.hold(self._held(new, self.settings), now_ms)
        else:
            return False
        return True

    def expect(self, record: Record, now_ms: int) -> None:
        """Counts another end of what somebody holds in the books, before it is written; a failed write undoes it."""
        self.scheduler.hold(self._held(record, self.settings), now_ms)

    def _keep(self, record: Record) -> None:
        self.records[record.id] = record
        self.by_user.setdefault(record.user, {})[record.id] = None
        self._attendance.setdefault(record.id, _Attendance())

    def _drop(self, record: Record) -> None:
        self.records.pop(record.id, None)
        self.progress.pop(record.id, None)
        self.warned.pop(record.id, None)
        self._attendance.pop(record.id, None)
        self._seen.pop(record.id, None)
        self.fresh.discard(record.id)
        if (mine := self.by_user.get(record.user)) is not None:
            mine.pop(record.id, None)
            if not mine:
                del self.by_user[record.user]
        if record.remove_server:
            self.unwanted[record.id] = record
        else:
            self.unwanted.pop(record.id, None)

    def _adopt(self, draft: Draft, groups: set[str]) -> None:
        """Makes a written draft the present state and tells who watches."""
        self.last_order, self.switches = draft.order, draft.switches
        if draft.rules is not None:
            self.rules, self.settings = draft.rules
            self._stale = True
            self._work.set()
            groups = {*groups, *(group.name for group in self.settings.groups)}
        for record in draft.changed.values():
            self.tally.moved(self.records.get(record.id), record, record.state in FINAL)
            if record.state in FINAL:
                self._drop(record)
            else:
                self._keep(record)
        for record_id, interval in draft.intervals.items():
            if interval is None:
                self.intervals.pop(record_id, None)
            else:
                self.intervals[record_id] = interval
        self.warned |= {r["request"]: _warned(r) for r in draft.batch.notices if r["step_s"] is not None}
        self.choices |= {row["name"]: _choice(row) for row in draft.batch.choices}
        if draft.batch.deliveries:
            self.outgoing.set()
        ended = {i: r for i, r in draft.changed.items() if r.state in FINAL}
        for watcher in self._watchers:
            watcher.tell(set(draft.changed), ended, groups)
            watched = self.records.get(watcher.only or "")
            if watched is not None and watched.state == State.QUEUED and watched.request.group in groups:
                watcher.tell({watched.id}, {})

    async def submit(self, command: Command[T]) -> T:
        """Runs `command` in the next transaction; returns after it is on disk. Raises what the command raises."""
        return await self._later(command)

    def _later(self, command: Command[T]) -> "asyncio.Future[T]":
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(command, done))
        self._work.set()
        return done

    # -- nodes and books -------------------------------------------------------------------

    def set_nodes(self, nodes: Sequence[Node]) -> None:
        """The machines there are now; the waiting are looked at again."""
        self._nodes = tuple(nodes)
        gone = self._devices
        self._devices = {device.id: device for node in nodes for device in node.devices}
        for record in self.records.values():
            if any(gone.get(piece.device) != self._devices.get(piece.device) for piece in record.slices):
                self.touch(record.id)
        # Not at once: a decision may be on its way to the disk, which the records do not know of yet.
        self._stale = True
        self._work.set()

    def _lay_out(self) -> None:
        """Makes queues and books anew from the records."""
        self._stale = False
        self.scheduler = self._laid_out(self.settings)
        for record in self.records.values():
            if record.state == State.QUEUED and record.request.group not in self.scheduler.halls:
                gone = f"The resource group {record.request.group} does not exist any more; ask again in another."
                self._later(self.ending(record.id, Cause.REFUSED, "service", gone))

    def _laid_out(self, settings: policy.Settings) -> Scheduler:
        """Queues and books as they are with these settings."""
        now_ms = self._clock.now().wall_ms
        groups = {g.name: (g.rules, self._members(g)) for g in settings.groups}
        scheduler = Scheduler(settings.start_limit_s * 1000)
        nodes = [NodeBook.empty(node, self._overcommit(node, settings)) for node in self._nodes]
        scheduler.lay_out(groups, nodes)
        scheduler.close(self.switches)
        for record in self.records.values():
            if record.state in HOLDING:
                scheduler.hold(self._held(record, settings), now_ms)
            elif record.request.group in scheduler.halls:
                scheduler.add(self._waiting(record, settings))
        scheduler.inherit(self.scheduler, now_ms)
        return scheduler

    def _overcommit(self, node: Node, settings: policy.Settings) -> Fraction:
        """How many times over a node's processors may be booked: as few as any of its groups wants."""
        mine = [g.cpu_overcommit for g in settings.groups if node.name in self._members(g)]
        return min(mine, default=Fraction(1))

    def _held(self, record: Record, settings: policy.Settings) -> Held:
        """What a record holds, as the scheduler has it. What has not started yet ends its duration after the last
        moment at which it may start.
        """
        request, ends_ms = record.request, record.deadline_ms
        if record.started_ms is None and request.duration_s is not None and record.granted_ms is not None:
            ends_ms = record.granted_ms + (request.duration_s + settings.start_limit_s) * 1000
        return Held(
            record.id,
            record.user,
            request.group,
            record.node or "",
            request.cpu_milli,
            request.memory_mib,
            record.slices,
            ends_ms,
            policy.caps_of(settings, record.user, request),
        )

    def _waiting(self, record: Record, settings: policy.Settings) -> Waiting:
        """A waiting record as the scheduler has it."""
        request = record.request
        return Waiting(
            record.id,
            record.order,
            record.user,
            request,
            priority=request.priority,
            not_before_ms=request.not_before_ms,
            after=frozenset(request.after),
            caps=policy.caps_of(settings, record.user, request),
        )

    def device(self, device_id: str) -> Device | None:
        """A device as it is now; None for one that is not there (any more)."""
        return self._devices.get(device_id)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The machines there are."""
        return self._nodes

    def nodes_of(self, group: str) -> frozenset[str]:
        """The names of a group's machines (no list in the settings means all)."""
        found = self.settings.group(group)
        return self._members(found) if found is not None else frozenset()

    def _members(self, group: policy.Group) -> frozenset[str]:
        return frozenset(group.nodes) if group.nodes else frozenset(node.name for node in self._nodes)

    # -- commands --------------------------------------------------------------------------

    async def ask(
        self,
        person: Person,
        server: str | None,
        request: Request,
        *,
        awaited: bool = False,
        keepalive_s: int | None = None,
        who: str = "",
    ) -> list[Record]:
        """Records a wish (its `count` sessions at once, or none). Raises `PolicyDenied` or `Conflict`.

        Without a server's name it gets one after its image version. `awaited` says that the hub is already starting
        the first of them; the others it has to be asked for.
        """
        records = await self.submit(self.asking(person, server, request, keepalive_s, who))
        self.fresh |= {record.id for record in records[awaited:] if record.id in self.records}
        return records

    def asking(
        self,
        person: Person,
        wanted: str | None,
        request: Request,
        keepalive_s: int | None = None,
        who: str = "",
    ) -> Command[list[Record]]:
        """The command of `ask`."""

        def command(draft: Draft) -> list[Record]:
            mine = draft.of_user(person.name)
            policy.check(self.settings, person, request, self.holdings(draft, person.name, request))
            _check_after(draft, person, request)
            taken = {r.server for r in mine}
            server = wanted if wanted is not None else _free_name(request.version, taken)
            if server in taken:
                raise Conflict(
                    f"You already have a session called “{server or 'default'}”; stop it first or choose another name.",
                    fields={"name": "this name is in use"},
                )
            records: list[Record] = []
            for name in _servers(server, request.count, taken):
                draft.order += 1
                record_id = names.lease_id(draft.now.wall_ms, self.entropy(10))
                gang = (records[0].id if records else record_id) if request.gang else ""
                record = Record(
                    id=record_id,
                    order=draft.order,
                    person=person,
                    server=name,
                    request=replace(request, count=1, gang=gang),
                    state=State.QUEUED,
                    since_ms=draft.now.wall_ms,
                    asked_ms=draft.now.wall_ms,
                    keepalive_s=keepalive_s,
                    remove_server=keepalive_s is not None,
                )
                draft.add(record, who or person.name, "asked")
                records.append(record)
            return records

        return command

    async def move(self, record_id: str, move: Move, who: str, why: str, **changes: Any) -> Record:
        """One move that neither gives nor takes slices."""
        return await self.submit(lambda draft: draft.move(draft.get(record_id), move, who, why, **changes))

    async def change(
        self, record_id: str, request: Request, who: str, why: str, person: Person | None = None
    ) -> Record:
        """Has a waiting request ask for something else, at its place. Raises `Conflict` when it does not wait any more,
        `PolicyDenied` when its owner may not have that; `person` is the owner as they are known now.
        """
        return await self.submit(self.changing(record_id, request, who, why, person))

    def changing(
        self, record_id: str, request: Request, who: str, why: str, person: Person | None = None
    ) -> Command[Record]:
        """The command of `change`."""

        def command(draft: Draft) -> Record:
            record = draft.get(record_id)
            if record.state != State.QUEUED:
                raise Conflict("It does not wait any more, so there is nothing to change.")
            others = self.holdings(draft, record.user, request, without=record.id)
            policy.check(self.settings, person or record.person, request, others, record.request)
            return draft.rewish(record, request, who, why)

        return command

    def holdings(
        self, draft: "Draft | None", user: str, request: Request, without: str = ""
    ) -> list[policy.Holding]:
        """What counts beside a request: its owner's live ones, and those of its project where that has a policy."""
        drafted = draft.changed if draft is not None else {}
        shared = request.project if self.settings.of_project(request.project) is not None else None

        def counts(record: Record) -> bool:
            return record.user == user or (shared is not None and record.request.project == shared)

        found = {record.id: record for record in self.of_user(user)}
        if shared is not None:
            found = {id: record for id, record in self.records.items() if counts(record)}
        found |= {id: record for id, record in drafted.items() if counts(record)}
        return [holding(r) for id, r in found.items() if r.state not in FINAL and id != without]

    async def change_rules(
        self, changes: Mapping[str, Mapping[str, settings.Body | None]], revision: str, who: str
    ) -> list[rulebook.Difference]:
        """Puts or removes rules. Raises `InvalidOptions` with the places that are wrong, `Conflict` when they have been
        changed since `revision`.
        """
        return await self.submit(lambda draft: self._ruling(draft, changes, revision, who))

    def _ruling(
        self,
        draft: Draft,
        changes: Mapping[str, Mapping[str, settings.Body | None]],
        revision: str,
        who: str,
    ) -> list[rulebook.Difference]:
        if draft.rules is not None or revision != rulebook.revision(self.rules):
            raise Conflict(
                "Somebody else has changed the rules meanwhile; look at them again, and then change them.",
                reason="changed-meanwhile",
            )
        new, entries, _ = self.proposed(changes)
        if new:
            draft.rule(new, entries, who)
        return rulebook.differences(rulebook.bodies_of(self.rules), rulebook.bodies_of(entries))

    def proposed(
        self, changes: Mapping[str, Mapping[str, settings.Body | None]]
    ) -> tuple[list[rulebook.Entry], tuple[rulebook.Entry, ...], policy.Settings]:
        """What changed rules would be: the entries that change, all of them then, and the settings they make. Raises
        `InvalidOptions`.
        """
        try:
            new = rulebook.changed(self.rules, changes)
            entries = rulebook.put(self.rules, new)
            return new, entries, self.composed(entries)
        except SettingsError as error:
            raise InvalidOptions({place: f"{place}: {said}" for place, said in error.problems}) from None

    def would_start(self, settings: policy.Settings) -> list[str]:
        """Which of those who wait would start at once if these were the settings; changes nothing."""
        return [grant.id for grant in self._laid_out(settings).decide(self._clock.now().wall_ms)]

    async def end(self, record_id: str, cause: Cause, who: str, message: str) -> Record | None:
        """Begins the end: a waiting request is over at once, a lease goes to `stopping`. Idempotent."""
        return await self.submit(self.ending(record_id, cause, who, message))

    def ending(self, record_id: str, cause: Cause, who: str, message: str) -> Command[Record | None]:
        """The command of `end`."""

        def command(draft: Draft) -> Record | None:
            try:
                record = draft.get(record_id)
            except NotFound:
                return None
            if record.state in FINAL or record.state == State.STOPPING:
                return record
            if record.state == State.QUEUED:
                move = Move.WITHDRAW if ENDS_AS[cause] is not State.FAILED else Move.FAIL
            else:
                move = Move.STOP
            return draft.move(record, move, who, message, cause=cause, message=message)

        return command

    async def free(
        self, record_id: str, who: str, why: str, measured_kib: int | None = None
    ) -> Record | None:
        """Gives a stopping lease's slices back; only for who holds the fence's proof. Idempotent."""
        return await self.submit(self.freeing(record_id, who, why, measured_kib))

    def freeing(
        self, record_id: str, who: str, why: str, measured_kib: int | None = None
    ) -> Command[Record | None]:
        """The command of `free`."""

        def command(draft: Draft) -> Record | None:
            try:
                record = draft.get(record_id)
            except NotFound:
                return None
            return draft.free(record, who, why, measured_kib) if record.state == State.STOPPING else record

        return command

    async def forgotten(self, record_id: str) -> None:
        """The Hub has no server for an ended request any more."""
        if record := self.unwanted.get(record_id):
            await self.submit(lambda draft: draft.put(replace(record, remove_server=False)))

    async def started(self, record_id: str, handle: Mapping[str, Any]) -> Record:
        """The spawner launched something: what to look for is kept."""
        return await self.submit(self.starting(record_id, handle))

    def starting(self, record_id: str, handle: Mapping[str, Any]) -> Command[Record]:
        """The command of `started`."""

        def command(draft: Draft) -> Record:
            record = draft.get(record_id)
            if record.state in (State.GRANTED, State.PULLING):
                if record.state == State.PULLING:
                    record = draft.move(record, Move.PREPARE, "hub", "image is ready")
                return draft.move(record, Move.START, "hub", "launched", handle=dict(handle))
            moved = replace(record, handle=dict(handle))
            draft.put(moved)
            return moved

        return command

    async def ready(self, record_id: str) -> Record:
        """The session's port answers."""
        return await self.submit(self.readying(record_id))

    def readying(self, record_id: str) -> Command[Record]:
        """The command of `ready`."""

        def command(draft: Draft) -> Record:
            record = draft.get(record_id)
            if record.state == State.RUNNING:
                return record
            if record.state not in (State.GRANTED, State.STARTING):
                raise Conflict(f"The session {record_id} is {record.state}; it cannot become ready.")
            now, duration = draft.now.wall_ms, record.request.duration_s
            # The time somebody asked for begins when they can work, not while an image version is being made.
            deadline = now + duration * 1000 if duration else None
            return draft.move(
                record, Move.READY, "hub", "the session answers", started_ms=now, deadline_ms=deadline
            )

        return command

    # -- looking ---------------------------------------------------------------------------

    def of_server(self, user: str, server: str) -> Record | None:
        """The live record of a server."""
        mine = (self.records[id] for id in self.by_user.get(user, ()))
        return next((record for record in mine if record.server == server), None)

    def of_user(self, user: str) -> list[Record]:
        """A person's live records."""
        return [self.records[id] for id in self.by_user.get(user, ())]

    def followers(self, record_id: str) -> list[Record]:
        """Those of the same person that wait until a session has ended, and until those have, and so on."""
        record = self.records.get(record_id)
        found, ends = [], {record_id}
        mine = self.of_user(record.user) if record is not None else []
        for one in sorted(mine, key=lambda r: r.order):  # one can only come after what was there before it
            if one.state == State.QUEUED and not ends.isdisjoint(one.request.after):
                ends.add(one.id)
                found.append(one)
        return found

    def standing(self, record: Record) -> Standing | None:
        """Where a waiting request stands and why; None for one that does not wait (any more)."""
        if record.state != State.QUEUED or record.request.group not in self.scheduler.halls:
            return None
        group = self.settings.group(record.request.group)
        try:
            unit, title = (group.unit, group.title) if group else (Unit(), "")
            now_ms = self._clock.now().wall_ms
            return standing(self.scheduler, record.id, unit, now_ms, title, self.switches)
        except KeyError:  # granted, and being written
            return None

    def nudge(self) -> None:
        """Has the queues looked at when somebody's time has come, or when the last decision could not be written."""
        if self._again or self.scheduler.due(self._clock.now().wall_ms):
            self._again = False
            self._work.set()

    def set_progress(self, record_id: str, progress: Progress | None) -> None:
        """What a starting session is doing; shown, not stored."""
        if self.progress.get(record_id) == progress:
            return
        if progress is None:
            self.progress.pop(record_id, None)
        else:
            self.progress[record_id] = progress
        self.touch(record_id)

    def touch(self, record_id: str) -> None:
        """Has whoever watches look at a record again."""
        for watcher in self._watchers:
            watcher.tell({record_id}, {})

    @asynccontextmanager
    async def attend(self, record_id: str) -> AsyncIterator[None]:
        """While entered, somebody waits at the other end of an acquire stream for this record."""
        attendance = self._attendance.setdefault(record_id, _Attendance())
        attendance.streams += 1
        self.fresh.discard(record_id)
        try:
            yield
        finally:
            attendance.streams -= 1
            attendance.since_s = asyncio.get_running_loop().time()

    def unattended_s(self, record_id: str) -> float:
        """For how long nobody has waited for this record; 0 while somebody does."""
        attendance = self._attendance.get(record_id)
        if attendance is None or attendance.streams:
            return 0.0
        return asyncio.get_running_loop().time() - attendance.since_s

    def keep_alive(self, record_id: str) -> None:
        """Somebody who promised to keep a session alive did so."""
        self._seen[record_id] = asyncio.get_running_loop().time()

    def silent_s(self, record_id: str) -> float:
        """For how long nobody has kept the record alive (since this process knows of it)."""
        now = asyncio.get_running_loop().time()
        return now - self._seen.setdefault(record_id, now)

    @asynccontextmanager
    async def watch(self, only: str | None = None) -> AsyncIterator["Watcher"]:
        """Sees every change while entered, or those of one record."""
        watcher = Watcher(only)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)


def _free_name(version: str, taken: set[str]) -> str:
    """A name after the image's family, numbered past those in use."""
    base, number = names.server_name(version.split("/")[0]), 1
    while names.numbered(base, number) in taken:
        number += 1
    return names.numbered(base, number)


def _servers(server: str, count: int, taken: set[str]) -> list[str]:
    """The names of `count` sessions asked for together: the given one, then numbered ones that are free."""
    found, number = [server], 2
    while len(found) < count:
        name = names.numbered(server, number)
        number += 1
        if name not in taken:
            found.append(name)
    return found


def holding(record: Record) -> policy.Holding:
    """What a live record counts against limits."""
    return policy.Holding.of(record.user, record.request, waiting=record.state == State.QUEUED)


def _warned(row: Mapping[str, Any]) -> kinds.Warned:
    shown = row["id"] if row["kind"] == kinds.Kind.ENDING else ""
    return kinds.Warned(shown, row["at_ms"], row["deadline_ms"], row["step_s"])


def _choice(row: Mapping[str, Any]) -> kinds.Choice:
    body = json.loads(row["body"])
    return kinds.Choice(frozenset(body["off"]), body["address"])


def _entry(row: Mapping[str, Any]) -> rulebook.Entry:
    return rulebook.Entry(row["kind"], row["name"], row["body"], row["seeded"])


def _check_after(draft: Draft, person: Person, request: Request) -> None:
    """What a request comes after are live sessions of the same person."""
    mine = {record.id for record in draft.of_user(person.name)}
    if gone := [id for id in request.after if id not in mine]:
        sentence = f"After: {shown(gone[0])} is no live session of yours (any more)."
        raise InvalidOptions({"after": sentence})


def _fail(pending: Iterable[_Pending], error: Exception) -> None:
    for item in pending:
        if not item.done.done():
            item.done.set_exception(error)
