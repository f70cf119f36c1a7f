"""One operation = one method on one path: declared once, served and described from the same declaration.

Owns the HTTP side: reading a body with a size limit, JSON in and out, event streams, the form of errors.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tornado import web
from tornado.iostream import StreamClosedError

from jupyterhub_bkai.api.auth import Caller, HubLogin, NotLoggedIn
from jupyterhub_bkai.api.context import Context
from jupyterhub_bkai.errors import Conflict, InvalidOptions, NotFound, PublicError, TooLarge, TooMany
from jupyterhub_bkai.leasing.lifecycle import InvalidMove
from jupyterhub_bkai.options import shown

log = logging.getLogger(__name__)
MAX_BODY = 1 << 20
#: Up to here a body that is too large is read and thrown away, so that whoever sent it gets the sentence, and not a
#: broken connection.
MAX_READ = 16 << 20
#: A stream ends after so many seconds and is asked for again: who has logged out meanwhile is then refused.
STREAM_S = 600.0
#: so many streams at a time has one person: windows, programs, and one for each session that is waited for
MOST_STREAMS = 200


@dataclass(frozen=True, slots=True)
class Call:
    """One request as an operation gets it."""

    context: Context
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not JSON."""

    body: str
    content_type: str = "text/plain; charset=utf-8"
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream; `data` None is a comment that keeps the connection."""

    name: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter."""

    name: str
    help: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be done on a path. `body` and `answer` are types (msgspec structs, dataclasses); a `stream` operation
    gives an async iterator of `Event`s."""

    method: str
    path: str
    summary: str
    run: Callable[[Call], Awaitable[Any]]
    answer: Any = None
    body: Any = None
    query: tuple[Query, ...] = ()
    status: int = 200
    stream: bool = False
    text: str | None = None
    open: bool = False
    tags: tuple[str, ...] = field(default=())


def error_body(error: PublicError) -> dict[str, Any]:
    """The JSON form of every refusal."""
    return {"error": {"reason": error.reason, "message": error.message, "fields": error.fields}}


def to_public(error: BaseException) -> PublicError:
    """What a caller may read of any exception; bugs are logged with an id and only the id is told."""
    if isinstance(error, PublicError):
        return error
    if isinstance(error, InvalidMove):
        return Conflict(f"This cannot be done now: {error}.")
    number = os.urandom(4).hex()
    log.error("internal error %s", number, exc_info=error)
    return Internal(
        f"Something went wrong here (error {number}); the administrator finds it in the service's log."
    )


class Internal(PublicError):
    """A bug of ours."""

    status = 500
    default_reason = "internal"


def encode(value: Any) -> bytes:
    """JSON of an answer; exact fractions as text."""
    return msgspec.json.encode(value, enc_hook=str)


def read_json(raw: bytes, shape: Any) -> Any:
    """The body as `shape`. Raises `InvalidOptions` with the place that is wrong."""
    if len(raw) > MAX_BODY:
        raise TooLarge("The request is larger than 1 MiB; send less.")
    try:
        return msgspec.json.decode(raw or b"{}", type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidOptions({"body": f"The request's body cannot be read: {error}."}) from None


@web.stream_request_body
class BoundedBody(web.RequestHandler):
    """A handler that keeps no more of a body than it will read: `read_json` refuses what is longer."""

    def data_received(self, chunk: bytes) -> None:
        """A part of the body, as it comes."""
        kept = self.__dict__.setdefault("_kept", bytearray())
        kept += chunk[: MAX_BODY + 1 - len(kept)]

    @property
    def body(self) -> bytes:
        """What came."""
        return bytes(self.__dict__.get("_kept", b""))


class OperationHandler(BoundedBody, HubLogin):
    """Serves the operations of one path."""

    def initialize(self, operations: Mapping[str, Operation]) -> None:
        """`operations` by method."""
        self.operations = operations

    async def prepare(self) -> None:
        """Finds the caller before anything is read."""
        self.caller: Caller | None = None
        try:
            self.caller = await self.find_caller()
        except PublicError as error:
            self.refuse(error)
        except web.HTTPError as error:
            self.refuse(_upstream(error))

    async def _serve(self, *_: str, **path: str) -> None:
        operation = self.operations.get(self.request.method or "")
        try:
            if operation is None:
                raise MethodNotAllowed(
                    f"{self.request.method} is not possible here; use {', '.join(self.operations)}."
                )
            await self._answer(operation, path)
        except (StreamClosedError, asyncio.CancelledError):
            return
        except Exception as error:  # noqa: BLE001  the process edge: everything becomes an answer
            self.refuse(to_public(error))

    get = post = delete = put = patch = head = options = _serve

    async def _answer(self, operation: Operation, path: Mapping[str, str]) -> None:
        if self.caller is None:
            raise NotLoggedIn("Log in to the Hub, or send a token it knows as “Authorization: token …”.")
        query = {name: self._parameter(name) for name in self.request.query_arguments}
        body = read_json(self.body, operation.body) if operation.body is not None else None
        result = await operation.run(Call(self.context, self.caller, path, query, body))
        if operation.stream:
            await self._stream(result, self.caller.person.name)
            return
        self.set_status(operation.status)
        if isinstance(result, Text):
            self.set_header("Content-Type", result.content_type)
            if result.filename:
                self.set_header("Content-Disposition", f'attachment; filename="{result.filename}"')
            self.finish(result.body)
        elif operation.status == 204:
            self.finish()
        else:
            self.set_header("Content-Type", "application/json")
            self.finish(encode(result))

    def _parameter(self, name: str) -> str:
        try:
            return str(self.get_query_argument(name))
        except web.HTTPError:
            raise InvalidOptions({shown(name): f"{shown(name)}: this is no text in UTF-8."}) from None

    @contextmanager
    def _one_of_few(self, person: str) -> Iterator[None]:
        """Counts a stream while it is entered: each costs something at every change of anything."""
        streams = self.context.streams
        if streams[person] >= MOST_STREAMS:
            raise TooMany(f"You follow {MOST_STREAMS} event streams already; close some of them.")
        streams[person] += 1
        try:
            yield
        finally:
            streams[person] -= 1
            if not streams[person]:
                del streams[person]

    async def _stream(self, events: AsyncIterator[Event], person: str) -> None:
        with self._one_of_few(person), suppress(TimeoutError):  # who does not read is not waited for either
            self.set_header("Content-Type", "text/event-stream")
            self.set_header("X-Accel-Buffering", "no")
            async with asyncio.timeout(STREAM_S):
                async for event in events:
                    if event.data is None:
                        self.write(b": hb\n\n")
                    else:
                        self.write(
                            b"event: " + event.name.encode() + b"\ndata: " + encode(event.data) + b"\n\n"
                        )
                    await self.flush()

    def refuse(self, error: PublicError) -> None:
        """Answers with an error."""
        if self._finished:
            return
        if self._headers_written:
            self.finish()
            return
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json")
        self.finish(encode(error_body(error)))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors that tornado itself finds (a broken request, a failed XSRF check) in our form."""
        exception = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(exception, web.HTTPError):
            self.refuse(_upstream(exception))
        else:
            self.refuse(to_public(exception or RuntimeError(f"status {status_code}")))

    def set_default_headers(self) -> None:
        """Answers are for the caller alone and are never rendered as a page."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


class MethodNotAllowed(PublicError):
    """The path has no such method."""

    status = 405
    default_reason = "method"


class _Upstream(PublicError):
    default_reason = "http"


def _upstream(error: web.HTTPError) -> PublicError:
    if error.status_code >= 500:
        public: PublicError = _Upstream(
            "The Hub does not answer; try again in a moment.", reason="hub-unavailable"
        )
        public.status = 503
        return public
    public = _Upstream(error.log_message or error.reason or "The request was refused.")
    public.status = error.status_code
    return public


class Nothing(OperationHandler):
    """Everything that is not a route."""

    async def _serve(self, *_: str, **__: str) -> None:
        self.refuse(NotFound("There is nothing at this address."))

    get = post = delete = put = patch = head = options = _serve
