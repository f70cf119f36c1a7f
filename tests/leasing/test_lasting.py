"""More time for a running session: while nobody else starts later for it, and no longer than is allowed."""

import asyncio
from dataclasses import replace
from fractions import Fraction

import pytest

from jupyterhub_bkai import policy
from jupyterhub_bkai.errors import Conflict, InvalidOptions
from jupyterhub_bkai.leasing import extension, lasting
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.lifecycle import Cause, State
from jupyterhub_bkai.model import Node, Person, Wish
from jupyterhub_bkai.store import queries
from jupyterhub_bkai.store.records import Record
from tests.leasing.conftest import ADA, CARD, SETTINGS, OpenBroker, TestClock, asked

BOB, EVE = Person("bob"), Person("eve")
HOUR = 3_600_000
SECOND = replace(CARD, id="GPU-1", index=1)


async def runs(
    broker: Broker, person: Person, share: str = "1", hours: float | None = 2, project: str = ""
) -> Record:
    """A session that runs for so many hours from now."""
    request = asked(share, duration_s=int(hours * 3600) if hours else None, project=project or None)
    [one] = await broker.ask(person, None, request)
    return await broker.ready(one.id)


async def waits(
    broker: Broker, person: Person, share: str = "1", hours: float = 1, project: str = ""
) -> Record:
    [one] = await broker.ask(
        person, None, asked(share, duration_s=int(hours * 3600), project=project or None)
    )
    assert broker.records[one.id].state == State.QUEUED
    return one


async def extend(broker: Broker, record: Record, hours: float, who: str = "ada") -> Record:
    return await broker.submit(lasting.extend(broker, record.id, int(hours * 3600), who))


async def test_it_ends_later_in_the_books_and_in_the_database(a_broker: OpenBroker) -> None:
    clock = TestClock()
    async with a_broker(clock=clock) as broker:
        mine = await runs(broker, ADA)
        assert (await extend(broker, mine, 3)).deadline_ms == clock.wall_ms + 5 * HOUR
        assert broker.scheduler.held[mine.id].ends_ms == clock.wall_ms + 5 * HOUR
        story = await broker.database.read(queries.story(mine.id))
        assert (story[-1]["source"], story[-1]["target"], story[-1]["who"]) == ("running", "running", "ada")
        assert story[-1]["why"] == "goes on for 3 h more, until 2023-11-15 03:13 UTC"
    async with a_broker(clock=clock) as broker:
        assert broker.records[mine.id].deadline_ms == clock.wall_ms + 5 * HOUR
        assert broker.scheduler.held[mine.id].ends_ms == clock.wall_ms + 5 * HOUR


async def test_who_waits_starts_when_they_would_have(a_broker: OpenBroker) -> None:
    """The whole card is reserved for Bob at the end of the later of two halves; the other may go on until then."""
    clock = TestClock()
    async with a_broker(clock=clock) as broker:
        longer, mine = await runs(broker, EVE, "1/2", 3), await runs(broker, ADA, "1/2", 2)
        await waits(broker, BOB)
        with pytest.raises(Conflict) as refused:
            await extend(broker, mine, 1.5)
        assert refused.value.reason == "not-extended"
        assert refused.value.message == (
            "It can go on for at most 1 h more: a request that waits is to start by 2023-11-15 01:13 UTC."
        )
        assert broker.records[mine.id].deadline_ms == clock.wall_ms + 2 * HOUR
        await extend(broker, mine, 1)
        with pytest.raises(Conflict, match="cannot go on for longer: a request that waits is to start by"):
            await extend(broker, longer, 0.1, "eve")
        reservation = broker.scheduler.halls["default"].reservation
        assert reservation is not None
        assert reservation.at_ms == clock.wall_ms + 3 * HOUR


async def test_of_two_that_could_each_be_spared_one_goes_on(a_broker: OpenBroker) -> None:
    """Asked in one transaction, the second is judged by what the first was given."""
    async with a_broker(clock=TestClock(), devices=(CARD, SECOND)) as broker:
        one, other = await runs(broker, ADA), await runs(broker, EVE)
        await waits(broker, BOB)
        answers = await asyncio.gather(
            extend(broker, one, 1), extend(broker, other, 1), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Record, Conflict]


