"""Whatever happens, in whatever order: no slice is lost, none is given twice, nobody is forgotten or overtaken.

Each sequence plays a small site with random machines through asks, starts, ends, refused writes, deaths of the service
before and after a write, restarts, clocks that are set, devices that come and go, things closed by hand. After each
step a judge looks at the rows and at the processes, knowing nothing of the broker. A failure names its
seed: `BKAI_SEED=… pytest -k leaks`.
"""

import asyncio
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeVar

import pytest
import sqlalchemy as sa

from jupyterhub_bkai import policy
from jupyterhub_bkai.errors import PublicError, Unavailable
from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.leasing import closing
from jupyterhub_bkai.leasing.broker import Broker, _Pending
from jupyterhub_bkai.leasing.draft import Draft
from jupyterhub_bkai.leasing.lifecycle import Cause, Move, State
from jupyterhub_bkai.leasing.reconcile import Action, Facts, decide
from jupyterhub_bkai.leasing.scheduler import Rules, Scheduler
from jupyterhub_bkai.leasing.switches import Kind
from jupyterhub_bkai.model import Node, Person, Request
from jupyterhub_bkai.store import tables
from jupyterhub_bkai.store.database import Batch, Database
from jupyterhub_bkai.store.memory import MemoryDatabase
from jupyterhub_bkai.store.records import Record, decode_request
from tests.leasing.conftest import TestClock
from tests.unit.test_books import some_nodes, some_wish

T = TypeVar("T")
SEQUENCES = int(os.environ.get("BKAI_SEQUENCES", "10000"))
STEPS = 24
FAULTS = (None, "refuse", "lose answer", "die before", "die after", "devices")
HOLDING = {"granted", "pulling", "starting", "running", "stopping"}
FINAL = {"released", "withdrawn", "failed"}
PEOPLE = tuple(Person(name) for name in ("ada", "bob", "cyd"))


class Died(BaseException):
    """The service was killed."""


