"""What is closed by hand: nothing new starts there, what runs goes on, it is said why, and it survives."""

from dataclasses import replace
from fractions import Fraction

import pytest

from jupyterhub_bkai import policy
from jupyterhub_bkai.errors import Conflict, NotFound, PolicyDenied
from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.leasing import closing, leftover
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.leftover import Fragmentation, IdleMeter, free_while_waiting, usual
from jupyterhub_bkai.leasing.lifecycle import Cause, State
from jupyterhub_bkai.leasing.scheduler import Rules
from jupyterhub_bkai.leasing.switches import Kind
from jupyterhub_bkai.model import Node, Wish
from jupyterhub_bkai.store import queries, tables
from tests.leasing.conftest import ADA, CARD, SETTINGS, OpenBroker, TestClock, asked

SECOND = replace(CARD, id="GPU-1", index=1)


async def close(broker: Broker, kind: Kind, name: str, why: str = "new fans") -> None:
    await broker.submit(closing.close(broker, kind, name, "root", why))


async def reopen(broker: Broker, kind: Kind, name: str) -> bool:
    return await broker.submit(closing.reopen(broker, kind, name, "root"))


def state(broker: Broker, record_id: str) -> str:
    return broker.records[record_id].state


def why(broker: Broker, record_id: str) -> str:
    standing = broker.standing(broker.records[record_id])
    assert standing is not None
    return standing.why


@pytest.mark.parametrize(
    ("kind", "name"), [(Kind.NODE, "local"), (Kind.DEVICE, "GPU-0"), (Kind.GROUP, "default")]
)
async def test_nothing_new_starts_what_runs_goes_on_and_it_survives_a_restart(
    a_broker: OpenBroker, kind: Kind, name: str
) -> None:
    clock = TestClock()
    async with a_broker(clock=clock) as broker:
        [runs] = await broker.ask(ADA, "a", asked("1/2"))
        await close(broker, kind, name)
        [waits] = await broker.ask(ADA, "b", asked("1/2"))
        assert (state(broker, runs.id), state(broker, waits.id)) == (State.GRANTED, State.QUEUED)
    clock.advance(60_000)
    async with a_broker(clock=clock) as broker:
        assert (state(broker, runs.id), state(broker, waits.id)) == (State.GRANTED, State.QUEUED)
        what = {Kind.NODE: "drains local, where it would fit,", Kind.GROUP: "holds Default"}.get(
            kind, "drains device 0 of local, where it would fit,"
        )
        assert why(broker, waits.id) == f"The administrator {what} since 2023-11-14 22:13 UTC: new fans."
        assert await reopen(broker, kind, name)
        assert state(broker, waits.id) == State.GRANTED
        assert not await reopen(broker, kind, name)
        rows = await broker.database.read(lambda c: c.execute(tables.changes.select()).mappings().all())
        assert [(row["who"], row["kind"], row["name"], row["body"]) for row in rows] == [
            ("root", f"{kind}-switch", name, '{"why": "new fans"}'),
            ("root", f"{kind}-switch", name, None),
        ]
    async with a_broker() as broker:
        assert broker.switches == {}


async def test_a_device_that_is_drained_is_passed_and_its_neighbour_is_not(a_broker: OpenBroker) -> None:
    async with a_broker(devices=(CARD, SECOND)) as broker:
        await close(broker, Kind.DEVICE, "GPU-0")
        first, second = [(await broker.ask(ADA, name, asked("1")))[0] for name in "ab"]
        assert [piece.device for piece in broker.records[first.id].slices] == ["GPU-1"]
        assert state(broker, second.id) == State.QUEUED
        # While what it waits for is held, too, draining still is what keeps it from starting.
        assert "drains device 0 of local, where it would fit," in why(broker, second.id)
        [both] = await broker.ask(ADA, "c", replace(asked(""), wish=Wish("cuda", 2)))
        assert "drains device 0 of local, and nothing else is large enough for it," in why(broker, both.id)