async def test_each_of_several_who_wait_counts(a_broker: OpenBroker) -> None:
    """The first starts on the card that comes free first, so the second starts on the other."""
    clock = TestClock()
    async with a_broker(clock=clock, devices=(CARD, SECOND)) as broker:
        await runs(broker, EVE, hours=1)
        mine = await runs(broker, ADA, hours=2)
        first = await waits(broker, BOB)
        assert (await extend(broker, mine, 1)).deadline_ms == clock.wall_ms + 3 * HOUR
        await waits(broker, Person("joe"))
        with pytest.raises(Conflict, match="a request that waits is to start by"):
            await extend(broker, mine, 1)
        await broker.end(first.id, Cause.CANCELLED, "bob", "")
        await extend(broker, mine, 1)


async def test_ones_own_waiting_request_and_what_fits_beside_do_not_bound(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        mine = await runs(broker, ADA)
        await waits(broker, ADA)
        await extend(broker, mine, 1)
        await broker.ask(BOB, None, replace(asked("1"), not_before_ms=1 << 50))  # waits for its time
        await extend(broker, mine, 1)


async def test_nobody_is_hidden_behind_ones_own_waiting_requests(a_broker: OpenBroker) -> None:
    """Ada asks again and again for what is held without an end elsewhere, and stands before Bob with all of it."""
    other = Node("other", 64_000, 65_536, (replace(CARD, id="ATOM-0", node="other", slot="atom"),))
    async with a_broker() as broker:
        broker.set_nodes((*broker.nodes, other))
        atom = asked("1", wish=Wish("atom"))
        await broker.ask(EVE, None, atom)
        mine = await runs(broker, ADA)
        for _ in range(extension.DEPTH + 1):
            await broker.ask(ADA, None, atom)
        await extend(broker, mine, 1)
        await waits(broker, BOB)
        with pytest.raises(Conflict, match="a request that waits is to start by"):
            await extend(broker, mine, 1)


async def test_where_nothing_says_when_what_is_waited_for_does_not_last_longer(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        endless, mine = await runs(broker, EVE, "1/2", None), await runs(broker, ADA, "1/2")
        free = await runs(broker, ADA, "")
        await waits(broker, BOB)
        with pytest.raises(Conflict, match="cannot go on for longer: a request waits for what it holds"):
            await extend(broker, mine, 1)
        await extend(broker, free, 1)  # holds no part of a device
        with pytest.raises(Conflict, match="It has no end"):
            await extend(broker, endless, 1)


async def test_no_longer_than_group_person_and_project_allow(a_broker: OpenBroker) -> None:
    group = replace(SETTINGS.groups[0], max_duration_s=5 * 3600)
    settings = replace(
        SETTINGS,
        groups=(group,),
        users={"ada": policy.Policy("ada", max_duration_s=4 * 3600)},
        projects={"vision": policy.Policy("vision", max_duration_s=3 * 3600)},
    )
    async with a_broker(settings=settings) as broker:
        for person, project, sentence in (
            (BOB, "", "at most 3 h more: Default allows sessions of at most 5 h in all"),
            (ADA, "", "at most 2 h more: your policy or project allows sessions of at most 4 h in all"),
            (ADA, "vision", "at most 1 h more: your policy or project allows sessions of at most 3 h in all"),
        ):
            one = await runs(broker, person, "", project=project)
            with pytest.raises(Conflict, match=sentence):
                await extend(broker, one, 4)


async def test_who_waits_for_the_project_is_not_kept_waiting(a_broker: OpenBroker) -> None:
    vision = policy.Policy("vision", policy.Limits(running={"sessions": Fraction(2)}))
    settings = replace(SETTINGS, projects={"vision": vision})
    async with a_broker(settings=settings) as broker:
        first = await runs(broker, ADA, "", 1, "vision")
        second = await runs(broker, ADA, "", 2, "vision")
        await waits(broker, BOB, "", project="vision")
        await extend(broker, second, 1)
        with pytest.raises(Conflict, match="somebody of the same project waits until one of its sessions"):
            await extend(broker, first, 2)


async def test_what_does_not_run_or_is_no_time_is_refused(a_broker: OpenBroker) -> None:
    async with a_broker() as broker:
        mine = await runs(broker, ADA)
        other = await waits(broker, BOB)
        with pytest.raises(Conflict, match="does not run"):
            await extend(broker, other, 1)
        for by in (0, -1, 0.001):
            with pytest.raises(InvalidOptions):
                await extend(broker, mine, by)
