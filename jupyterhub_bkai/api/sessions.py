"""Sessions: ask, look, stop, follow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec

from jupyterhub_bkai import sessionlogs
from jupyterhub_bkai.api import asking, views
from jupyterhub_bkai.api.operations import Call, Event, Operation, Query, Text
from jupyterhub_bkai.api.switches import administrators
from jupyterhub_bkai.errors import Conflict, InvalidOptions, NotAllowed, NotFound
from jupyterhub_bkai.leasing import closing, lasting
from jupyterhub_bkai.leasing.lifecycle import FINAL, Cause, State
from jupyterhub_bkai.model import Person
from jupyterhub_bkai.names import is_lease_id
from jupyterhub_bkai.options import MAX_DURATION_S, seconds, shown
from jupyterhub_bkai.store import queries
from jupyterhub_bkai.store.records import Record

DAY_MS = 86_400_000
HEARTBEAT_S = 10.0
LOG_BYTES = 256 * 1024


class Options(msgspec.Struct):
    """Raw options, as `GET /options` declares them."""

    options: dict[str, Any] = {}


class Ask(msgspec.Struct):
    """Raw options, and whether the session ends when nobody keeps it alive for so many seconds."""

    options: dict[str, Any] = {}
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] | None = None


class Ended(msgspec.Struct):
    """What the session was for is done: the program ended with this exit code. Without one, it is stopped."""

    exit_code: Annotated[int, msgspec.Meta(ge=-255, le=255)] | None = None


class OutlookView(msgspec.Struct):
    """Whether it would start now, later or never, and why."""

    starts: str
    message: str


class Checked(msgspec.Struct):
    """A sentence per wrong field, or what would happen."""

    errors: dict[str, str]
    outlook: OutlookView | None


class Sessions(msgspec.Struct):
    """Sessions, live ones first."""

    sessions: list[views.Session]


class OfferView(msgspec.Struct):
    """A change: the options it sets, and what a button says."""

    options: dict[str, str]
    text: str


class Offers(msgspec.Struct):
    """Changes with which a waiting session would start at once."""

    offers: list[OfferView]


class Taken(msgspec.Struct):
    """The options of an offer, as they were offered."""

    options: dict[str, str]


class Priority(msgspec.Struct):
    """Who is served first: 0 to 100, usually 10; a higher one is always served before a lower one."""

    priority: Annotated[int, msgspec.Meta(ge=0, le=100)]


class Extend(msgspec.Struct):
    """For how much longer a running session goes on, such as "2h" or "30m"."""

    by: Annotated[str, msgspec.Meta(max_length=40)]


class Room(msgspec.Struct):
    """By how many seconds a running session can be extended now, until when that is, and why not for longer."""

    seconds: int
    until: str
    why: str


class Story(msgspec.Struct):
    """Every move a session made."""

    transitions: list[views.Transition]


def view(call: Call, record: Record) -> views.Session:
    """A record for this caller."""
    context = call.context
    return views.session(
        record,
        context.broker,
        context.settings,
        fake=context.fake,
        enforcement=context.enforcement,
        starts=context.forecast.of(record),
    )


async def check(call: Call) -> Checked:
    """What is wrong with options, or what would happen."""
    errors, outlook = asking.check(call.context, call.caller.person, call.body.options, new=True)
    return Checked(errors, OutlookView(outlook.starts, outlook.message) if outlook else None)


async def create(call: Call) -> Sessions:
    """Asks for one or more sessions; the Hub is asked to start them as soon as nobody else does."""
    if call.caller.server is not None:
        raise NotAllowed("A session's own token cannot ask for further sessions; use your own.")
    records = await asking.ask(
        call.context, call.caller.person, call.body.options, keepalive_s=call.body.keepalive_s
    )
    for record in records:
        if record.keepalive_s is not None:
            call.context.broker.keep_alive(record.id)
    live = call.context.broker.records
    return Sessions([view(call, live.get(record.id, record)) for record in records])


async def listing(call: Call) -> Sessions:
    """The caller's sessions, or everyone's for an administrator who asks for all."""
    everyone = call.query.get("all") in ("1", "true")
    if everyone and not call.caller.person.admin:
        raise NotAllowed("Only administrators see everyone's sessions.")
    user = call.query.get("user") or (None if everyone else call.caller.person.name)
    if user is not None and not call.caller.may_see(user):
        raise NotAllowed("These are somebody else's sessions.")
    live = [r for r in call.context.broker.records.values() if user is None or r.user == user]
    live.sort(key=lambda record: record.order)
    past = await call.context.database.read(queries.ended(user, call.context.now_ms() - DAY_MS))
    found = [view(call, record) for record in [*live, *past]]
    states = {word for word in call.query.get("state", "").upper().split(",") if word}
    return Sessions([one for one in found if not states or one.state in states])


async def find(call: Call) -> Record:
    """The record of the path's id, live or ended. What one may not see is not there."""
    record_id = call.path["id"]
    record = None
    if is_lease_id(record_id):
        record = call.context.broker.records.get(record_id)
        record = record or await call.context.database.read(queries.One(record_id))
    if record is None or not call.caller.may_see(record.user):
        raise NotFound("There is no such session of yours.")
    return record


