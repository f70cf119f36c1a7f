"""The queue: who waits for what, in order, and why; which groups are held."""

from collections.abc import Mapping

import msgspec

from jupyterhub_bkai import options
from jupyterhub_bkai.api import views
from jupyterhub_bkai.api.devices import Closed, closed
from jupyterhub_bkai.api.operations import Call, Operation, Query
from jupyterhub_bkai.errors import InvalidOptions
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.leftover import Want
from jupyterhub_bkai.leasing.lifecycle import State
from jupyterhub_bkai.leasing.switches import Kind
from jupyterhub_bkai.policy import Group
from jupyterhub_bkai.store.records import Record


class Waiting(msgspec.Struct):
    """A waiting request; whose it is, administrators see, and everybody their own. At 0 its time has not come."""

    id: str | None
    user: str | None
    name: str | None
    position: int
    priority: int
    asked: str
    why: str
    when: views.When | None
    since: str


class GroupQueue(msgspec.Struct):
    """The queue of one resource group, next first. `all` is how many wait, `waiting` those that were asked for.

    For administrators: `fragmentation` is the share of what is free that usual requests cannot use; `idle_minutes` how
    many minutes devices stood free while somebody waited for one, since the service began.
    """

    name: str
    title: str
    held: Closed | None
    all: int
    fragmentation: float | None
    idle_minutes: float | None
    waiting: list[Waiting]


class Queue(msgspec.Struct):
    """All queues one may see."""

    groups: list[GroupQueue]


async def queue(call: Call) -> Queue:
    """Who waits for what, and why."""
    most = _most(call.query.get("most"))
    mine = [group for group in call.context.settings.groups if group.open_to(call.caller.person)]
    return Queue([_group(call, group, most) for group in mine])


def _most(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 6:
        raise InvalidOptions({"most": "most: give a number of requests."})
    return int(text)


def _group(call: Call, group: Group, most: int | None) -> GroupQueue:
    context, admin = call.context, call.caller.person.admin
    scheduler = context.broker.scheduler
    ids = [id for item in scheduler.order(group.name, context.now_ms()) for id in item.ids or (item.id,)]
    ids += [record.id for record in _later(context.broker, group.name, set(ids))]
    line = [
        _waiting(call, context.broker.records[id], group) for id in ids[:most] if id in context.broker.records
    ]
    wants: list[Mapping[Want, int]] = [context.gauges.wants().get(group.name, {})] if admin else []
    hall, gauges = scheduler.halls[group.name], context.gauges
    return GroupQueue(
        group.name,
        group.title,
        closed(call, context.broker.switches.get((Kind.GROUP, group.name))),
        len(ids),
        gauges.fragmentation(hall.books, wants) if admin else None,
        round(gauges.idle.seconds.get(group.name, 0.0) / 60, 3) if admin else None,
        line,
    )


def _later(broker: Broker, group: str, before: set[str]) -> list[Record]:
    """Those whose time has not come, whatever is free: after those who have a place."""
    mine = (r for r in broker.records.values() if r.state == State.QUEUED and r.request.group == group)
    return sorted((record for record in mine if record.id not in before), key=lambda record: record.order)


def _waiting(call: Call, record: Record, group: Group) -> Waiting:
    standing = call.context.broker.standing(record)
    visible = call.caller.may_see(record.user)
    why = standing.why if standing else ""
    if not visible and standing and call.context.broker.scheduler.capped(record.id) is not None:
        why = "As much as it may count for runs already."  # whose project that is, concerns them alone
    return Waiting(
        record.id if visible else None,
        record.user if visible else None,
        record.server if visible else None,
        standing.position if standing else 0,
        record.request.priority,
        options.wish_text(record.request.wish, group.unit),
        why,
        views.when(call.context.forecast.of(record)),
        views.iso(record.asked_ms) or "",
    )


OPERATIONS = (
    Operation(
        "GET", "/queue", "Who waits for what, and why", queue, Queue,
        query=(Query("most", "Only the first so many of each group."),),
    ),
)  # fmt: skip