@dataclass
class World:
    """One site, and what is really alive on it."""

    seed: int
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    chance: random.Random = field(init=False)
    clock: TestClock = field(default_factory=TestClock)
    broker: Broker = field(init=False)
    nodes: list[Node] = field(init=False)
    settings: policy.Settings = field(init=False)
    #: leases whose processes live
    processes: set[str] = field(default_factory=set)
    #: nobody has a priority, waits for others or for a time, starts together with others, or may run only so much
    plain: bool = True
    next_fault: str | None = None
    story: list[str] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.nodes = [
            n
            for n in some_nodes(self.chance, self.chance.choice((1, 2, 4)))
            if n.devices or self.chance.random() < 0.5
        ]
        self.nodes = self.nodes or some_nodes(random.Random(5), 2)
        self.database.fault = self.fault
        backfill = self.chance.random() < 0.5
        self.plain = self.seed % 2 == 0
        running = {"sessions": Fraction(3)} if not self.plain and self.chance.random() < 0.5 else {}
        group = policy.Group(
            "lab",
            "Lab",
            rules=Rules(backfill=backfill),
            cpu_overcommit=Fraction(2),
            limits=policy.Limits(running=running),
        )
        self.settings = policy.Settings(groups=(group,))

    def fault(self, moment: str) -> None:
        if self.next_fault == f"die {moment}":
            raise Died
        if (self.next_fault, moment) in (("refuse", "before"), ("lose answer", "after")):
            raise Unavailable("no space left, or nobody knows", reason="database")
        if (
            self.next_fault == "devices"
        ):  # the machine is looked at while a decision is on its way to the disk
            self.broker.set_nodes(self.nodes)

    async def boot(self) -> None:
        self.broker = Broker(self.database, self.settings, self.clock, self.chance.randbytes)
        await self.broker.load(self.nodes)
        await self.turn()

    async def turn(self, *commands: Callable[[Draft], object]) -> list[object]:
        """One transaction of the broker; what each command was answered, or nothing from a service that died."""
        loop = asyncio.get_running_loop()
        pending = [_Pending(command, loop.create_future()) for command in commands]
        try:
            await self.broker._turn(pending)
        except Died:
            self.story.append("died")
            self.next_fault = None
            await self.boot()
            return []
        self.next_fault = None
        assert all(item.done.done() for item in pending), "a wish was not answered"
        return [item.done.exception() or item.done.result() for item in pending]

    # -- steps -------------------------------------------------------------------------------

    async def step(self) -> None:
        self.clock.advance(
            self.chance.choice((1, 1000, 60_000)),
            step_ms=self.chance.choice((0, 0, 0, 0, -3_600_000, 7200_000)),
        )
        kind = self.chance.choices(
            (
                "ask",
                "begin",
                "end",
                "gone",
                "fence",
                "restart",
                "devices",
                "expire",
                "withdraw",
                "close",
                "pass_by",
            ),
            (8, 8, 5, 3, 8, 1, 1, 2, 1, 2, 1),
        )[0]
        self.next_fault = self.chance.choices(FAULTS, (12, 1, 1, 1, 1, 2))[0]
        self.story.append(f"{kind} {self.next_fault or ''}")
        await getattr(self, kind)()

    async def ask(self) -> None:
        commands = []
        for _ in range(self.chance.choice((1, 1, 3))):
            self.asked += 1
            request = Request(
                version="python/3.11",
                group="lab",
                cpu_milli=self.chance.choice((100, 2000)),
                memory_mib=512,
                shm_mib=64,
                wish=some_wish(self.chance),
                duration_s=self.chance.choice((None, 60, 3600)),
                count=self.chance.choice((1, 1, 2)),
                name=f"s{self.asked}",
            )
            request = request if self.plain else self.special(request)
            commands.append(self.broker.asking(self.chance.choice(PEOPLE), f"s{self.asked}", request))
        await self.turn(*commands)

    def special(self, request: Request) -> Request:
        """A request with a priority, a gang, a time."""
        chance = self.chance
        return replace(
            request,
            priority=chance.choice((5, 10, 10, 50)),
            gang=chance.choice(("", "together")) if request.count > 1 else "",
            not_before_ms=self.clock.wall_ms + 60_000 if chance.random() < 0.2 else 0,
        )

    def some(self, *states: str) -> Record | None:
        found = [record for record in self.broker.records.values() if record.state in states]
        return self.chance.choice(found) if found else None

    async def begin(self) -> None:
        if record := self.some("granted", "starting"):
            if record.state == "granted":
                self.processes.add(record.id)
                await self.turn(
                    lambda draft: draft.move(draft.get(record.id), Move.START, "hub", "", handle={"pid": 1})
                )
            else:
                await self.turn(self.broker.readying(record.id))

    async def end(self) -> None:
        if record := self.some("granted", "starting", "running", "queued"):
            cause = self.chance.choice((Cause.STOPPED, Cause.EXITED, Cause.SERVER_GONE))
            await self.turn(self.broker.ending(record.id, cause, "ada", "enough"))

    async def gone(self) -> None:
        if self.processes:
            self.processes.discard(self.chance.choice(sorted(self.processes)))

    async def fence(self) -> None:
        if record := self.some("stopping"):
            if decide(record, Facts(60, 60, 0, "none"), self.clock.wall_ms, 3600) is not Action.FENCE:
                return
            self.processes.discard(record.id)  # what the fence does before it says so
            await self.turn(self.broker.freeing(record.id, "fence", "proof"))

    async def expire(self) -> None:
        for record in [*self.broker.records.values()]:
            facts = Facts(0.0, 0.0, 0.0, "ready")
            if decide(record, facts, self.clock.wall_ms, 10**9) is Action.DEADLINE:
                await self.turn(self.broker.ending(record.id, Cause.DEADLINE, "reconcile", "over"))

    async def withdraw(self) -> None:
        if record := self.some("queued"):
            await self.turn(self.broker.ending(record.id, Cause.CANCELLED, "ada", "no more"))

    async def restart(self) -> None:
        self.next_fault = None
        await self.boot()

    async def devices(self) -> None:
        """A node is left out, comes back, or one of its devices falls ill."""
        place = self.chance.randrange(len(self.nodes))
        node = self.nodes[place]
        devices = tuple(replace(device, healthy=self.chance.random() < 0.7) for device in node.devices)
        now = [*self.nodes]
        if self.chance.random() < 0.3 and len(now) > 1:
            del now[place]
        else:
            self.nodes[place] = now[place] = replace(node, devices=devices)
        self.broker.set_nodes(now)
        await self.turn()

    async def close(self) -> None:
        """A node or device is drained, the group held; or what is closed is opened."""
        if self.broker.switches and self.chance.random() < 0.5:
            kind, name = self.chance.choice([*self.broker.switches])
            await self.turn(closing.reopen(self.broker, Kind(kind), name, "root"))
            return
        node = self.chance.choice(self.broker.nodes)
        names = [(Kind.NODE, node.name), (Kind.GROUP, "lab")]
        names += [(Kind.DEVICE, device.id) for device in node.devices]
        kind, name = self.chance.choice(names)
        await self.turn(closing.close(self.broker, kind, name, "root", "new fans"))

    async def pass_by(self) -> None:
        """Somebody who waits gets another priority."""
        record = self.some("queued")
        if record is not None and not self.plain:
            await self.turn(closing.prioritise(record.id, self.chance.choice((0, 10, 90)), "root"))

    async def settle(self) -> None:
        """Everything ends, everything is opened, and everything comes back."""
        self.next_fault = None
        for kind, name in [*self.broker.switches]:
            await self.turn(closing.reopen(self.broker, Kind(kind), name, "root"))
        assert self.database.switches == {}
        for record in [*self.broker.records.values()]:
            await self.turn(self.broker.ending(record.id, Cause.STOPPED, "admin", "closing"))
        while self.broker.records:
            record = next(iter(self.broker.records.values()))
            if record.state != State.STOPPING:
                await self.turn(self.broker.ending(record.id, Cause.STOPPED, "admin", "closing"))
                continue
            self.processes.discard(record.id)
            await self.turn(self.broker.freeing(record.id, "fence", "proof"))
        await self.turn()
        assert [row for row in self.database.intervals.values() if row["closed_ms"] is None] == []
        self.broker.set_nodes(self.nodes)
        await self.turn()
        for node in self.nodes:
            assert self.broker.scheduler.node(node.name) == NodeBook.empty(node, Fraction(2))


