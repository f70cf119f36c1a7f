"""A small service that speaks the trusted API over a Unix socket: leases from a counter, no policy, no database.

It keeps requests and leases as the real one does (a request outlives its stream, a second acquire attaches to it,
release and withdraw are idempotent), so that what a spawner must survive can be made to happen here.
"""

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado import httpserver, netutil, web
from tornado.iostream import StreamClosedError

from jupyterhub_bkai import names

Refusal = tuple[int, str, str, dict[str, str]]


@dataclass
class Wanted:
    """One request, later a lease: what a live record is in the real service."""

    id: str
    user: str
    server: str
    options: dict[str, Any]
    person: dict[str, Any]
    state: str = "QUEUED"
    viewers: int = 0


@dataclass
class FakeService:
    """Grants as many leases as `capacity` says, in the order they were asked for."""

    socket: Path
    capacity: int = 100
    python: str = sys.executable
    env: str = sys.prefix
    environment: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    folders: list[dict[str, str]] = field(default_factory=list)
    #: what the service says to options it does not like
    refuse: Callable[[dict[str, Any]], Refusal | None] = lambda options: None
    #: messages told as the progress of making the image version, before a grant
    pulling: list[tuple[int | None, str]] = field(default_factory=list)
    #: nothing at all is answered while this is set
    deaf: bool = False

    def __post_init__(self) -> None:
        self.live: list[Wanted] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.changed = asyncio.Condition()
        self._server: httpserver.HTTPServer | None = None

    # -- running -----------------------------------------------------------------------------

    async def forget(self) -> None:
        """As at the very start, but where it is."""
        fresh = FakeService(self.socket)
        for name in ("capacity", "environment", "variables", "folders", "refuse", "pulling", "deaf"):
            setattr(self, name, getattr(fresh, name))
        self.live.clear()
        self.calls.clear()
        if not self.running:
            await self.start()

    async def start(self) -> None:
        """Listen, as after a restart: requests and leases are still known."""
        lease = "/trusted/v1/leases/([0-9a-z]{26})/(started|ready|release)"
        routes = [("/trusted/v1/acquire", _Acquire), (lease, _Lease), ("/trusted/v1/(.*)", _Call)]
        application = web.Application(
            [(path, handler, {"service": self}) for path, handler in routes],
            log_function=lambda handler: None,
        )
        self._server = httpserver.HTTPServer(application)
        self._server.add_socket(netutil.bind_unix_socket(str(self.socket), mode=0o600))

    async def stop(self) -> None:
        """Gone, with all connections, as after a kill."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            os.unlink(self.socket)
            await self.tell_all()
            await server.close_all_connections()

    @property
    def running(self) -> bool:
        return self._server is not None

    async def tell_all(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    # -- the books ---------------------------------------------------------------------------

    def find(self, user: str, server: str) -> Wanted | None:
        return next((one for one in self.live if (one.user, one.server) == (user, server)), None)

    def attach(self, body: dict[str, Any]) -> Wanted:
        found = self.find(body["user"], body["server"])
        if found is None:
            entropy = secrets.token_bytes(10)
            lease_id = names.lease_id(int(time.time() * 1000), entropy)
            found = Wanted(lease_id, body["user"], body["server"], body["options"], body)
            self.live.append(found)
        return found

    def standing(self, one: Wanted) -> int:
        """0 for one that may start, else its place in the queue."""
        return max(0, self.live.index(one) + 1 - self.capacity)

    async def end(self, one: Wanted) -> None:
        if one in self.live:
            self.live.remove(one)
            await self.tell_all()

    def lease(self, one: Wanted) -> dict[str, Any]:
        return {
            "id": one.id,
            "user": one.user,
            "server": one.server,
            "image": one.options.get("version", "plain/1"),
            "python": self.python,
            "env": self.env,
            "node": "local",
            "cpu_milli": 1000,
            "memory_mib": 2048,
            "shm_mib": 64,
            "slices": [],
            "environment": self.environment | one.options.get("environment", {}),
            "variables": {"BKAI_LEASE_ID": one.id, "BKAI_SESSION_IMAGE": "plain/1"} | self.variables,
            "folders": self.folders,
            "deadline": None,
            "session_type": "interactive",
            "fake": True,
            "of a newer service": True,
        }

    # -- for tests ---------------------------------------------------------------------------

    def lease_of(self, user: str, server: str = "") -> str:
        found = self.find(user, server)
        assert found
        return found.id

    def heard(self, name: str) -> list[dict[str, Any]]:
        """The bodies of all calls of that name so far."""
        return [body for called, body in self.calls if called == name]

    async def hears(self, name: str, times: int = 1, within_s: float = 15) -> dict[str, Any]:
        """Wait until a call of that name has come so often; the last one's body."""
        async with asyncio.timeout(within_s), self.changed:
            await self.changed.wait_for(lambda: len(self.heard(name)) >= times)
        return self.heard(name)[-1]

    async def note(self, name: str, body: dict[str, Any]) -> None:
        self.calls.append((name, body))
        await self.tell_all()


