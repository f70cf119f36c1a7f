"""The hub's own door: leases for its spawners, over a Unix socket that only the hub's Linux user can open.

Nothing here is under `/services/bkai`, so nothing of it is reachable from outside. User and server names are those
of the spawner object; a lease id never comes from a user.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from tornado import web
from tornado.iostream import StreamClosedError

from jupyterhub_bkai.api import asking
from jupyterhub_bkai.api.context import Context, Realised
from jupyterhub_bkai.api.leases import lease_json
from jupyterhub_bkai.api.operations import encode, error_body, read_json, to_public
from jupyterhub_bkai.api.site import offer_json
from jupyterhub_bkai.api.views import iso
from jupyterhub_bkai.errors import Conflict, NotFound, PublicError
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.leasing.broker import Progress
from jupyterhub_bkai.leasing.lifecycle import FINAL, HOLDING, PUBLIC, Cause, Move, State
from jupyterhub_bkai.leasing.when import words
from jupyterhub_bkai.model import Person
from jupyterhub_bkai.options import wish_text
from jupyterhub_bkai.store.records import Record

log = logging.getLogger(__name__)
HEARTBEAT_S = 10.0


class Who(msgspec.Struct):
    """A person, and what they ask for."""

    user: str
    groups: list[str] = []
    admin: bool = False
    server: str = ""
    options: dict[str, Any] = {}

    def person(self) -> Person:
        """The person as the spawner knows them."""
        return Person(self.user, tuple(self.groups), self.admin)


class Started(msgspec.Struct):
    """What was launched."""

    handle: dict[str, Any]


class Released(msgspec.Struct):
    """Why the spawner stopped it."""

    cause: str = "stopped"
    exit_code: int | None = None


# -- acquire ----------------------------------------------------------------------------------


async def acquire(context: Context, body: Who) -> AsyncGenerator[dict[str, Any] | None]:
    """The events of one start: attached to the request that waits for this server, or to a new one.

    The first event comes only when the request is on disk. None is a heartbeat. Raises `PublicError` before the
    first event when the request is refused (after heartbeats, if the server's former session was still ending).
    """
    attaching = asyncio.create_task(_attach(context, body), name=f"attach {body.user}/{body.server}")
    try:
        # The former session of this server may still be ending.
        while not (await asyncio.wait({attaching}, timeout=HEARTBEAT_S))[0]:
            yield None
        record = await attaching
    finally:
        attaching.cancel()
    async with context.broker.attend(record.id), context.broker.watch(record.id) as watcher:
        last: dict[str, Any] | None = None
        while True:
            record = watcher.ended.get(record.id) or context.broker.records.get(record.id) or record
            if record.state == State.STOPPING or record.state in FINAL:
                yield _ended(record)
                return
            if record.state in HOLDING:
                break
            event = _queued(context, record)
            if event != last:
                yield event
                last = event
            if not await watcher.changes(HEARTBEAT_S):
                yield None
        async for event_ in _prepare(context, record):
            yield event_


async def _attach(context: Context, body: Who) -> Record:
    """The live record of this server; one whose session the hub no longer has is ended first."""
    async with context.broker.watch() as watcher:
        while (record := context.broker.of_server(body.user, body.server)) is not None:
            if record.state not in (State.RUNNING, State.STOPPING):
                context.reconciler.asked_here(body.user, body.server)
                return record
            gone = "The hub starts this server anew; its former session is over."
            await context.broker.end(record.id, Cause.SERVER_GONE, "hub", gone)
            context.reconciler.released(record.id)
            await watcher.changes(1.0)
    if context.reconciler.asked_here(body.user, body.server):
        # Between our asking for it and this start the request ended; nobody else asked for a new one.
        raise Conflict("The request for this session has ended meanwhile; start it again.")
    found = await asking.ask(
        context, body.person(), body.options, server=body.server, awaited=True, who="hub"
    )
    return context.broker.records.get(found[0].id, found[0])


async def _prepare(context: Context, record: Record) -> AsyncIterator[dict[str, Any] | None]:
    """The slices are held: makes the image version ready, then hands out the lease."""
    version = record.request.version
    slice_ = "your slice" if record.slices else "your place"
    told = f"You have {slice_} on {record.node}. Preparing {version}."
    yield {"event": "preparing", "message": told, "asked": _asked(context, record)}
    realised = context.images.ready(version)
    if realised is None:
        news: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        task = asyncio.create_task(_realise(context, record, news))
        try:
            while not task.done() or not news.empty():
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        event = await news.get()
                except TimeoutError:
                    yield None
                    continue
                if event is not None:
                    yield event
        finally:
            task.cancel()
        realised = await _outcome(task)
    live = context.broker.records.get(record.id)
    if realised is None or live is None or live.state not in HOLDING or live.state == State.STOPPING:
        yield _ended(live or record, "The image version could not be prepared.")
        return
    yield {"event": "granted", "lease": lease_json(context, live, realised)}


async def _outcome(task: "asyncio.Task[Realised | None]") -> Realised | None:
    try:
        return await task
    except asyncio.CancelledError:
        return None


async def _realise(
    context: Context, record: Record, news: "asyncio.Queue[dict[str, Any] | None]"
) -> Realised | None:
    """Makes the image version, telling everybody how far it is; a failure ends the lease with the reason."""
    broker = context.broker

    def tell(percent: int | None, message: str) -> None:
        broker.set_progress(record.id, Progress(percent, message))
        news.put_nowait({"event": "pulling", "percent": percent, "message": message})

    try:
        live = broker.records.get(record.id)
        if live is not None and live.state == State.GRANTED:
            await broker.move(record.id, Move.PULL, "service", f"making {record.request.version} ready")
        realised = await context.images.realise(record.request.version, tell)
        live = broker.records.get(record.id)
        if live is not None and live.state == State.PULLING:
            await broker.move(record.id, Move.PREPARE, "service", "the image version is ready")
        broker.set_progress(record.id, None)
        return realised
    except PublicError as error:
        await broker.end(record.id, Cause.IMAGE_FAILED, "service", error.message)
        return None
    finally:
        news.put_nowait(None)


def _queued(context: Context, record: Record) -> dict[str, Any]:
    standing = context.broker.standing(record)
    position = standing.position if standing else 1
    why = standing.why if standing else "It starts in a moment."
    note = context.broker.progress.get(record.id)
    group = context.settings.group(record.request.group)
    title = group.title if group else record.request.group
    place = f"number {position} in {title}" if position else f"not yet in the queue of {title}"
    soon = words(context.forecast.of(record), context.now_ms())
    message = f"Waiting, {place}. {note.message if note else why} {soon}".rstrip()
    return {
        "event": "queued",
        "request": record.id,
        "position": position,
        "why": why,
        "message": message,
        "asked": _asked(context, record),
    }


def _asked(context: Context, record: Record) -> dict[str, str]:
    """What was asked for, in words, for the page that waits."""
    group = context.settings.group(record.request.group)
    unit = group.unit if group else Unit()
    return {
        "image": record.request.version,
        "accelerator": wish_text(record.request.wish, unit),
        "group": group.title if group else record.request.group,
        "since": iso(record.asked_ms) or "",
    }


def _ended(record: Record, message: str = "The session has ended.") -> dict[str, Any]:
    return {
        "event": "ended",
        "state": PUBLIC[State(record.state)],
        "reason": str(record.cause or "ended"),
        "message": record.message or message,
    }


# -- the rest ---------------------------------------------------------------------------------


def _lease(context: Context, lease_id: str) -> Record:
    record = context.broker.records.get(lease_id)
    if record is None:
        raise NotFound("There is no live lease with this id.")
    return record


async def started(context: Context, lease_id: str, body: Started) -> None:
    """Something was launched."""
    await context.broker.started(_lease(context, lease_id).id, body.handle)


async def ready(context: Context, lease_id: str, _: Any) -> None:
    """The session's port answers."""
    await context.broker.ready(_lease(context, lease_id).id)


async def release(context: Context, lease_id: str, body: Released) -> None:
    """The spawner stopped the session; the slices are free once the fence agrees. Idempotent."""
    record = context.broker.records.get(lease_id)
    if record is None:
        return
    if record.started_ms is None and record.state != State.RUNNING:
        cause, message = Cause.START_FAILED, "The session stopped before it was ready."
    elif body.cause == "exited":
        code = "" if body.exit_code is None else f" (exit code {body.exit_code})"
        cause, message = Cause.EXITED, f"The session's server ended by itself{code}."
    else:
        cause, message = Cause.STOPPED, "The session was stopped."
    await context.broker.end(record.id, cause, "hub", message)
    context.reconciler.released(record.id)


async def withdraw(context: Context, body: Who) -> None:
    """The start was cancelled: a waiting request is over, a lease is on its way back. Idempotent."""
    record = context.broker.of_server(body.user, body.server)
    if record is not None and record.state != State.RUNNING:
        await context.broker.end(record.id, Cause.CANCELLED, "hub", "The start was cancelled.")
        context.reconciler.released(record.id)


async def withdraw_all(context: Context, _: dict[str, Any]) -> None:
    """The site ends: nobody waits any more."""
    for record in [*context.broker.records.values()]:
        if record.state == State.QUEUED:
            await context.broker.end(record.id, Cause.CANCELLED, "service", "The site was shut down.")


async def choices(context: Context, body: Who) -> dict[str, Any]:
    """What the person can choose from, for the form, with the ticket for the form's live answer."""
    ticket = context.tickets.issue(body.person(), context.now_ms())
    return {"offer": offer_json(asking.offer(context, body.person())), "ticket": ticket}


async def check(context: Context, body: Who) -> dict[str, Any]:
    """What is wrong with options, or what would happen."""
    errors, outlook = asking.check(context, body.person(), body.options)
    return {"errors": errors, "outlook": outlook}


class _Base(web.RequestHandler):
    @property
    def context(self) -> Context:
        found: Context = self.application.settings["context"]
        return found

    def refuse(self, error: BaseException) -> None:
        public = to_public(error)
        self.set_status(public.status)
        self.set_header("Content-Type", "application/json")
        self.finish(encode(error_body(public)))


class AcquireHandler(_Base):
    """Streams the events of one start."""

    async def post(self) -> None:
        """One JSON object a line; an empty line keeps the connection."""
        try:
            events = acquire(self.context, read_json(self.request.body, Who))
        except Exception as error:  # noqa: BLE001  the process edge: everything becomes an answer
            self.refuse(error)
            return
        self._gone = asyncio.create_task(self._relay(events))
        try:
            await self._gone
        except (StreamClosedError, asyncio.CancelledError):
            log.debug("An acquire stream was closed by the hub")
        except Exception as error:  # noqa: BLE001  the same edge
            if self._headers_written:
                public = to_public(error)
                ended = {
                    "event": "ended",
                    "state": "ERROR",
                    "reason": public.reason,
                    "message": public.message,
                }
                self.write(_line(ended))
            else:
                self.refuse(error)
        finally:
            await events.aclose()

    async def _relay(self, events: AsyncIterator[Any]) -> None:
        async for event in events:
            self.set_header("Content-Type", "application/x-ndjson")
            self.write(_line(event))
            await self.flush()

    def on_connection_close(self) -> None:
        """The hub went away: the request is unattended from now on."""
        task = getattr(self, "_gone", None)
        if task is not None:
            task.cancel()


def _line(event: Any) -> bytes:
    return b"\n" if event is None else encode(event) + b"\n"


class CallHandler(_Base):
    """Serves one plain call; `run(context, body)` or `run(context, lease_id, body)`."""

    def initialize(self, run: Callable[..., Awaitable[Any]], shape: Any) -> None:
        """What is called with what."""
        self.run, self.shape = run, shape

    async def post(self, *path: str) -> None:
        """Parse, call, render."""
        try:
            answer = await self.run(self.context, *path, read_json(self.request.body, self.shape))
        except Exception as error:  # noqa: BLE001  the process edge: everything becomes an answer
            self.refuse(error)
            return
        if answer is None:
            self.set_status(204)
            self.finish()
            return
        self.set_header("Content-Type", "application/json")
        self.finish(encode(answer))


def application(context: Context) -> web.Application:
    """The routes of the hub's door."""
    lease = "/trusted/v1/leases/([0-9a-z]{26})"
    return web.Application(
        [
            ("/trusted/v1/acquire", AcquireHandler),
            (f"{lease}/started", CallHandler, {"run": started, "shape": Started}),
            (f"{lease}/ready", CallHandler, {"run": ready, "shape": dict}),
            (f"{lease}/release", CallHandler, {"run": release, "shape": Released}),
            ("/trusted/v1/withdraw", CallHandler, {"run": withdraw, "shape": Who}),
            ("/trusted/v1/withdraw-all", CallHandler, {"run": withdraw_all, "shape": dict}),
            ("/trusted/v1/choices", CallHandler, {"run": choices, "shape": Who}),
            ("/trusted/v1/check", CallHandler, {"run": check, "shape": Who}),
        ],
        context=context,
        log_function=lambda handler: None,
    )
