"""The hub's line to the service, against a real socket: events, refusals, broken streams; and what is owed."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from bkaispawner.outbox import Outbox
from bkaispawner.progress import Story

from jupyterhub_bkai.client.trusted import (
    BrokenStream,
    Denied,
    Granted,
    Lease,
    Misunderstood,
    Preparing,
    Pulling,
    Queued,
    TrustedClient,
)
from jupyterhub_bkai.errors import Conflict, Unavailable
from tests.spawner.fake_service import FakeService


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    with tempfile.TemporaryDirectory(prefix="bkai-test-") as folder:
        service = FakeService(Path(folder) / "hub.sock")
        await service.start()
        yield service
        await service.stop()


@pytest.fixture
async def client(service: FakeService) -> AsyncIterator[TrustedClient]:
    client = TrustedClient(str(service.socket))
    yield client
    await client.close()


async def test_the_events_of_a_start(service: FakeService, client: TrustedClient) -> None:
    service.capacity = 0
    service.pulling = [(None, "a"), (50, "b")]
    service.folders = [{"name": "data", "path": "/data", "mode": "ro", "new": "field"}]
    seen = []
    async for event in client.acquire("ada", "s", ["g"], True, {"cpu": "1"}):
        seen.append(event)
        service.capacity = 1
        await service.tell_all()
    *before, last = seen
    assert [type(event) for event in before] == [Queued, Preparing, Pulling, Pulling]
    assert isinstance(last, Granted)
    assert isinstance(last.lease, Lease)
    assert (last.lease.user, last.lease.server, last.lease.folders[0].mode) == ("ada", "s", "ro")
    assert service.heard("acquire")[0]["groups"] == ["g"]


async def test_a_refusal_keeps_its_words(service: FakeService, client: TrustedClient) -> None:
    service.refuse = lambda options: (403, "policy", "No.", {"gpu": "Too much."})
    with pytest.raises(Denied) as caught:
        await anext(client.acquire("ada", "", [], False, {}))
    error = caught.value
    assert (error.status, error.reason, error.message, error.fields) == (
        403,
        "policy",
        "No.",
        {"gpu": "Too much."},
    )


async def test_a_busy_service_is_one_to_try_again(service: FakeService, client: TrustedClient) -> None:
    service.refuse = lambda options: (503, "unavailable", "Starting.", {})
    with pytest.raises(Unavailable, match=r"Starting\."):
        await anext(client.acquire("ada", "", [], False, {}))


async def test_a_service_that_goes_away_breaks_the_stream(
    service: FakeService, client: TrustedClient
) -> None:
    service.capacity = 0
    events = client.acquire("ada", "", [], False, {})
    assert isinstance(await anext(events), Queued)
    await service.stop()
    with pytest.raises(BrokenStream):
        await anext(events)
    with pytest.raises(Unavailable):
        await client.ready("0" * 26)


async def test_leaving_a_stream_closes_it(service: FakeService, client: TrustedClient) -> None:
    service.capacity = 0
    async with aclosing(client.acquire("ada", "", [], False, {})) as events:
        await anext(events)
        assert service.live[0].viewers == 1
    async with asyncio.timeout(5), service.changed:
        await service.changed.wait_for(lambda: service.live[0].viewers == 0)


async def test_there_may_be_any_number_of_waiting_starts(service: FakeService, client: TrustedClient) -> None:
    """Each holds a connection open, and the HTTP library's own limit is 100."""
    service.capacity = 0
    streams = [client.acquire("ada", f"s{number}", [], False, {}) for number in range(130)]
    async with asyncio.timeout(30):
        first = await asyncio.gather(*(anext(stream) for stream in streams))
        await client.withdraw("ada", "nothing")
    assert all(isinstance(event, Queued) for event in first)
    await asyncio.gather(*(stream.aclose() for stream in streams))


async def test_calls_that_concern_nothing_live(client: TrustedClient) -> None:
    await client.release("0" * 26, "stopped")
    await client.withdraw("ada", "")
    with pytest.raises(Denied) as caught:
        await client.started("0" * 26, {})
    assert caught.value.status == 404


async def test_an_answer_of_another_kind(service: FakeService, client: TrustedClient) -> None:
    service.refuse = lambda options: (500, "x", "y", {})
    with pytest.raises(Misunderstood):
        await anext(client.acquire("ada", "", [], False, {}))
    assert await client.check("ada", [], False, {}) == {
        "errors": {},
        "outlook": {"starts": "now", "message": "Now."},
    }
    assert "offer" in await client.choices("ada", [], False)


# -- what is owed ------------------------------------------------------------------------------


async def test_messages_wait_for_the_service_and_keep_their_order() -> None:
    outbox, heard, away = Outbox(), [], True

    def call(what: str):  # type: ignore[no-untyped-def]
        async def attempt() -> None:
            if away:
                raise Unavailable("away")
            heard.append(what)

        return attempt

    for what in ("started", "ready", "release"):
        outbox.put(("ada", ""), what, call(what))
    outbox.put(("bob", ""), "withdraw", call("withdraw"))
    assert not await outbox.settled(("ada", ""), 0.05)
    away = False
    assert await outbox.settled(("ada", ""), 5)
    assert await outbox.settled(("bob", ""), 5)
    assert [what for what in heard if what != "withdraw"] == ["started", "ready", "release"]
    assert await outbox.settled(("nobody", ""), 0)


async def test_a_message_that_is_refused_holds_up_nothing() -> None:
    outbox, heard = Outbox(), []

    async def refused() -> None:
        raise Conflict("no")

    async def fine() -> None:
        heard.append("fine")

    outbox.put(("ada", ""), "started", refused)
    outbox.put(("ada", ""), "release", fine)
    assert await outbox.settled(("ada", ""), 5)
    assert heard == ["fine"]


async def test_a_story_is_replayed_and_goes_on() -> None:
    story = Story()
    story.say("waiting", 5, "Number 2.")
    story.say("waiting", 5, "Number 1.")
    story.say("waiting", 5, "Number 1.")
    story.say("launch", 75, "Starting.")
    view = story.view()
    assert [(await anext(view))["message"] for _ in range(2)] == ["Number 1.", "Starting."]
    later = asyncio.create_task(anext(view))
    await asyncio.sleep(0)
    story.say("answering", 95, "There.")
    assert (await later)["message"] == "There."
    await view.aclose()
