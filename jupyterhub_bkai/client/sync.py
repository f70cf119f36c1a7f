"""`Client`: `AsyncClient` for code that is not asynchronous. Works in notebooks too.

Each line of the class takes one method of `AsyncClient` and lets it run on the loop of a private thread.
"""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import httpx

from jupyterhub_bkai.client.asynchronous import AsyncClient

P = ParamSpec("P")
R = TypeVar("R")


class _Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bkai-client", daemon=True)
        self._thread.start()

    def result(self, work: Coroutine[Any, Any, R]) -> R:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C here: do not leave the request running behind our back
            raise

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]],
) -> "Callable[Concatenate[Client, P], R]":
    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.result(method(self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[R, None]],
) -> "Callable[Concatenate[Client, P], Generator[R, None, None]]":
    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        stream = method(self._client, *args, **kwargs)
        end = object()

        async def step() -> R | object:
            return await anext(stream, end)

        try:
            while (item := self._loop.result(step())) is not end:
                yield cast(R, item)
        finally:
            self._loop.result(stream.aclose())

    return call


class Client:
    """Asks for, watches and ends sessions, under the rights of one token. See `AsyncClient`."""

    def __init__(self, url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = AsyncClient(url, token, transport=transport)
        self._loop = _Loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections and of the thread."""
        self._loop.result(self._client.close())
        self._loop.close()

    info = _blocking(AsyncClient.info)
    me = _blocking(AsyncClient.me)
    openapi = _blocking(AsyncClient.openapi)
    options = _blocking(AsyncClient.options)
    check = _blocking(AsyncClient.check)
    create = _blocking(AsyncClient.create)
    sessions = _blocking(AsyncClient.sessions)
    session = _blocking(AsyncClient.session)
    stop = _blocking(AsyncClient.stop)
    extend = _blocking(AsyncClient.extend)
    offers = _blocking(AsyncClient.offers)
    take = _blocking(AsyncClient.take)
    keepalive = _blocking(AsyncClient.keepalive)
    transitions = _blocking(AsyncClient.transitions)
    logs = _blocking(AsyncClient.logs)
    wait = _blocking(AsyncClient.wait)
    events = _iterating(AsyncClient.events)
    devices = _blocking(AsyncClient.devices)
    queue = _blocking(AsyncClient.queue)
    rules = _blocking(AsyncClient.rules)
    rules_yaml = _blocking(AsyncClient.rules_yaml)
    change_rules = _blocking(AsyncClient.change_rules)
    drain_node = _blocking(AsyncClient.drain_node)
    undrain_node = _blocking(AsyncClient.undrain_node)
    drain_device = _blocking(AsyncClient.drain_device)
    undrain_device = _blocking(AsyncClient.undrain_device)
    hold_group = _blocking(AsyncClient.hold_group)
    release_group = _blocking(AsyncClient.release_group)
    prioritise = _blocking(AsyncClient.prioritise)
    usage = _blocking(AsyncClient.usage)
    usage_csv = _blocking(AsyncClient.usage_csv)
    usage_trace = _blocking(AsyncClient.usage_trace)
