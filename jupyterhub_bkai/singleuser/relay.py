"""What the panel in JupyterLab asks of the service, passed on with the session's token.

The browser never gets the token: it asks this server, which asks the service. Only the requests below are passed on,
to fixed paths; nothing of the browser's request goes along.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web
from tornado.iostream import StreamClosedError

from jupyterhub_bkai.errors import InvalidOptions, NotFound
from jupyterhub_bkai.singleuser.handling import Handler, answers
from jupyterhub_bkai.singleuser.service import Service


class Relay(Handler):
    """A handler with a way to the service, or none when this server is not a session."""

    def initialize(self, name: str, *args: Any, service: Service | None, **settings: Any) -> None:
        """Take what the extension gives."""
        super().initialize(name, *args, **settings)
        self._service = service

    @property
    def service(self) -> Service:
        """The way to the service."""
        if self._service is None:
            raise NotFound("This JupyterLab was not started as a bkai session.", reason="no-session")
        return self._service

    async def relay(self, method: str, path: str, body: dict[str, str] | None = None) -> None:
        """Ask the service and hand its answer on."""
        answer = await self.service.ask(method, path, body)
        self.set_status(answer.status)
        self.set_header("Cache-Control", "no-store")
        if answer.status == HTTPStatus.NO_CONTENT:
            self.clear_header("Content-Type")
        self.finish(answer.body)


class SessionHandler(Relay):
    """This session, as the service's books have it."""

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """Pass on `GET /sessions/{id}`."""
        await self.relay("GET", self.service.session)


class SessionsHandler(Relay):
    """All sessions of the session's owner."""

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """Pass on `GET /sessions`."""
        await self.relay("GET", "/sessions")


class StopHandler(Relay):
    """Ends this session."""

    _track_activity = True

    @web.authenticated
    @authorized
    @answers
    async def post(self) -> None:
        """Pass on `DELETE /sessions/{id}`."""
        self.log.info("session: stop asked for by %s", self.current_user.username)
        await self.relay("DELETE", self.service.session)


class ExtendHandler(Relay):
    """More time for this session."""

    _track_activity = True

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """Pass on `GET /sessions/{id}/extend`."""
        await self.relay("GET", f"{self.service.session}/extend")

    @web.authenticated
    @authorized
    @answers
    async def post(self) -> None:
        """Pass on `POST /sessions/{id}/extend` with for how much longer, and nothing else."""
        by = self.json_object().get("by")
        if not isinstance(by, str) or len(by) > 40:
            raise InvalidOptions({"by": "by: give a time such as 30m or 2h."})
        self.log.info("session: more time asked for by %s", self.current_user.username)
        await self.relay("POST", f"{self.service.session}/extend", {"by": by})


class EventsHandler(Relay):
    """Server-sent events: what happens to this session."""

    _reader: asyncio.Task[None] | None = None

    @property
    def path(self) -> str:
        """Which of the service's streams is passed on."""
        return f"{self.service.session}/events"

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """Pass on the service's stream until either side ends it."""
        self._reader = asyncio.create_task(self._pass_on(self.path))
        try:
            await self._reader
        except asyncio.CancelledError:
            return  # the browser is gone

    async def _pass_on(self, path: str) -> None:
        async with self.service.events(path) as pieces:
            self.set_header("Content-Type", "text/event-stream")
            self.set_header("Cache-Control", "no-store")
            self.set_header("X-Accel-Buffering", "no")
            await self.flush()
            async for piece in pieces:
                self.write(piece)
                try:
                    await self.flush()
                except StreamClosedError:
                    return
        self.finish(set_content_type="text/event-stream")

    def on_connection_close(self) -> None:
        """Let go of the service's stream when the browser went away."""
        if self._reader is not None:
            self._reader.cancel()
        super().on_connection_close()


class AllEventsHandler(EventsHandler):
    """Server-sent events: what happens to any session of the owner."""

    path = "/events"