# -- the judge: rows and processes alone -------------------------------------------------------


def judge(world: World) -> None:
    rows = world.database
    live = {id: row for id, row in rows.requests.items() if row["state"] not in FINAL}
    holding = {id for id, row in live.items() if row["state"] in HOLDING}
    capacity = {device.id: device for node in world.nodes for device in node.devices}
    memory: dict[str, int] = {}
    sm: dict[str, int] = {}
    mask: dict[str, int] = {}
    for id in sorted(holding):
        for piece in rows.slices.get(id, ()):
            device = piece["device"]
            memory[device] = memory.get(device, 0) + piece["memory_mib"]
            sm[device] = sm.get(device, 0) + piece["sm_milli"]
            if piece["mig_size"]:
                bits = ((1 << piece["mig_size"]) - 1) << piece["mig_start"]
                assert not mask.get(device, 0) & bits, f"MIG slots of {device} given twice"
                mask[device] = mask.get(device, 0) | bits
    for device, taken in memory.items():
        assert taken <= capacity[device].memory_mib, f"{device} gave {taken} MiB"
        assert sm[device] <= capacity[device].sms * 1000, f"{device} gave {sm[device]} SMs"
    open_ = {id for id, row in rows.intervals.items() if row["closed_ms"] is None}
    assert open_ == holding, "metered is not what is held"
    assert world.processes <= holding, f"alive without a lease: {world.processes - holding}"
    granted = [
        row["request"] for row in rows.transitions if row["target"] == "granted" and row["source"] == "queued"
    ]
    assert len(granted) == len(set(granted)), "granted twice"
    # What the service believes is what is written.
    believed = {id: str(record.state) for id, record in world.broker.records.items()}
    assert believed == {id: row["state"] for id, row in live.items()}, "the service believes something else"
    waits = {id for id, row in live.items() if row["state"] == "queued"}
    assert set(world.broker.scheduler._entries) == waits, "forgotten"
    gangs: dict[str, set[bool]] = {}
    for row in rows.requests.values():
        if (gang := decode_request(row["wish"]).gang) and (
            row["state"] in HOLDING or row["state"] == "queued"
        ):
            gangs.setdefault(gang, set()).add(row["state"] == "queued")
    assert all(len(states) == 1 for states in gangs.values()), (
        "of some that start together, only a part started"
    )
    for user in {row["user_name"] for row in live.values()}:
        most = world.settings.groups[0].limits.running.get("sessions", Fraction(1000))
        runs = sum(live[id]["user_name"] == user for id in holding)
        assert runs <= most, f"{user} runs {runs}, and may {most}"
    assert set(world.broker.scheduler.held) == holding, "the books know of other holders"
    now_ms = world.clock.wall_ms
    if world.story[-1] == "expire ":
        for id in holding:
            deadline = rows.leases[id]["deadline_ms"]
            late = live[id]["state"] == "running" and deadline is not None and deadline < now_ms
            assert not late, "held beyond its deadline"


