"""`AsyncClient`: the service's public REST, one method per thing it can do."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import date, datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from jupyterhub_bkai.client import sse
from jupyterhub_bkai.client.errors import BkaiError, Refused, ServerProblem, Unreachable
from jupyterhub_bkai.client.nouns import (
    Check,
    Closed,
    Info,
    Json,
    Me,
    Node,
    Options,
    Queue,
    Session,
    Transition,
    decode,
)
from jupyterhub_bkai.client.wire import Wire, lines

T = TypeVar("T")


class AsyncClient:
    """Asks for, watches and ends sessions, under the rights of one token.

    `url` is the hub's address (or that of any of its pages), `token` a token of a user or a service. Every
    failure is a `BkaiError`. Use it as an async context manager, or call `close`.
    """

    def __init__(self, url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.wire = Wire(url, token, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self.wire.close()

    # -- the service and the caller -----------------------------------------------------------

    async def info(self) -> Info:
        """The service's version and what kind of machine this is."""
        return _as(Info, await self._get("/info"))

    async def me(self) -> Me:
        """Whom the token belongs to."""
        return _as(Me, await self._get("/me"))

    async def openapi(self) -> Json:
        """The description of the whole REST interface."""
        return _as(dict[str, Any], await self._get("/openapi.json"))

    # -- asking -------------------------------------------------------------------------------

    async def options(self) -> Options:
        """The fields a request has, and what is on offer to the caller just now."""
        return _as(Options, await self._get("/options"))

    async def check(self, options: Mapping[str, object] | None = None, /, **more: object) -> Check:
        """What the service would say to these options; changes nothing."""
        return _as(Check, await self._post("/sessions/check", {"options": _plain(options, more)}))

    async def create(
        self,
        options: Mapping[str, object] | None = None,
        /,
        *,
        keepalive_s: int | None = None,
        **more: object,
    ) -> tuple[Session, ...]:
        """Ask for a session (several with `count=`): `create(version="sklearn/1.7", fgpu="0.5")`.

        With `keepalive_s` the service ends the sessions when `keepalive` is not called for that long.
        """
        body: dict[str, object] = {"options": _plain(options, more)}
        if keepalive_s is not None:
            body["keepalive_s"] = keepalive_s
        return _items(Session, await self._post("/sessions", body), "sessions")

    # -- sessions -----------------------------------------------------------------------------

    async def sessions(
        self, *, all: bool = False, states: Iterable[str] = (), user: str | None = None
    ) -> tuple[Session, ...]:
        """The caller's sessions, live ones first; everybody's with `all`, for administrators."""
        query = {"all": "1" if all else None, "state": ",".join(states) or None, "user": user}
        return _items(Session, await self._get("/sessions", **query), "sessions")

    async def session(self, id: str) -> Session:
        """One session by its id."""
        return _as(Session, await self._get(_path(id)))

    async def stop(self, id: str, *, exit_code: int | None = None, recursive: bool = False) -> Session:
        """End a running session, or withdraw a waiting one; with `recursive` also those that wait for its end.

        With `exit_code` it is said to have ended by itself: what it was for is done.
        """
        more: dict[str, Any] = {} if exit_code is None else {"json": {"exit_code": exit_code}}
        if recursive:
            more["params"] = {"recursive": "1"}
        return _as(Session, await self.wire.json("DELETE", self.wire.api(_path(id)), **more))

    # -- rules, for administrators ------------------------------------------------------------

    async def rules(self) -> Json:
        """Groups, policies and presets, with their `revision`."""
        return _as(dict[str, Any], await self._get("/rules"))

    async def rules_yaml(self) -> str:
        """The same as they would stand in the settings file."""
        response = await self.wire.send("GET", self.wire.api("/rules"), params={"format": "yaml"})
        return response.text

    async def change_rules(
        self,
        rules: Mapping[str, Mapping[str, object]] | None = None,
        *,
        text: str | None = None,
        prune: bool = False,
        revision: str | None = None,
        only_check: bool = False,
    ) -> Json:
        """Put rules, or remove those that are None; or those of a `text` in YAML. With `only_check` only say what would
        change, and who would start.
        """
        body = {
            "rules": rules or {},
            "text": text,
            "prune": prune,
            "revision": revision,
            "only_check": only_check,
        }
        return _as(dict[str, Any], await self.wire.json("PUT", self.wire.api("/rules"), json=body))

    async def offers(self, id: str) -> tuple[Json, ...]:
        """Changes with which a waiting session would start at once, each the smallest of its kind: `text` says it, and
        `options` is what `take` is given.
        """
        found = await self._get(_path(id, "offers"))
        return tuple(_as(dict[str, Any], offer) for offer in found["offers"])

    async def take(self, id: str, options: Mapping[str, str]) -> Session:
        """Have a waiting session ask for what was offered; it keeps its place."""
        return _as(Session, await self._post(_path(id, "offers"), {"options": dict(options)}))

    async def keepalive(self, id: str) -> None:
        """Say that a session created with `keepalive_s` is still wanted."""
        await self.wire.send("POST", self.wire.api(_path(id, "keepalive")))

    async def extend(self, id: str, by: str) -> Session:
        """Give a running session more time, such as "2h". Raises `Refused` with the most there could be."""
        return _as(Session, await self._post(_path(id, "extend"), {"by": by}))

    async def transitions(self, id: str) -> tuple[Transition, ...]:
        """Every step of a session's life: when, from what to what, by whom and why."""
        return _items(Transition, await self._get(_path(id, "transitions")), "transitions")

    async def logs(self, id: str, *, tail: int | None = None) -> str:
        """What the session's server has written; the last `tail` lines of it, if given."""
        query = {} if tail is None else {"tail": str(tail)}
        response = await self.wire.send("GET", self.wire.api(_path(id, "logs")), params=query)
        return response.text

    async def wait(self, id: str) -> Session:
        """The session once it runs. Raises `Refused` when it ends instead."""
        async with aclosing(self.events(id)) as events:
            async for session in events:
                if session.state == "RUNNING":
                    return session
                if session.over:
                    raise Refused(session.message or f"The session is {session.state}.", reason="ended")
        raise ServerProblem("The service stopped telling about the session.")

    async def events(self, id: str | None = None, *, patience: float = 300) -> AsyncGenerator[Session, None]:
        """A session each time something about it changes, its present state first; ends when it has ended.

        Without `id`: every session the caller may see, for ever. A broken stream is taken up again; only
        after `patience` seconds without an answer does it raise `Unreachable`.
        """
        url = self.wire.api(_path(id, "events") if id else "/events")
        clock = asyncio.get_running_loop().time
        told: dict[str, Json] = {}
        lost: float | None = None
        pause = 0.25
        while True:
            try:
                async with aclosing(self._stream(url)) as stream:
                    async for session in stream:
                        lost, pause = None, 0.25
                        if session and told.get(session.id) != session.raw:
                            told[session.id] = session.raw
                            yield session
                        if session and id and session.over:
                            return
            except Unreachable:
                lost = lost or clock()
                if clock() - lost > patience:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)

    async def _stream(self, url: str) -> AsyncGenerator[Session | None, None]:
        """The sessions of one connection; None when it stands, since there may be no session to tell of."""
        async with self.wire.stream("GET", url, headers={"Accept": "text/event-stream"}) as response:
            yield None
            reader = sse.Reader()
            async with aclosing(lines(response)) as rows:
                async for line in rows:
                    event = reader.take(line)
                    if event and event.kind == "session":
                        yield _as(Session, _loads(event.data))

    # -- the machine --------------------------------------------------------------------------

    async def devices(self) -> tuple[Node, ...]:
        """Each machine with its processors, memory and accelerators, and what is booked on them."""
        return _items(Node, await self._get("/devices"), "nodes")

    async def queue(self) -> tuple[Queue, ...]:
        """Who waits, per resource group, in order, and what for."""
        return _items(Queue, await self._get("/queue"), "groups")

    # -- for administrators -------------------------------------------------------------------

    async def drain_node(self, name: str, why: str) -> Closed:
        """Start nothing new on a machine; what runs there goes on, and who waits reads `why`."""
        return await self._close(_path(name, "drain", under="nodes"), why)

    async def undrain_node(self, name: str) -> None:
        """Let a machine take sessions again."""
        await self.wire.send("DELETE", self.wire.api(_path(name, "drain", under="nodes")))

    async def drain_device(self, id: str, why: str) -> Closed:
        """Start nothing new on a device; who holds a part of it goes on."""
        return await self._close(_path(id, "drain", under="devices"), why)

    async def undrain_device(self, id: str) -> None:
        """Let a device be given out again."""
        await self.wire.send("DELETE", self.wire.api(_path(id, "drain", under="devices")))

    async def hold_group(self, name: str, why: str) -> Closed:
        """Start nothing new in a resource group; people can go on asking, and wait."""
        return await self._close(_path(name, "hold", under="groups"), why)

    async def release_group(self, name: str) -> None:
        """Let those who wait in a group start again."""
        await self.wire.send("DELETE", self.wire.api(_path(name, "hold", under="groups")))

    async def prioritise(self, id: str, priority: int) -> Session:
        """Give a waiting session another priority, 0 to 100; a higher one is served first."""
        url = self.wire.api(_path(id, "priority"))
        return _as(Session, await self.wire.json("PUT", url, json={"priority": priority}))

    async def _close(self, path: str, why: str) -> Closed:
        return _as(Closed, await self._post(path, {"why": why}))

    async def usage(
        self, by: str = "user", *, since: date | datetime | None = None, until: date | datetime | None = None
    ) -> Json:
        """What was booked and used, summed per "user", "image" or "day"."""
        return _as(dict[str, Any], await self._get("/usage", **_period(by, since, until)))

    async def usage_csv(
        self, by: str = "user", *, since: date | datetime | None = None, until: date | datetime | None = None
    ) -> str:
        """The same as `usage`, as comma-separated values."""
        query = {**_period(by, since, until), "format": "csv"}
        return (await self.wire.send("GET", self.wire.api("/usage"), params=query)).text

    async def usage_trace(
        self,
        *,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        anonymous: bool = False,
    ) -> str:
        """What was asked for in a period, as CSV that `bkai simulate` reads; for administrators."""
        query = _period(None, since, until)
        query |= {"anonymous": "1"} if anonymous else {}
        return (await self.wire.send("GET", self.wire.api("/usage/trace"), params=query)).text

    async def _get(self, path: str, **query: str | None) -> Any:
        given = {key: value for key, value in query.items() if value is not None}
        return await self.wire.json("GET", self.wire.api(path), params=given)

    async def _post(self, path: str, body: object) -> Any:
        return await self.wire.json("POST", self.wire.api(path), json=body)