async def test_what_waits_for_something_else_is_not_told_of_draining(a_broker: OpenBroker) -> None:
    async with a_broker(devices=(CARD, SECOND)) as broker:
        holds = [(await broker.ask(ADA, name, asked("1")))[0] for name in "ab"]
        assert {broker.records[r.id].slices[0].device for r in holds} == {"GPU-0", "GPU-1"}
        await close(broker, Kind.DEVICE, "GPU-0")
        [waits] = await broker.ask(ADA, "c", asked("1"))
        assert why(broker, waits.id) == "It needs 2 fGPU on one device; no fGPU is free."
        # What is given back on a drained device is not given again.
        drained = next(r for r in holds if broker.records[r.id].slices[0].device == "GPU-0")
        await broker.end(drained.id, Cause.STOPPED, "ada", "Stopped.")
        await broker.free(drained.id, "fence", "proof")
        assert state(broker, waits.id) == State.QUEUED
        assert "drains device 0 of local, where it would fit," in why(broker, waits.id)


async def test_machines_that_change_stay_drained(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        await close(broker, Kind.NODE, "local")
        broker.set_nodes([Node("local", 8000, 16_384, (CARD, SECOND)), Node("other", 8000, 16_384, ())])
        [waits] = await broker.ask(ADA, "a", asked("1"))
        assert state(broker, waits.id) == State.QUEUED
        [cpu] = await broker.ask(ADA, "b", asked(""))
        assert broker.records[cpu.id].node == "other"


async def test_a_refused_command_leaves_nothing_and_names_the_nearest(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        for kind, name, near in (
            (Kind.NODE, "locl", "There is no node locl; the nearest is local."),
            (Kind.DEVICE, "GPU-9", "There is no device GPU-9; the nearest is GPU-0."),
            (Kind.GROUP, "zzz", "There is no resource group zzz."),
        ):
            with pytest.raises(NotFound, match=near):
                await close(broker, kind, name)
            with pytest.raises(NotFound, match=near):
                await reopen(broker, kind, name)
        assert broker.switches == {}
        assert await broker.database.read(queries.switches) == []


async def test_closed_again_it_has_the_new_reason_and_the_old_beginning(a_broker: OpenBroker) -> None:
    clock = TestClock()
    async with a_broker(clock=clock) as broker:
        await close(broker, Kind.GROUP, "default", "exam")
        since = clock.wall_ms
        clock.advance(5_000)
        await close(broker, Kind.GROUP, "default", "longer exam")
        switch = broker.switches[Kind.GROUP, "default"]
        assert (switch.since_ms, switch.why) == (since, "longer exam")


async def test_a_higher_priority_passes_and_is_in_the_story(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        [runs] = await broker.ask(ADA, "a", asked("1"))
        first, second = [(await broker.ask(ADA, name, asked("1")))[0] for name in "bc"]
        await broker.submit(closing.prioritise(second.id, 80, "root"))
        positions = [broker.standing(broker.records[r.id]) for r in (first, second)]
        assert [s.position for s in positions if s] == [2, 1]
        await broker.submit(closing.prioritise(second.id, 10, "root"))
        positions = [broker.standing(broker.records[r.id]) for r in (first, second)]
        assert [s.position for s in positions if s] == [1, 2]  # it kept its place in time
        story = await broker.database.read(queries.story(second.id))
        assert [(row["who"], row["why"]) for row in story[1:]] == [
            ("root", "priority 10 → 80"),
            ("root", "priority 80 → 10"),
        ]
        with pytest.raises(Conflict):
            await broker.submit(closing.prioritise(runs.id, 80, "root"))


async def test_who_was_let_pass_may_still_take_what_is_offered(a_broker: OpenBroker) -> None:
    """The priority is above what its owner may ask for, and was not asked for by its owner."""
    async with a_broker() as broker:
        await broker.ask(ADA, "a", asked("1/2"))
        [waits] = await broker.ask(ADA, "b", asked("1"))
        await broker.submit(closing.prioritise(waits.id, 80, "root"))
        request = replace(broker.records[waits.id].request, wish=Wish("cuda", 1, Fraction(1, 2)))
        await broker.change(waits.id, request, "ada", "less")
        assert state(broker, waits.id) == State.GRANTED
        [more] = await broker.ask(ADA, "c", asked("1"))
        with pytest.raises(PolicyDenied):
            await broker.change(more.id, replace(asked("1"), priority=81), "ada", "more")


async def test_one_refused_command_takes_no_others_switch_with_it(a_broker: OpenBroker) -> None:
    """Both are in one transaction."""
    async with a_broker() as broker:
        first = broker._later(closing.close(broker, Kind.NODE, "local", "root", "x"))
        bad = broker._later(closing.close(broker, Kind.NODE, "nowhere", "root", "x"))
        last = broker._later(closing.close(broker, Kind.DEVICE, "GPU-0", "root", "y"))
        with pytest.raises(NotFound):
            await bad
        await first
        await last
        assert set(broker.switches) == {(Kind.NODE, "local"), (Kind.DEVICE, "GPU-0")}
        stored = await broker.database.read(queries.switches)
        assert {row["name"] for row in stored} == {"local", "GPU-0"}


def test_fragmentation_is_the_share_that_usual_requests_cannot_use() -> None:
    node = NodeBook.empty(Node("n", 8000, 16_384, (CARD, SECOND)))
    request = asked("1")
    part = node.devices[0].room_for(Fraction(1, 4))
    assert part is not None
    book = node.take(1000, 1024, [part])
    assert Fragmentation().of([node], usual([request])) == 0.0
    # Of 1 3/4 free devices a whole-device request can use one.
    assert Fragmentation().of([book], usual([request])) == pytest.approx(0.75 / 1.75)
    # Half of those who ask want a quarter, and can use everything.
    assert Fragmentation().of([book], usual([request, asked("1/4")])) == pytest.approx(0.375 / 1.75)
    # Where the processors are short nothing can be used.
    assert Fragmentation().of([replace(book, cpu_milli=500)], usual([request])) == 1.0
    assert Fragmentation().of([book], usual([asked("")])) is None
    assert leftover.unusable_on(book.opened(False), next(iter(usual([request])))) == (0.0, 0.0)


def test_what_is_remembered_of_a_node_goes_when_it_changes() -> None:
    gauge, wants = Fragmentation(), usual([asked("1")])
    node = NodeBook.empty(Node("n", 8000, 16_384, (CARD, SECOND)))
    assert gauge.of([node], wants) == 0.0
    assert gauge.of([replace(node, cpu_milli=0)], wants) == 1.0


async def test_devices_that_stand_free_while_somebody_waits_are_counted(a_broker: OpenBroker) -> None:
    settings = replace(SETTINGS, groups=(replace(SETTINGS.groups[0], rules=Rules(backfill=False)),))
    assert isinstance(settings, policy.Settings)
    async with a_broker(settings=settings) as broker:
        hall = broker.scheduler.halls["default"]
        assert free_while_waiting(hall) == 0.0
        await broker.ask(ADA, "a", asked("1/4"))
        await broker.ask(ADA, "b", asked("1"))
        assert free_while_waiting(broker.scheduler.halls["default"]) == 0.75
        await close(broker, Kind.DEVICE, "GPU-0")
        assert free_while_waiting(broker.scheduler.halls["default"]) == 0.0
    meter = IdleMeter(100.0)
    meter.advance(110.0, {"g": 0.5})
    meter.advance(130.0, {"g": 2.0})
    meter.advance(131.0, {})
    meter.advance(231.0, {})
    assert meter.seconds == {"g": 12.0}