def order_is_kept(world: World, before: dict[str, dict[str, object]]) -> None:
    """Without backfill nobody starts before one who asked earlier and still waits."""
    if world.settings.groups[0].rules.backfill or not world.plain:
        return
    rows = world.database.requests
    begun = [
        rows[id]["ord"]
        for id, row in before.items()
        if row["state"] == "queued" and rows[id]["state"] in HOLDING
    ]
    waits = [row["ord"] for row in rows.values() if row["state"] == "queued"]
    assert not begun or not waits or max(begun) < min(waits), "overtaken"


def closed_stays_closed(world: World, before: dict[str, dict[str, object]]) -> None:
    """Nothing that began in this step is where something is closed."""
    rows = world.database
    assert set(world.broker.switches) == set(rows.switches), "the service believes other things closed"
    for id, row in rows.requests.items():
        if row["state"] not in HOLDING or before.get(id, {}).get("state", "queued") != "queued":
            continue
        keys = {("group", row["group_name"]), ("node", rows.leases[id]["node"])}
        keys |= {("device", piece["device"]) for piece in rows.slices.get(id, ())}
        assert not keys & rows.switches.keys(), f"began where {keys & rows.switches.keys()} is closed"


async def play(seed: int, database: MemoryDatabase | None = None) -> int:
    """One sequence; returns how many leases there were."""
    world = World(seed, database or MemoryDatabase())
    await world.boot()
    for _ in range(STEPS):
        before = {id: dict(row) for id, row in world.database.requests.items()}
        try:
            await world.step()
            judge(world)
            order_is_kept(world, before)
            closed_stays_closed(world, before)
        except (AssertionError, KeyError, ValueError, PublicError) as error:
            raise AssertionError(f"BKAI_SEED={seed}: {error}\n" + "\n".join(world.story)) from error
    await world.settle()
    return len(world.database.leases)


async def play_all(seeds: Iterable[int]) -> int:
    """All sequences, up to the first failure."""
    return sum([await play(seed) for seed in seeds])