async def own(call: Call) -> Record:
    """As `find`; and a session's own token, which whatever runs in it can read, does nothing to other sessions."""
    record = await find(call)
    if call.caller.server is not None:
        mine = call.context.broker.of_server(call.caller.person.name, call.caller.server)
        if mine is None or mine.id != record.id:
            raise NotAllowed("A session's own token can do this only to that session; use your own.")
    return record


async def show(call: Call) -> views.Session:
    """One session."""
    return view(call, await find(call))


async def _owner(call: Call, record: Record) -> Person:
    """A session's owner as the Hub knows them now; as they asked, where it does not know them any more."""
    known = await call.context.person(record.user)
    return Person(known.name, known.groups, known.admin) if known is not None else record.person


async def offered(call: Call) -> Offers:
    """With which changes a waiting session would start at once; each is the smallest of its kind."""
    record = await find(call)
    found = asking.offers(call.context, record, await _owner(call, record))
    return Offers([OfferView(dict(offer.options), offer.text) for offer in found])


async def take(call: Call) -> views.Session:
    """Has a waiting session ask for what was offered; it keeps its place, and starts at once unless somebody was
    quicker.
    """
    record = await own(call)
    person = await _owner(call, record)
    found = asking.offers(call.context, record, person)
    offer = next((offer for offer in found if dict(offer.options) == call.body.options), None)
    if offer is None:
        raise Conflict(
            "It would not start with this any more; look at what is offered now.", reason="not-offered"
        )
    who = call.caller.person.name
    changed = await call.context.broker.change(record.id, offer.request, who, offer.text, person)
    return view(call, call.context.broker.records.get(record.id, changed))


async def stop(call: Call) -> views.Session:
    """Stops a session or cancels a waiting one."""
    record = await own(call)
    who = call.caller.person.name
    cause = Cause.STOPPED if record.node else Cause.CANCELLED
    message = f"Stopped by {who}." if record.node else f"Cancelled by {who}."
    if record.node and call.body.exit_code is not None:
        cause, message = Cause.EXITED, f"Its program ended by itself (exit code {call.body.exit_code})."
    recursive = call.query.get("recursive") in ("1", "true")
    for follower in call.context.broker.followers(record.id) if recursive else ():
        await call.context.broker.end(
            follower.id, Cause.CANCELLED, who, f"Cancelled by {who}, with what it waited for."
        )
    ended = await call.context.broker.end(record.id, cause, who, message)
    return view(call, ended or record)


async def prioritise(call: Call) -> views.Session:
    """Gives a waiting session another priority; it keeps its place in time."""
    who = administrators(call)
    record = await find(call)
    changed = await call.context.broker.submit(closing.prioritise(record.id, call.body.priority, who))
    return view(call, call.context.broker.records.get(record.id, changed))


async def room(call: Call) -> Room:
    """By how much a running session can be extended."""
    record = await find(call)
    bound = lasting.bound(call.context.broker, record, call.context.now_ms())
    left_s = bound.left_s(lasting.deadline_of(record))
    return Room(left_s, views.iso(bound.until_ms) or "", bound.why)


async def extend(call: Call) -> views.Session:
    """Gives a running session more time, while nobody who waits starts later for it."""
    record = await own(call)
    by_s = seconds(call.body.by)
    if by_s is None or by_s > MAX_DURATION_S:
        raise InvalidOptions({"by": f"by: “{shown(call.body.by)}” is not a time such as 30m or 2h."})
    broker, who = call.context.broker, call.caller.person.name
    longer = await broker.submit(lasting.extend(broker, record.id, by_s, who))
    return view(call, broker.records.get(record.id, longer))


async def keepalive(call: Call) -> None:
    """Somebody is still there."""
    record = await own(call)
    call.context.broker.keep_alive(record.id)


async def story(call: Call) -> Story:
    """Every move."""
    record = await find(call)
    rows = await call.context.database.read(queries.story(record.id))
    return Story([views.transition(row) for row in rows])


async def logs(call: Call) -> Text:
    """The end of what the session's server printed."""
    record = await own(call)
    try:
        lines = int(call.query.get("tail", "200"))
    except ValueError:
        raise InvalidOptions({"tail": "tail: give a number of lines."}) from None
    folder, most = call.context.session_logs, max(1, min(lines, 5000))
    return Text(await asyncio.to_thread(sessionlogs.tail, folder, record.id, most, LOG_BYTES))


