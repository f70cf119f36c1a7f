"""The faces of `Runs`: start a program, look at it, read along, end it."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web
from tornado.iostream import StreamClosedError

from jupyterhub_bkai.errors import InvalidOptions
from jupyterhub_bkai.singleuser.handling import Handler, answers
from jupyterhub_bkai.singleuser.runs import Run, Runs, command
from jupyterhub_bkai.singleuser.spool import Piece

#: an empty line this often says that the connection stands
HEARTBEAT_S = 10.0


class RunHandlers(Handler):
    """A handler that knows the runs."""

    _track_activity = True

    def initialize(self, name: str, *args: Any, runs: Runs, **settings: Any) -> None:
        """Take what the extension gives."""
        super().initialize(name, *args, **settings)
        self._runs = runs


class AllHandler(RunHandlers):
    """All runs."""

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """List them, oldest first."""
        self.answer({"runs": [view(run) for run in self._runs.all()]})

    @web.authenticated
    @authorized
    @answers
    async def post(self) -> None:
        """Start one. The same id and content again find the one that was started."""
        body = self.json_object()
        id = body.get("id") or secrets.token_hex(8)
        if not isinstance(id, str):
            raise InvalidOptions({"id": "The id must be text."})
        run = await self._runs.start(id, command(body))
        self.answer(view(run), 201)


class OneHandler(RunHandlers):
    """One run."""

    @web.authenticated
    @authorized
    @answers
    async def get(self, id: str) -> None:
        """How it stands."""
        self.answer(view(self._runs.get(id)))

    @web.authenticated
    @authorized
    @answers
    async def delete(self, id: str) -> None:
        """Ask it to end (SIGINT, then SIGTERM, then SIGKILL); again, to hurry."""
        run = self._runs.get(id)
        run.end()
        self.answer(view(run), 202)


class OutputHandler(RunHandlers):
    """What one run writes."""

    _sender: asyncio.Task[None] | None = None

    @web.authenticated
    @authorized
    @answers
    async def get(self, id: str) -> None:
        """Stream JSON lines from byte `from` on; the last one says how the program ended."""
        run, offset = self._runs.get(id), self._offset()
        if offset > run.spool.size:
            raise InvalidOptions(
                {"from": f"This run has written {run.spool.size} bytes, fewer than {offset}."}
            )
        self._sender = asyncio.create_task(self._send(run, offset))
        try:
            await self._sender
        except asyncio.CancelledError:
            return  # the reader is gone; the program is not

    def on_connection_close(self) -> None:
        """Stop sending to nobody."""
        if self._sender is not None:
            self._sender.cancel()
        super().on_connection_close()

    async def _send(self, run: Run, offset: int) -> None:
        self.set_header("Content-Type", "application/x-ndjson")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")
        try:
            await self.flush()
            async for line in lines(run, offset):
                self.write(line + "\n")
                await self.flush()
        except StreamClosedError:
            return
        self.finish(set_content_type="application/x-ndjson")

    def _offset(self) -> int:
        text = self.get_query_argument("from", "0")
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise InvalidOptions({"from": "The offset must be a whole number of bytes."})
        return int(text)


async def lines(run: Run, offset: int) -> AsyncIterator[str]:
    """The output of a run from `offset` on as JSON lines, empty ones as heartbeats, to its end."""
    while True:
        piece = run.spool.read(offset)
        if piece is not None:
            offset += len(piece.data)
            yield json.dumps(event(piece))
        elif run.spool.complete:
            yield json.dumps({"exit_code": run.exit_code, "offset": offset, "dropped": run.spool.dropped})
            return
        elif not await run.spool.grown(HEARTBEAT_S):
            yield ""


def event(piece: Piece) -> dict[str, Any]:
    """A piece of output; as text where it is UTF-8, else as base64."""
    try:
        text, encoding = piece.data.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(piece.data).decode(), "base64"
    return {"offset": piece.offset, "data": text, "encoding": encoding, "stream": piece.stream}


def view(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "id": run.id,
        "command": list(run.wanted.words),
        "cwd": run.wanted.folder,
        "state": "running" if run.alive else "ended",
        "exit_code": run.exit_code,
        "size": run.spool.size,
        "dropped": run.spool.dropped,
        "started": _iso(run.started),
        "ended": _iso(run.ended),
    }


def _iso(time: datetime | None) -> str | None:
    return time.isoformat(timespec="milliseconds") if time else None