def _path(id: str, *more: str, under: str = "sessions") -> str:
    if not id or id in (".", ".."):
        raise BkaiError(
            "A session id is needed here." if under == "sessions" else "A name is needed here.",
            reason="bad-id",
        )
    return "/".join([f"/{under}", quote(id, safe=""), *more])


def _period(by: str | None, since: date | None, until: date | None) -> dict[str, str]:
    query = {"by": by} if by is not None else {}
    if since is not None:
        query["from"] = since.isoformat()
    if until is not None:
        query["to"] = until.isoformat()
    return query


def _plain(options: Mapping[str, object] | None, more: Mapping[str, object]) -> dict[str, object]:
    """Options as the service reads them: amounts as text, so that none is bent by binary fractions."""
    given = {**(options or {}), **more}
    return {key: _value(value) for key, value in given.items() if value is not None}


def _value(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return str(value)


def _loads(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ServerProblem("The service sent an event that is not JSON.") from error


def _as(kind: type[T], value: object) -> T:
    try:
        return decode(kind, value)
    except ValueError as error:
        raise ServerProblem(f"The service's answer cannot be understood: {error}.") from error


def _items(kind: type[T], value: object, key: str) -> tuple[T, ...]:
    rows = value.get(key) if isinstance(value, dict) else None
    return _as(tuple[kind, ...], rows)  # type: ignore[valid-type]  # built at run time from the argument
