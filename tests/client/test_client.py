"""The clients against the shipped fake, over real HTTP and without a network."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import aclosing
from fractions import Fraction

import pytest

from jupyterhub_bkai.client import (
    AsyncClient,
    BkaiError,
    Client,
    FakeService,
    NotLoggedIn,
    Refused,
    Unreachable,
    current_session,
)

Pair = tuple[FakeService, AsyncClient]


@pytest.fixture(params=["http", "transport"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with FakeService(gpus=2) as service:
        transport = service.transport() if request.param == "transport" else None
        async with AsyncClient(service.url, service.token, transport=transport) as client:
            yield service, client


async def test_three_sessions_on_two_gpus(pair: Pair) -> None:
    service, client = pair
    one, two, three = await client.create(version="sklearn/1.7", fgpu=1, count=3)
    assert [s.state for s in (one, two, three)] == ["RUNNING", "RUNNING", "PENDING"]
    assert three.position == 1
    assert three.why == "needs 1 fGPU, 0 are free"
    assert one.fgpu == Fraction(1)
    waiter = asyncio.create_task(client.wait(three.id))
    await client.stop(one.id)
    assert (await asyncio.wait_for(waiter, 5)).state == "RUNNING"
    assert [(s.id, s.over) for s in await client.sessions()] == [
        (two.id, False),
        (three.id, False),
        (one.id, True),
    ]
    assert [s.id for s in await client.sessions(states=["TERMINATED"])] == [one.id]
    assert [t.to for t in await client.transitions(one.id)] == ["PENDING", "RUNNING", "TERMINATED"]
    assert service.sessions[one.id]["ended"]


async def test_the_rest_of_the_interface(pair: Pair) -> None:
    service, client = pair
    assert (await client.info()).fake_devices
    assert (await client.me()).name == "alice"
    assert (await client.options()).offer["images"][0]["version"] == "sklearn/1.7"
    assert (await client.check(version="nope/1")).errors == {
        "version": "Image version: there is no “nope/1”."
    }
    outlook = (await client.check()).outlook
    assert outlook is not None
    assert outlook.starts == "now"
    (session,) = await client.create(fgpu="0.5", name="mine", keepalive_s=60)
    await client.keepalive(session.id)
    assert service.asked[-1] == (
        "POST",
        f"/services/bkai/api/v1/sessions/{session.id}/keepalive",
    )
    (node,) = await client.devices()
    assert [d.share_free for d in node.devices] == [Fraction(1, 2), Fraction(1)]
    assert (await client.logs(session.id, tail=5)) == "the session started\n"
    (queue,) = await client.queue()
    assert queue.waiting == ()
    assert (await client.usage("user"))["rows"]
    assert (await client.usage_csv("user")).splitlines()[0] == "key,sessions,seconds,gpu_hours"
    assert (await client.openapi())["openapi"] == "3.1.0"


async def test_a_refusal_carries_its_fields(pair: Pair) -> None:
    _, client = pair
    with pytest.raises(Refused) as caught:
        await client.create(version="nope/1", fgpu="nan")
    assert caught.value.reason == "invalid-options"
    assert set(caught.value.fields) == {"version", "fgpu"}
    with pytest.raises(Refused) as caught:
        await client.session("not/here")
    assert caught.value.reason == "not-found"


async def test_wait_says_why_a_session_never_ran(pair: Pair) -> None:
    _, client = pair
    _, waiting = await client.create(fgpu=2, count=2)
    waiter = asyncio.create_task(client.wait(waiting.id))
    await client.stop(waiting.id)
    with pytest.raises(Refused, match="CANCELLED"):
        await asyncio.wait_for(waiter, 5)


async def test_a_wrong_token_is_not_logged_in() -> None:
    async with FakeService() as service, AsyncClient(service.url, "other") as client:
        with pytest.raises(NotLoggedIn):
            await client.me()


@pytest.mark.parametrize("token", ["", "two words", "läufer", "line\nbreak"])
def test_an_impossible_token_is_not_sent(token: str) -> None:
    with pytest.raises(NotLoggedIn):
        AsyncClient("http://127.0.0.1:1", token)


async def test_nothing_there_is_unreachable() -> None:
    async with AsyncClient("http://127.0.0.1:1", "t") as client:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
            await client.me()


async def test_events_survive_a_restart_of_the_service() -> None:
    first = FakeService().start()
    port = int(first.url.rpartition(":")[2])
    async with AsyncClient(first.url, first.token) as client:
        (session,) = await client.create()
        events = client.events(session.id, patience=30)
        assert (await anext(events)).state == "RUNNING"
        first.close()
        second = FakeService(sessions=first.sessions, port=port, history=first.history).start()
        try:
            second.stop(session.id)
            assert (await asyncio.wait_for(anext(events), 10)).state == "TERMINATED"
            with pytest.raises(StopAsyncIteration):
                await anext(events)
        finally:
            second.close()


async def test_patience_begins_when_the_connection_is_lost() -> None:
    """A session about which nothing changes for long is no reason to give up at the first hitch."""
    first = FakeService().start()
    port = int(first.url.rpartition(":")[2])
    async with AsyncClient(first.url, first.token) as client:
        (session,) = await client.create()
        async with aclosing(client.events(session.id, patience=1)) as events:
            await anext(events)
            waiting = asyncio.ensure_future(anext(events))
            assert not (await asyncio.wait([waiting], timeout=1.5))[0]
            first.close()
            assert not (await asyncio.wait([waiting], timeout=0.3))[0]
            second = FakeService(sessions=first.sessions, port=port, history=first.history).start()
            try:
                second.stop(session.id)
                assert (await asyncio.wait_for(waiting, 10)).state == "TERMINATED"
            finally:
                second.close()


async def test_events_give_up_in_the_end() -> None:
    first = FakeService().start()
    async with AsyncClient(first.url, first.token) as client:
        (session,) = await client.create()
        events = client.events(session.id, patience=0.5)
        await anext(events)
        first.close()
        with pytest.raises(Unreachable):
            await asyncio.wait_for(anext(events), 10)


# -- the façade -------------------------------------------------------------------------------


def test_every_method_has_its_synchronous_face() -> None:
    public = {
        name
        for name, method in inspect.getmembers(AsyncClient, inspect.isfunction)
        if not name.startswith("_")
    }
    assert {name for name in public if not hasattr(Client, name)} == set()
    assert inspect.signature(Client.session).parameters.keys() == {"self", "id"}


def test_client_in_plain_code() -> None:
    with FakeService(gpus=1) as service, Client(service.url, service.token) as client:
        one, two = client.create(fgpu=1, count=2)
        events = client.events(two.id)
        assert next(events).state == "PENDING"
        client.stop(one.id)
        assert client.wait(two.id).state == "RUNNING"
        events.close()
        with pytest.raises(Refused):
            client.session("nope")


async def test_client_inside_a_running_loop() -> None:
    with FakeService() as service, Client(service.url, service.token) as client:
        assert client.me().name == "alice"


def test_current_session() -> None:
    with FakeService() as service, Client(service.url, service.token) as client:
        (made,) = client.create(fgpu="0.5")
        variables = {
            "BKAI_LEASE_ID": made.id,
            "BKAI_SERVICE_URL": f"{service.url}/services/bkai",
            "JUPYTERHUB_API_TOKEN": service.token,
        }
        assert current_session(variables) == client.session(made.id)


def test_current_session_elsewhere() -> None:
    with pytest.raises(BkaiError, match="BKAI_LEASE_ID, BKAI_SERVICE_URL, JUPYTERHUB_API_TOKEN is not set"):
        current_session({})