class _Base(web.RequestHandler):
    def initialize(self, service: FakeService) -> None:
        self.service = service

    async def prepare(self) -> None:
        while self.service.deaf:  # noqa: ASYNC110 - it may be set and cleared at any moment
            await asyncio.sleep(0.05)
        self.body: dict[str, Any] = json.loads(self.request.body)

    def refuse(self, status: int, reason: str, message: str, fields: dict[str, str]) -> None:
        self.set_status(status)
        self.finish({"error": {"reason": reason, "message": message, "fields": fields}})


class _Acquire(_Base):
    async def post(self) -> None:
        service = self.service
        await service.note("acquire", self.body)
        if refusal := service.refuse(self.body["options"]):
            self.refuse(*refusal)
            return
        one = service.attach(self.body)
        self.set_header("Content-Type", "application/x-ndjson")
        one.viewers += 1
        try:
            await self._relate(one)
        except StreamClosedError:
            pass
        finally:
            one.viewers -= 1
            await service.tell_all()

    async def _relate(self, one: Wanted) -> None:
        service = self.service
        while one in service.live and (position := service.standing(one)):
            why = f"{service.capacity} of {service.capacity} sessions are running."
            await self._say(
                event="queued",
                request=one.id,
                position=position,
                why=why,
                message=f"Number {position}. {why}",
            )
            before = position
            while service.running and one in service.live and service.standing(one) == before:
                async with service.changed:
                    try:
                        await asyncio.wait_for(service.changed.wait(), 0.3)
                    except TimeoutError:
                        self.write("\n")
                        await self.flush()
            if not service.running:
                return
        if one not in service.live:
            await self._say(
                event="ended", state="CANCELLED", reason="cancelled", message="The request was cancelled."
            )
            return
        await self._say(event="preparing", message="You have your slice.")
        for percent, message in service.pulling:
            await self._say(event="pulling", percent=percent, message=message)
            await asyncio.sleep(0.05)
        await self._say(event="something new", message="ignore me")
        one.state = "PREPARING"
        await self._say(event="granted", lease=service.lease(one))

    async def _say(self, **event: Any) -> None:
        self.write(json.dumps(event) + "\n")
        await self.flush()


class _Lease(_Base):
    async def post(self, lease_id: str, what: str) -> None:
        service = self.service
        await service.note(what, {"lease": lease_id, **self.body})
        one = next((one for one in service.live if one.id == lease_id), None)
        if what == "release":
            if one:
                await service.end(one)
        elif one is None:
            self.refuse(404, "not-found", "There is no live lease with this id.", {})
            return
        else:
            one.state = {"started": "PREPARING", "ready": "RUNNING"}[what]
        self.set_status(204)


class _Call(_Base):
    async def post(self, what: str) -> None:
        service = self.service
        await service.note(what, self.body)
        if what == "withdraw":
            one = service.find(self.body["user"], self.body["server"])
            if one and one.state != "RUNNING":
                await service.end(one)
            self.set_status(204)
        elif what == "check":
            refusal = service.refuse(self.body["options"])
            self.finish(
                {"errors": refusal[3] if refusal else {}, "outlook": {"starts": "now", "message": "Now."}}
            )
        elif what == "choices":
            self.finish({"offer": {"groups": [], "images": []}})
        else:
            self.refuse(404, "not-found", "There is no such call.", {})