@pytest.mark.timeout(900)
async def test_nothing_leaks() -> None:
    seed = os.environ.get("BKAI_SEED")
    seeds = range(SEQUENCES) if seed is None else [int(seed)]
    leases = await play_all(seeds)
    print(f"{len(seeds)} sequences, {leases} leases")
    assert leases > len(seeds) // 2


class Both(MemoryDatabase):
    """A real database, and beside it what it should hold."""

    def __init__(self, real: Database) -> None:
        super().__init__()
        self.real = real

    async def write(self, batch: Batch) -> None:
        if batch:
            self.fault("before")
            await self.real.write(batch)
            fault, self.fault = self.fault, lambda moment: None
            await super().write(batch)
            self.fault = fault
            self.fault("after")

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        found = await self.real.read(query)
        assert found == await super().read(query), query
        return found


@pytest.mark.timeout(300)
async def test_nothing_leaks_in_a_real_database(database_url: str) -> None:
    database = Database(database_url)
    try:
        for seed in range(40):
            both = Both(database)
            await play(seed, both)
            with database._engine.begin() as connection:
                for table in reversed(tables.metadata.sorted_tables):
                    connection.execute(table.delete())
    finally:
        database.close()


# -- a judge that finds nothing judges nothing -------------------------------------------------


def grant_before_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Broker._turn

    async def careless(self: Broker, pending: list[_Pending]) -> None:
        write = self.database.write

        async def forgiving(batch: object) -> None:
            try:
                await write(batch)  # type: ignore[arg-type]
            except PublicError:
                return

        monkeypatch.setattr(self.database, "write", forgiving)
        await turn(self, pending)

    monkeypatch.setattr(Broker, "_turn", careless)


def release_without_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = Broker.ending

    def careless(self: Broker, record_id: str, *args: object) -> Callable[[Draft], object]:
        def command(draft: Draft) -> object:
            ending(self, record_id, *args)(draft)  # type: ignore[arg-type]
            return self.freeing(record_id, "nobody", "it will be gone")(draft)

        return command

    monkeypatch.setattr(Broker, "ending", careless)


def forgotten_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        globals(), "decide", lambda *args: Action.FENCE if args[0].state == State.STOPPING else None
    )


def forgotten_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out = Broker._lay_out

    def careless(self: Broker) -> None:
        lay_out(self)
        for record in self.records.values():
            self.scheduler.remove(record.id)

    monkeypatch.setattr(Broker, "_lay_out", careless)


def laid_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a decision is on its way to the disk, queues and books are made anew from records that lack it."""
    set_nodes = Broker.set_nodes

    def careless(self: Broker, nodes: list[Node]) -> None:
        set_nodes(self, nodes)
        self._lay_out()

    monkeypatch.setattr(Broker, "set_nodes", careless)


def lost_answer_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write that nobody knows the end of, what is in memory is believed."""

    async def careless(self: Broker) -> None:
        return None

    monkeypatch.setattr(Broker, "_read", careless)


def forgotten_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out = Broker._lay_out

    def careless(self: Broker) -> None:
        lay_out(self)
        for id in [*self.scheduler.held][:1]:
            self.scheduler.free(id, 0)

    monkeypatch.setattr(Broker, "_lay_out", careless)


def forgotten_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is closed is stored and shown, and nothing else."""
    monkeypatch.setattr(Scheduler, "close", lambda self, closed: None)


@pytest.mark.parametrize(
    ("careless", "expected"),
    [
        (grant_before_commit, "believes something else"),
        (release_without_fence, "alive without a lease"),
        (forgotten_expiry, "held beyond its deadline"),
        (forgotten_waiting, "forgotten"),
        (laid_out_at_once, "other holders|forgotten|gave|twice"),
        (lost_answer_forgotten, "believes something else"),
        (forgotten_holders, "other holders|gave|twice"),
        (forgotten_closing, "began where"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_careless_broker_is_found(
    careless: Callable[[pytest.MonkeyPatch], None], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    careless(monkeypatch)
    with pytest.raises(AssertionError, match=expected):
        await play_all(range(300))
