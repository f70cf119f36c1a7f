"""The broker: what is granted when, what survives, what is refused."""

import asyncio
import contextlib
import os
from dataclasses import replace
from fractions import Fraction

import psycopg
import pytest

from jupyterhub_bkai import policy
from jupyterhub_bkai.errors import Conflict, NotFound, PolicyDenied, SettingsError, Unavailable
from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.draft import Draft
from jupyterhub_bkai.leasing.lifecycle import Cause, InvalidMove, Move, State
from jupyterhub_bkai.model import Person
from jupyterhub_bkai.store import queries
from jupyterhub_bkai.store.database import Batch, Database
from tests.leasing.conftest import ADA, CARD, SETTINGS, OpenBroker, TestClock, asked


def node(broker: Broker) -> NodeBook:
    """What is left on the only machine."""
    found = broker.scheduler.node("local")
    assert found is not None
    return found


async def settle() -> None:
    """Lets a transaction that nobody waits for be written."""
    await asyncio.sleep(0.05)


async def test_three_asked_together_two_run_and_the_third_follows(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        records = await broker.ask(ADA, "train", asked("1/2", count=3))
        assert [record.server for record in records] == ["train", "train-2", "train-3"]
        live = [broker.records[record.id] for record in records]
        assert [record.state for record in live] == [State.GRANTED, State.GRANTED, State.QUEUED]
        standing = broker.standing(live[2])
        assert standing is not None
        assert standing.position == 1
        assert standing.why == "It needs 1 fGPU on one device; no fGPU is free."
        await broker.started(records[0].id, {"pid": 1})
        await broker.ready(records[0].id)
        await broker.end(records[0].id, Cause.STOPPED, "ada", "Stopped.")
        assert broker.records[records[2].id].state == State.QUEUED  # stopping still holds its slice
        await broker.free(records[0].id, "fence", "proof")
        assert broker.records[records[2].id].state == State.GRANTED
        assert records[0].id not in broker.records


async def test_the_order_is_that_of_asking_and_nobody_overtakes_the_head(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        await broker.ask(ADA, "a", asked("3/5"))
        big, small = await broker.ask(ADA, "b", asked("1")), await broker.ask(ADA, "c", asked("1/5"))
        assert broker.records[big[0].id].state == State.QUEUED
        assert broker.records[small[0].id].state == State.QUEUED
        standing = broker.standing(small[0])
        assert standing is not None
        assert standing.position == 2
        assert standing.why.startswith("1 request is ahead of it in Default.")


async def test_everything_is_as_it_was_after_a_restart(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        records = await broker.ask(ADA, "train", asked("1/2", count=4))
        await broker.started(records[0].id, {"kind": "process", "pid": 77})
        await broker.ready(records[0].id)
        before = dict(broker.records)
        intervals = set(broker.intervals)
    async with a_broker() as broker:
        await settle()
        assert broker.records == before
        assert set(broker.intervals) == intervals == {records[0].id, records[1].id}
        standings = [broker.standing(broker.records[r.id]) for r in records[2:]]
        assert [standing.position for standing in standings if standing] == [1, 2]
        assert broker.records[records[0].id].handle == {"kind": "process", "pid": 77}


async def test_what_the_disk_refuses_never_happened(
    a_broker: OpenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_broker() as broker:

        async def full(self: Database, batch: Batch) -> None:
            raise Unavailable("The disk is full.", reason="database")

        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", full)
            with pytest.raises(Unavailable, match="disk is full"):
                await broker.ask(ADA, "train", asked())
        assert broker.records == {}
        assert node(broker).devices[0].idle
        again = await broker.ask(ADA, "train", asked())
        assert broker.records[again[0].id].state == State.GRANTED


async def test_a_server_has_one_live_request(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        await broker.ask(ADA, "train", asked())
        with pytest.raises(Conflict, match="already have a session called “train”"):
            await broker.ask(ADA, "train", asked())
        await broker.ask(Person("bob"), "train", asked())


async def test_one_refused_command_leaves_the_others_of_its_transaction_alone(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        answers = await asyncio.gather(
            broker.ask(ADA, "a", asked("1/5")),
            broker.ask(ADA, "a", asked("1/5")),
            broker.ask(ADA, "b", asked("1/5")),
            return_exceptions=True,
        )
        assert isinstance(answers[1], Conflict)
        assert len(broker.records) == 2
        assert await broker.database.read(queries.last_order) == 2
    async with a_broker() as broker:
        assert {record.server for record in broker.records.values()} == {"a", "b"}


async def test_in_the_transaction_in_which_its_session_ends_a_server_is_asked_for_again(
    a_broker: OpenBroker,
) -> None:
    async with a_broker() as broker:
        first = await broker.ask(ADA, "train", asked())
        waits = await broker.ask(ADA, "big", asked("1"))
        await broker.end(first[0].id, Cause.STOPPED, "ada", "Stopped.")
        freed, cancelled, again, big = await asyncio.gather(
            broker.free(first[0].id, "fence", "proof"),
            broker.end(waits[0].id, Cause.CANCELLED, "ada", "Cancelled."),
            broker.ask(ADA, "train", asked()),
            broker.ask(ADA, "big", asked("1")),
        )
        assert freed is not None
        assert cancelled is not None
        assert (freed.state, cancelled.state) == (State.RELEASED, State.WITHDRAWN)
        before = dict(broker.records)
    async with a_broker() as broker:
        await settle()
        assert broker.records == before
        assert broker.records.keys() == {again[0].id, big[0].id}


async def test_what_is_asked_granted_and_given_back_in_one_transaction_is_written_as_it_is_in_the_end(
    a_broker: OpenBroker,
) -> None:
    """One that is asked for and cancelled at once, and a lease that ends with the transaction of its grant."""
    async with a_broker() as broker:

        def brief(draft: Draft) -> str:
            record = broker.asking(ADA, "brief", asked())(draft)[0]
            broker.ending(record.id, Cause.CANCELLED, "ada", "Cancelled.")(draft)
            return record.id

        id = await broker.submit(brief)
        found = await broker.database.read(queries.One(id))
        assert found is not None
        assert found.state == State.WITHDRAWN
        assert [row["target"] for row in await broker.database.read(queries.story(id))] == [
            "queued",
            "withdrawn",
        ]
        assert broker.records == {}


async def test_limits_of_a_person(a_broker: OpenBroker) -> None:
    limits = policy.Limits(
        total={"sessions": Fraction(3), "fgpu": Fraction(3, 2)}, pending={"sessions": Fraction(1)}
    )
    group = policy.Group("default", "Default", unit=Unit(Fraction(2), Fraction(1, 10)), limits=limits)
    async with a_broker(settings=replace(SETTINGS, groups=(group,))) as broker:
        with pytest.raises(PolicyDenied, match="3 sessions at a time; you can have 3 more"):
            await broker.ask(ADA, "x", asked("1/10", count=4))
        await broker.ask(ADA, "a", asked("1"))
        with pytest.raises(PolicyDenied, match="3 fGPU at a time; you can have 1 more"):
            await broker.ask(ADA, "b", asked("1"))
        await broker.ask(ADA, "b", asked("1/2"))
        with pytest.raises(PolicyDenied, match="1 session waiting at a time; you can ask for 0 more"):
            await broker.ask(ADA, "c", asked(""))
        await broker.ask(Person("bob"), "a", asked("1"))


async def test_a_move_that_is_not_in_the_table_changes_nothing(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        (record,) = await broker.ask(ADA, "a", asked())
        with pytest.raises(InvalidMove, match="a granted request cannot grant"):
            await broker.move(record.id, Move.GRANT, "test", "again")
        with pytest.raises(NotFound):
            await broker.move("0" * 26, Move.STOP, "test", "nobody")
        assert broker.records[record.id].state == State.GRANTED


async def test_the_end_is_told_once_and_kept(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        (record,) = await broker.ask(ADA, "a", asked())
        await broker.end(record.id, Cause.START_FAILED, "hub", "It did not start.")
        await broker.end(record.id, Cause.STOPPED, "ada", "Later.")
        await broker.free(record.id, "fence", "proof")
        assert await broker.end(record.id, Cause.STOPPED, "ada", "Much later.") is None
        kept = await broker.database.read(queries.One(record.id))
        assert kept is not None
        assert (kept.state, kept.cause, kept.message) == ("failed", "start-failed", "It did not start.")
        story = await broker.database.read(queries.story(record.id))
        assert [row["target"] for row in story] == ["queued", "granted", "stopping", "failed"]


async def test_a_waiting_request_is_cancelled_at_once(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        await broker.ask(ADA, "a", asked("1"))
        (waiting,) = await broker.ask(ADA, "b", asked("1"))
        ended = await broker.end(waiting.id, Cause.CANCELLED, "ada", "Cancelled.")
        assert ended is not None
        assert ended.state == State.WITHDRAWN
        assert broker.standing(waiting) is None


async def test_usage_does_not_follow_a_step_of_the_wall_clock(a_broker: OpenBroker) -> None:
    clock = TestClock()
    async with a_broker(clock=clock) as broker:
        (record,) = await broker.ask(ADA, "a", asked())
        clock.advance(90_000, step_ms=-3_600_000)
        await broker.end(record.id, Cause.STOPPED, "ada", "Stopped.")
        clock.advance(1_500)
        await broker.free(record.id, "fence", "proof")
        (row,) = await broker.database.read(queries.Overlapping(0, 2**62))
        assert row["duration_ms"] == 91_500
        assert (row["gpu_memory_mib"], row["share"], row["version"]) == (4096, "1/2", "sklearn/1.8")


async def test_a_device_that_appears_is_given_at_once(a_broker: OpenBroker) -> None:
    async with a_broker(devices=()) as broker:
        (record,) = await broker.ask(ADA, "a", asked())
        assert broker.records[record.id].state == State.QUEUED
        broker.set_nodes([replace(broker.nodes[0], devices=(CARD,))])
        await settle()
        assert broker.records[record.id].state == State.GRANTED


async def test_two_services_never_share_a_database_row(a_broker: OpenBroker) -> None:
    """PostgreSQL is locked; in SQLite the database itself refuses a second live request of one server."""
    async with a_broker() as first:
        await first.ask(ADA, "a", asked())
        with pytest.raises((Unavailable, SettingsError), match=r"did not take|another service"):
            async with a_broker(fresh=True) as second:
                await second.ask(ADA, "a", asked())


@pytest.mark.postgres
async def test_who_lost_the_lock_writes_nothing_until_it_has_it_again(postgres: str) -> None:
    """The server ended the connection that the lock hangs on, as it does when it is restarted."""
    name = f"test_{os.urandom(6).hex()}"
    with psycopg.connect(postgres + "postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    first = Database(postgres + name)
    row = {"id": "r1", "ord": 1, "user_name": "ada", "server": "a", "hub_groups": "[]", "admin": False}
    row |= {"group_name": "g", "version": "v", "wish": "{}", "state": "queued", "since_ms": 0, "asked_ms": 0}
    with psycopg.connect(postgres + name, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    second = Database(postgres + name)
    try:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await first.write(Batch(requests=[row]))
        second.close()
        for _ in range(100):  # the server lets go of the lock a moment after the connection
            with contextlib.suppress(Unavailable):
                await first.write(Batch(requests=[row]))
                break
            await asyncio.sleep(0.05)
        assert await first.read(queries.last_order) == 1
    finally:
        first.close()


async def test_a_device_that_shrank_takes_nothing_more_until_enough_came_back(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        held = await broker.ask(ADA, "a", asked("1/2", count=2))
    async with a_broker(devices=(replace(CARD, reserve_mib=1024),)) as broker:
        assert node(broker).devices[0].free_mib < 0
        (waiting,) = await broker.ask(ADA, "b", asked("1/10"))
        assert broker.records[waiting.id].state == State.QUEUED
        await broker.end(held[0].id, Cause.STOPPED, "ada", "Stopped.")
        await broker.free(held[0].id, "fence", "proof")
        assert broker.records[waiting.id].state == State.GRANTED
