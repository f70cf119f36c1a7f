"""What the loop asks of a Hub: at most a few starts at once, however many sessions one call asked for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest_asyncio
from tornado import httpserver, netutil, web

from jupyterhub_bkai import settings
from jupyterhub_bkai.fences.memory import MemoryGauge
from jupyterhub_bkai.fences.process import ProcessFence
from jupyterhub_bkai.hub import Hub
from jupyterhub_bkai.leasing.reconcile import STARTS, Reconciler
from tests.leasing.conftest import ADA, OpenBroker, asked


class SlowHub(web.RequestHandler):
    """Knows ada, and takes a moment for each start, as the Hub does."""

    now, most = 0, 0
    started: list[str] = []

    def get(self, path: str) -> None:
        self.finish({"name": "ada", "admin": False, "groups": [], "servers": {}})

    async def post(self, path: str) -> None:
        hub = type(self)
        hub.now += 1
        hub.most = max(hub.most, hub.now)
        await asyncio.sleep(0.02)
        hub.now -= 1
        hub.started.append(path.rsplit("/", 1)[-1])
        self.set_status(202)


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    [listening] = netutil.bind_sockets(0, "127.0.0.1")
    server = httpserver.HTTPServer(web.Application([("/hub/api/(.*)", SlowHub)], log_function=lambda _: None))
    server.add_socket(listening)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/hub/api"
    server.stop()


async def test_many_sessions_are_started_a_few_at_a_time(a_broker: OpenBroker, address: str) -> None:
    SlowHub.most, SlowHub.started = 0, []
    hub, fence = Hub(address, "token"), ProcessFence(None)
    async with a_broker() as broker:
        loop = Reconciler(broker, hub, fence, MemoryGauge(fence), lambda: 1_700_000_000_000)
        await broker.ask(ADA, "a", asked("", count=30))
        running = asyncio.create_task(loop.run())
        async with asyncio.timeout(20):
            while len(set(SlowHub.started)) < 30:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    await hub.close()
    assert SlowHub.most == STARTS
    assert len(set(SlowHub.started)) == 30


def test_a_new_site_has_limits() -> None:
    [group] = settings.load(settings.DEFAULT_SETTINGS).groups
    assert group.limits.total == {"sessions": 20}
    assert group.limits.pending == {"sessions": 10}
