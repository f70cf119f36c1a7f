"""What people are told: which moves are worth it, each once, in the transaction of the move, by the ways they want."""

import json
from dataclasses import replace
from typing import Any

import pytest

from jupyterhub_bkai.leasing import lasting
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.lifecycle import Cause
from jupyterhub_bkai.notices.kinds import Choice, Kind, Warned, Ways, Webhook, due, is_address, pause_ms, step
from jupyterhub_bkai.store import tables
from jupyterhub_bkai.store.records import Record
from tests.leasing.conftest import ADA, SETTINGS, OpenBroker, TestClock, asked

STEPS = (1800, 600, 120)
MINUTE = 60_000
TOLD = replace(SETTINGS, notices=Ways(webhook=Webhook("http://127.0.0.1:1/")))


def told(deadline_min: int, step_s: int) -> Warned:
    return Warned("x", 0, deadline_min * MINUTE, step_s)


@pytest.mark.parametrize(
    ("deadline_min", "last", "now_min", "found"),
    [
        (120, None, 89, None),
        (120, None, 90, 1800),
        (120, told(120, 1800), 91, None),
        (120, told(120, 1800), 110, 600),
        (120, told(120, 600), 111, None),
        (120, None, 119, 120),  # those that were missed are not given late
        (120, told(120, 600), 120, None),  # it is over
        (120, None, 130, None),
        (180, told(120, 120), 150, 1800),  # another deadline: from the beginning
        (20, None, 1, None),  # shorter than half an hour: not warned of that
        (20, None, 10, 600),
        (10, None, 0, None),
        (1, None, 0, None),
    ],
)
def test_when_a_warning_is_due(
    deadline_min: int, last: Warned | None, now_min: int, found: int | None
) -> None:
    assert due(STEPS, deadline_min * MINUTE, 0, last, now_min * MINUTE) == found


def test_small_rules() -> None:
    assert step((), 10, 5) is None
    assert [pause_ms(tries) for tries in (1, 2, 3, 11, 1000)] == [2000, 4000, 8000, 1_800_000, 1_800_000]
    for good in ("ada@example.org", "a.b+c@x", "ada@mail-1.example.org"):
        assert is_address(good)
    for bad in (
        "ada",
        "@x",
        "a@",
        "a b@x",
        "a@x\n",
        "a@x,b@y",
        "a@x>",
        "<a@x",
        'a"@x',
        "a@b@c",
        "ä@x",
        "a@x..y",
    ):
        assert not is_address(bad)


async def notices(broker: Broker) -> list[dict[str, Any]]:
    query = tables.notices.select().order_by(tables.notices.c.id)
    rows = await broker.database.read(lambda c: c.execute(query).mappings().all())
    return [{**row, **json.loads(row["body"])} for row in rows]


async def deliveries(broker: Broker) -> list[dict[str, Any]]:
    query = tables.deliveries.select().order_by(tables.deliveries.c.id)
    return [dict(row) for row in await broker.database.read(lambda c: c.execute(query).mappings().all())]


async def running(broker: Broker, hours: float = 1) -> Record:
    [one] = await broker.ask(ADA, "train", asked("1", duration_s=int(hours * 3600)))
    return await broker.ready(one.id)


async def test_each_warning_is_given_once_also_across_restarts(a_broker: OpenBroker) -> None:
    """Nobody has set up any way: it is shown, and remembered."""
    clock = TestClock()
    given = []
    async with a_broker(clock=clock) as broker:
        one = await running(broker)
    for minute in range(62):
        async with a_broker(clock=clock) as broker:
            for _ in range(2):
                if await broker.submit(lasting.warn(broker, one.id)):
                    given.append(minute)
        clock.advance(MINUTE)
        if minute == 55:
            async with a_broker(clock=clock) as broker:
                await broker.submit(lasting.extend(broker, one.id, 240, "ada"))
    # Four minutes more with four left: of these eight the ten need no warning any more.
    assert given == [30, 50]
    async with a_broker(clock=clock) as broker:
        assert await broker.submit(lasting.warn(broker, one.id))
        assert [row["message"] for row in await notices(broker)] == [
            "Your session train ends in 30 min, at 23:13 UTC. Save your work, or ask for more time.",
            "Your session train ends in 10 min, at 23:13 UTC. Save your work, or ask for more time.",
            "Your session train goes on until 23:17 UTC.",
            "Your session train ends in 2 min, at 23:17 UTC. Save your work, or ask for more time.",
        ]
        assert await deliveries(broker) == []


async def test_what_ends_by_ones_own_hand_is_no_news(a_broker: OpenBroker) -> None:
    clock = TestClock()
    async with a_broker(settings=TOLD, clock=clock) as broker:
        for who, cause, is_told in (
            ("ada", Cause.STOPPED, False),
            ("hub", Cause.STOPPED, False),
            ("ada", Cause.EXITED, False),
            ("root", Cause.STOPPED, True),
            ("hub", Cause.EXITED, True),
            ("hub", Cause.SERVER_GONE, True),
            ("reconcile", Cause.DEADLINE, True),
        ):
            before = len(await notices(broker))
            clock.advance(1)
            one = await running(broker)
            await broker.end(one.id, cause, who, "So it is.")
            await broker.free(one.id, "fence", "proof")
            new = (await notices(broker))[before:]
            assert len(new) == is_told, (who, cause)
            for row in new:
                assert row["kind"] == Kind.ENDED
                assert row["message"] == "Your session train has ended. So it is."
                assert row["session"]["cause"] == cause


async def test_turn_and_refusal(a_broker: OpenBroker) -> None:
    clock = TestClock()
    async with a_broker(settings=TOLD, clock=clock) as broker:
        first = await running(broker)
        [waits] = await broker.ask(ADA, "next", asked("1"))
        [other] = await broker.ask(ADA, "other", asked("1"))
        clock.advance(35 * MINUTE)
        await broker.end(first.id, Cause.STOPPED, "ada", "")
        await broker.free(first.id, "fence", "proof")
        await broker.ready(waits.id)
        clock.advance(1)
        await broker.end(other.id, Cause.QUEUE_LIMIT, "reconcile", "It waited as long as this site allows.")
        found = await notices(broker)
        assert [(row["kind"], row["message"]) for row in found] == [
            ("turn", "It is your turn: next runs, after waiting for 35 min."),
            ("refused", "Your request other waits no longer. It waited as long as this site allows."),
        ]
        assert [(row["id"], row["state"], row["tries"]) for row in await deliveries(broker)] == [
            (f"{row['id']}-webhook", "waiting", 0) for row in found
        ]


async def test_who_does_not_want_it_is_not_told(a_broker: OpenBroker) -> None:
    async with a_broker(settings=TOLD) as broker:
        broker.choices["ada"] = Choice(frozenset({Kind.ENDED}))
        one = await running(broker)
        await broker.end(one.id, Cause.DEADLINE, "reconcile", "")
        assert await notices(broker) == []


async def test_a_refused_command_tells_nothing(a_broker: OpenBroker) -> None:
    async with a_broker(settings=TOLD) as broker:
        one = await running(broker)

        def command(draft: Any) -> None:
            draft.postpone(one, 1, "ada", "")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await broker.submit(command)
        assert await notices(broker) == []
        assert broker.warned == {}
