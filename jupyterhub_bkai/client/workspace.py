"""`Workspace`: the files and programs of a running session, through the session's own server extension.

Owns taking up again what broke off: an upload goes on at the size the session has, an output at the offset
already shown, and a program is never started twice. Whether a session still lives, only the service knows.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from io import SEEK_END
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from jupyterhub_bkai.client.asynchronous import AsyncClient
from jupyterhub_bkai.client.errors import BkaiError, Refused, ServerProblem, Unreachable
from jupyterhub_bkai.client.nouns import Session
from jupyterhub_bkai.client.wire import lines

T = TypeVar("T")
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes the program wrote to "stdout" or "stderr"; `offset` counts all bytes before them."""

    offset: int
    data: bytes
    stream: str = "stdout"


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection broke off; the output goes on when it is back."""

    message: str


@dataclass(frozen=True, slots=True)
class Restored:
    """The connection is back after a `Broken`; nothing was lost."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The program ended. A negative code is the number of the signal that ended it.

    `dropped` counts the bytes at the end that the session had no room to keep.
    """

    code: int
    dropped: int = 0

    @property
    def status(self) -> int:
        """The exit code as a shell gives it: 130 for a program ended by signal 2."""
        return self.code if self.code >= 0 else 128 - self.code


class Workspace:
    """A running session's files and programs. Every call outlives a broken connection.

    `patience` is for how many seconds it tries to get through before it gives up with `Unreachable`.
    """

    def __init__(self, client: AsyncClient, session: Session, *, patience: float = 60) -> None:
        self._client = client
        self._wire = client.wire
        self._id = session.id
        self._root = client.wire.absolute(session.url) + "bkai/"
        self._patience = patience

    async def reach(self) -> None:
        """Return when the session answers: the way to it is there a moment after it runs."""
        try:
            await self._insist(lambda: self._once("GET", self._root + "run"))
        except Refused as error:
            if error.reason != "http-403":
                raise
            message = "The token may not enter your sessions; make one that has the scope access:servers."
            raise Refused(message, reason="no-access") from error

    async def upload(
        self, path: str, source: BinaryIO, *, mode: int = 0o644, told: Callable[[int], None] | None = None
    ) -> None:
        """Write all of `source` to `path`; `told` hears the number of bytes that have arrived so far."""
        if not set(path.split("/")).isdisjoint(("", ".", "..")):
            raise BkaiError(f"{path!r} is not a plain path below the home folder.", reason="bad-path")
        url = f"{self._root}upload/{quote(path)}"
        total, offset, arrived = source.seek(0, SEEK_END), 0, False
        while offset < total or not arrived:
            data = _at(source, offset)
            if not data and offset < total:
                raise BkaiError(f"{path} became shorter while it was uploaded; try again.", reason="changed")
            query = {"offset": str(offset), "mode": f"{mode:04o}"}
            try:
                await self._once("PUT", url, params=query, content=data)
                offset, arrived = offset + len(data), True
            except Unreachable:
                offset = await self._insist(lambda: self._size(url))
            if told:
                told(offset)

    async def _size(self, url: str) -> int:
        try:
            return _integer(await self._wire.json("GET", url), "size")
        except Refused as error:
            if error.reason in ("not-found", "http-404"):
                return 0
            raise

    async def run(
        self, command: Sequence[str], *, cwd: str = "", environment: Mapping[str, str] | None = None
    ) -> str:
        """Start a program in the folder `cwd` below home; its id.

        The id is ours: when no answer came and we ask again under it, no second program starts.
        """
        body = {
            "id": secrets.token_hex(8),
            "command": list(command),
            "cwd": cwd,
            "environment": dict(environment or {}),
        }
        answer = await self._insist(lambda: self._once_json("POST", self._root + "run", json=body))
        return str(answer["id"])

    async def interrupt(self, run: str) -> None:
        """Ask a program to end, as Ctrl-C would."""
        await self._insist(lambda: self._once("DELETE", f"{self._root}run/{quote(run, safe='')}"))

    async def output(self, run: str) -> AsyncGenerator[Output | Broken | Restored | Exited, None]:
        """What a program writes, as it comes, each byte once; last of all how it ended."""
        url = f"{self._root}run/{quote(run, safe='')}/output"
        clock = asyncio.get_running_loop().time
        offset, heard, pause, broken = 0, clock(), 0.25, False
        while True:
            try:
                async with aclosing(self._lines(url, offset)) as rows:
                    async for line in rows:
                        heard, pause = clock(), 0.25
                        if broken:
                            broken = False
                            yield Restored()
                        event = _event(line, offset)
                        if event is None:
                            continue
                        yield event
                        if isinstance(event, Exited):
                            return
                        offset += len(event.data)
            except Unreachable as error:
                await self._alive()
                if clock() - heard > self._patience:
                    raise
                if not broken:
                    broken = True
                    yield Broken(error.message)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5)

    async def _lines(self, url: str, offset: int) -> AsyncGenerator[str, None]:
        async with self._wire.stream("GET", url, params={"from": str(offset)}) as response:
            yield ""  # the connection stands, even if the program has nothing to say
            async with aclosing(lines(response)) as rows:
                async for line in rows:
                    yield line

    # -- through thick and thin ---------------------------------------------------------------

    async def _once(self, method: str, url: str, **request: Any) -> None:
        await self._wire.send(method, url, **request)

    async def _once_json(self, method: str, url: str, **request: Any) -> Any:
        return await self._wire.json(method, url, **request)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` gives, asked again while nothing answers and the session lives."""
        clock = asyncio.get_running_loop().time
        began, pause = clock(), 0.25
        while True:
            try:
                return await ask()
            except Unreachable:
                if clock() - began > self._patience:
                    raise
                await self._alive()
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5)

    async def _alive(self) -> None:
        """Raise `Refused` when the service answers and knows that the session is over."""
        try:
            session = await self._client.session(self._id)
        except Unreachable:
            return
        if session.over or session.state == "TERMINATING":
            raise Refused(session.message or "The session has ended.", reason="session-ended")


def _at(source: BinaryIO, offset: int) -> bytes:
    source.seek(offset)
    return source.read(CHUNK)


def _integer(answer: object, key: str) -> int:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, int):
        raise ServerProblem("The session's answer cannot be understood.")
    return value


def _event(line: str, expected: int) -> Output | Exited | None:
    """One line of the output stream; the part before `expected` is dropped. None for a heartbeat."""
    if not line.strip():
        return None
    try:
        row = json.loads(line)
        if "exit_code" in row:
            return Exited(int(row["exit_code"]), int(row.get("dropped") or 0))
        data = _bytes(row["data"], row.get("encoding"))
        seen = expected - int(row["offset"])
    except (ValueError, KeyError, TypeError) as error:
        raise ServerProblem("The session sent output that cannot be understood.") from error
    if seen < 0:
        raise ServerProblem("Some output of the program is lost: the session no longer has it.")
    return Output(expected, data[seen:], str(row.get("stream", "stdout")))


def _bytes(data: str, encoding: str | None) -> bytes:
    return base64.b64decode(data, validate=True) if encoding == "base64" else data.encode()