async def follow(call: Call) -> AsyncIterator[Event]:
    """One session now and at every change, until it ends."""
    return _follow(call, await find(call))


async def _follow(call: Call, record: Record) -> AsyncIterator[Event]:
    async with call.context.broker.watch(record.id) as watcher:
        yield Event("session", view(call, call.context.broker.records.get(record.id, record)))
        while record.state not in FINAL:
            if record.id not in await watcher.changes(HEARTBEAT_S):
                yield Event("heartbeat")
                continue
            ended = watcher.ended.get(record.id)
            record = ended or call.context.broker.records.get(record.id) or record
            yield Event("session", view(call, record))


async def follow_all(call: Call) -> AsyncIterator[Event]:
    """Every session the caller may see, at every change."""
    everyone = call.query.get("all") in ("1", "true")
    if everyone and not call.caller.person.admin:
        raise NotAllowed("Only administrators see everyone's sessions.")
    return _follow_all(call, everyone)


async def _follow_all(call: Call, everyone: bool) -> AsyncIterator[Event]:
    broker = call.context.broker

    def mine(record: Record) -> bool:
        return everyone or record.user == call.caller.person.name

    async with broker.watch() as watcher:
        for record in [*broker.records.values()]:
            if mine(record):
                yield Event("session", view(call, record))
        yield Event("ready", {})
        while True:
            changed = await watcher.changes(HEARTBEAT_S)
            moved, watcher.groups = watcher.groups, set()
            if moved:
                seen = broker.records.values() if everyone else broker.of_user(call.caller.person.name)
                changed |= {r.id for r in seen if r.state == State.QUEUED and r.request.group in moved}
            if not changed and not moved:
                yield Event("heartbeat")
            for record_id in changed:
                found = broker.records.get(record_id) or watcher.ended.get(record_id)
                if found is not None and mine(found):
                    yield Event("session", view(call, found))
            if changed or moved:
                mine_too = (g for g in call.context.settings.groups if g.open_to(call.caller.person))
                yield Event("capacity", {"groups": [_free(call, group.name) for group in mine_too]})


def _free(call: Call, group: str) -> dict[str, Any]:
    hall, free = call.context.broker.scheduler.halls[group], call.context.free
    known = free.get(group)
    if known is None or known[0] is not hall.books or known[1] != hall.books.version:
        books = [book for book in hall.books if book.open]
        devices = [device for book in books for device in book.devices if device.device.healthy]
        share = str(sum((device.left_share for device in devices), start=0))
        known = free[group] = hall.books, hall.books.version, len(devices), share
    return {"name": group, "devices": known[2], "free_share": known[3], "waiting": len(hall.line)}


_ID = "/sessions/{id}"
_ALL = Query("all", "1 for everyone's (administrators).")
OPERATIONS = (
    Operation("POST", "/sessions/check", "What is wrong with options, or what would happen", check, Checked, Options),
    Operation("POST", "/sessions", "Ask for one or more sessions", create, Sessions, Ask, status=201),
    Operation(
        "GET", "/sessions", "Sessions, live ones first, ended ones of the last day after them", listing, Sessions,
        query=(_ALL, Query("user", "Only this person's."), Query("state", "Only these states, with commas.")),
    ),
    Operation("GET", _ID, "One session", show, views.Session),
    Operation(
        "DELETE", _ID, "Stop a session or cancel a waiting one", stop, views.Session, Ended, status=202,
        query=(Query("recursive", "1 to cancel also those that wait for its end, and for theirs."),),
    ),
    Operation(
        "PUT", f"{_ID}/priority", "Give a waiting session another priority (administrators)", prioritise,
        views.Session, Priority,
    ),
    Operation("GET", f"{_ID}/offers", "With which changes a waiting session would start at once", offered, Offers),
    Operation("POST", f"{_ID}/offers", "Take one of these changes", take, views.Session, Taken),
    Operation("GET", f"{_ID}/extend", "By how much a running session can be extended, and why not more", room, Room),
    Operation("POST", f"{_ID}/extend", "Give a running session more time", extend, views.Session, Extend),
    Operation("POST", f"{_ID}/keepalive", "Keep a session asked for with keepalive_s", keepalive, status=204),
    Operation("GET", f"{_ID}/events", "A session now and at every change", follow, views.Session, stream=True),
    Operation("GET", f"{_ID}/transitions", "Every move of a session: when, who, why", story, Story),
    Operation(
        "GET", f"{_ID}/logs", "The end of what the session's server printed", logs,
        query=(Query("tail", "How many lines (200)."),), text="text/plain",
    ),
    Operation(
        "GET", "/events", "All sessions one may see, at every change", follow_all, views.Session,
        query=(_ALL,), stream=True,
    ),
)  # fmt: skip
