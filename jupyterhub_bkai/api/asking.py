"""From raw options to a recorded wish: the same few steps for the Hub's form, REST, the command line and JupyterLab."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from jupyterhub_bkai import options, policy
from jupyterhub_bkai.api.context import Context
from jupyterhub_bkai.errors import Conflict, InvalidOptions, PublicError
from jupyterhub_bkai.gpus.fit import Books
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.leasing import offers as changes
from jupyterhub_bkai.leasing.lifecycle import State
from jupyterhub_bkai.leasing.offers import Room
from jupyterhub_bkai.leasing.queue import Waiting
from jupyterhub_bkai.leasing.why import sentence
from jupyterhub_bkai.model import Device, Person, Request
from jupyterhub_bkai.options import GroupOffer, Offer, PresetOffer, SessionOffer, SlotOffer
from jupyterhub_bkai.store.records import Record

#: a place in time after everybody's
LAST = 1 << 60


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would happen to a request now: it starts "now", "later" or "never", and why."""

    starts: str
    message: str


def offer(context: Context, person: Person) -> Offer:
    """What a person can choose from now, with what is free."""
    return _offer(context, person, partial(_group_offer, context, person))


def _offer(context: Context, person: Person, of: Callable[[policy.Group], GroupOffer]) -> Offer:
    groups = [g for g in context.settings.groups if g.open_to(person)]
    open_to = {group.name for group in groups}
    images = context.images.offers()
    wanted = context.settings.default_version
    # Plain Python first where the administrator names no default: what starts unasked should start soon.
    ordered = sorted(images, key=lambda image: (image.version != wanted, image.family != "python"))
    return Offer(
        images=tuple(i for i in ordered if any(g.has_image(i.version) for g in groups)),
        groups=tuple(of(group) for group in groups),
        projects=person.groups,
        presets=tuple(
            PresetOffer(p.name, p.title, p.options, tuple(name for name in p.groups if name in open_to))
            for p in context.settings.presets
            if p.open_to(person) and (not p.groups or not open_to.isdisjoint(p.groups))
        ),
        sessions=tuple(
            SessionOffer(r.id, r.server or r.request.name or "default")
            for r in context.broker.of_user(person.name)
        ),
        priorities={
            project or "": policy.priorities(context.settings, person, project)
            for project in (None, *person.groups)
        },
        now_ms=context.now_ms(),
        fake=context.fake,
        enforcement=context.enforcement,
    )


def _group_offer(context: Context, person: Person, group: policy.Group) -> GroupOffer:
    """What somebody may have of a group, and how much of it is free."""
    mine, hall = _group(context, person, group), context.broker.scheduler.halls[group.name]
    slots = (replace(slot, **_left(slot.slot, hall.books)) for slot in mine.slots)
    return replace(mine, slots=tuple(slots), waiting=len(hall.line))


def _left(slot: str, books: Books) -> dict[str, Any]:
    idle = (
        sum(b.holders == 0 and b.device.slot == slot and b.device.healthy for b in n.devices)
        for n in books
        if n.open
    )
    return {"free": books.largest(slot), "idle": max(idle, default=0)}


def _group(context: Context, person: Person, group: policy.Group) -> GroupOffer:
    """What somebody may have of a group."""
    longest = policy.longest(context.settings, person)
    return replace(
        _room(context, group),
        default_duration_s=_least(group.default_duration_s, longest) if group.default_duration_s else None,
        max_duration_s=_least(group.max_duration_s, longest),
        max_priority=None if person.admin else group.max_priority,
    )


def _room(context: Context, group: policy.Group) -> GroupOffer:
    """What there is in a group, whoever holds it; kept until the machines or the settings change."""
    machines, settings = context.broker.nodes, context.settings
    kept = context.rooms.get(group.name)
    if kept is not None and kept[0] is machines and kept[1] is settings:
        return kept[2]
    inside = context.broker.nodes_of(group.name)
    nodes = [node for node in machines if node.name in inside]
    slots = dict.fromkeys(device.slot for node in nodes for device in node.devices)
    room = GroupOffer(
        name=group.name,
        title=group.title,
        unit=group.unit,
        slots=tuple(_slot_offer(slot, [list(n.devices) for n in nodes]) for slot in slots),
        session_types=group.session_types,
        folders=policy.mounts(context.settings, group),
        cpu_milli=int(max((n.cpu_milli for n in nodes), default=0)),
        memory_mib=max((n.memory_mib for n in nodes), default=0),
        queue_limit_s=context.settings.queue_limit_of(group.name),
    )
    context.rooms[group.name] = machines, settings, room
    return room


def _least(one: int | None, other: int | None) -> int | None:
    """The smaller of two, where there is one."""
    return min((value for value in (one, other) if value is not None), default=None)


def _slot_offer(slot: str, nodes: list[list[Device]]) -> SlotOffer:
    mine = [[d for d in devices if d.slot == slot] for devices in nodes]
    devices = [device for group in mine for device in group]
    models = dict.fromkeys(device.model for device in devices)
    return SlotOffer(
        slot=slot,
        title=" / ".join(models),
        devices=max(len(group) for group in mine),
        divisible=any(d.divisible for d in devices),
        mig=tuple(dict.fromkeys(p.name for d in devices for p in d.mig)),
        mig_shares={p.name: Fraction(p.memory_mib, d.memory_mib) for d in devices for p in d.mig},
        memory_mib=max(d.memory_mib for d in devices),
        fractions=any(not d.mig for d in devices),
    )


def parse(context: Context, person: Person, raw: Mapping[str, Any]) -> Request:
    """Checked options. Raises `InvalidOptions`."""
    # Nothing in them depends on what is free.
    return options.parse(raw, _offer(context, person, partial(_group, context, person)))


async def ask(
    context: Context,
    person: Person,
    raw: Mapping[str, Any],
    *,
    server: str | None = None,
    awaited: bool = False,
    keepalive_s: int | None = None,
    who: str = "",
) -> list[Record]:
    """Checks and records a wish. `server` None takes the asked name, or the first free one."""
    with _counted(context, raw):
        request = parse(context, person, raw)
        if server is None and request.name:
            if request.name in _taken(context, person):
                sentence = _in_use(request.name)
                raise Conflict(sentence, fields={"name": sentence})
            server = request.name
        return await context.broker.ask(
            person, server, request, awaited=awaited, keepalive_s=keepalive_s, who=who
        )


@contextmanager
def _counted(context: Context, raw: Mapping[str, Any]) -> Iterator[None]:
    """Counts a refusal under the group that was asked for, if there is such a one."""
    try:
        yield
    except PublicError as error:
        group = raw.get("group") or "default"
        known = isinstance(group, str) and group in context.broker.scheduler.halls
        context.broker.tally.refused(group if known else "unknown", error.reason)
        raise


def _taken(context: Context, person: Person) -> set[str]:
    """The names of a person's live sessions; the nameless one has "" and takes no name."""
    return {record.server for record in context.broker.of_user(person.name) if record.server}


def _in_use(name: str) -> str:
    return f"Name: you have a session called “{name}” already; choose another name."


def check(
    context: Context, person: Person, raw: Mapping[str, Any], *, new: bool = False
) -> tuple[dict[str, str], Outlook | None]:
    """What is wrong by field, or what would happen: the form's live answer.

    `new` says that the name would be a new session's; the Hub's form is for a server that the Hub knows is free.
    """
    try:
        request = parse(context, person, raw)
        policy.check(context.settings, person, request, context.broker.holdings(None, person.name, request))
        if new and request.name in _taken(context, person):
            return {"name": _in_use(request.name)}, None
    except InvalidOptions as error:
        return error.fields, None
    except PublicError as error:
        return error.fields, Outlook("never", error.message)
    return {}, _outlook(context, person.name, request)


def offers(context: Context, record: Record, person: Person) -> list[changes.Offer]:
    """With which changes a waiting request would start at once; empty for one that does not wait. `person` is its owner
    as the Hub knows them now: what they could use when they asked, they may not be able to any more.
    """
    if record.request.project is not None and record.request.project not in person.groups:
        return []
    groups = {
        group.name: group
        for group in context.settings.groups
        if group.name in context.broker.scheduler.halls
        and group.open_to(person)
        and group.has_image(record.request.version)
        and record.request.session_type in group.session_types
        and set(record.request.folders) <= set(policy.mounts(context.settings, group))
        and _can_count(record.request, group.unit)
    }
    if record.state != State.QUEUED or record.request.group not in groups:
        return []
    image = next((i for i in context.images.offers() if i.version == record.request.version), None)
    room = Room(
        {name: group.unit for name, group in groups.items()},
        {name: group.title for name, group in groups.items()},
        *((image.minimum_cpu_milli, image.minimum_memory_mib) if image is not None else ()),
    )
    others = context.broker.holdings(None, record.user, record.request, without=record.id)
    found = []
    for offer in changes.offers(context.broker.scheduler, record.id, room, context.now_ms()):
        try:
            policy.check(context.settings, person, offer.request, others, record.request)
        except PublicError:
            continue
        found.append(offer)
    return found


def _can_count(request: Request, unit: Unit) -> bool:
    """Whether the group's unit has the amount at all."""
    wish = request.wish
    return wish is None or wish.profile is not None or unit.neighbours(unit.fgpu(wish.share)) is None


def _outlook(context: Context, user: str, request: Request) -> Outlook:
    scheduler = context.broker.scheduler
    hall, group = scheduler.halls[request.group], context.settings.group(request.group)
    unit, title = (group.unit, group.title) if group else (Unit(), request.group)
    newest = Waiting(
        "",
        LAST,
        user,
        request,
        priority=request.priority,
        not_before_ms=request.not_before_ms,
        after=frozenset(request.after),
        caps=policy.caps_of(context.settings, user, request),
        ids=("",) * request.count if request.gang else (),
    )
    if not scheduler.starts_now(newest, context.now_ms()):
        wants = (request.wish, request.cpu_milli, request.memory_mib)
        if hall.empty.choose(*wants) is None:
            short = sentence(hall.books.shortage(*wants), request, unit, title)
            return Outlook("never", f"No machine of {title} is large enough for this. {short}")
        if newest.ids and not scheduler.could(newest):
            return Outlook("never", f"{title} has not room for {request.count} of this at the same moment.")
        if ahead := len(hall.line):
            waiting = "1 request waits" if ahead == 1 else f"{ahead} requests wait"
            return Outlook("later", f"{waiting} in {title}; yours would be number {ahead + 1}.")
        if hall.rules.on_hold:
            return Outlook("later", f"It would wait. The administrator holds {title} at present.")
        return Outlook(
            "later", f"It would wait. {sentence(hall.books.shortage(*wants), request, unit, title)}"
        )
    if request.count > 1 and not request.gang:
        return Outlook(
            "now", f"The first of {request.count} starts at once; the others as far as there is room."
        )
    if context.images.ready(request.version) is None:
        return Outlook("now", "It starts at once. The image version is made first, which takes a little.")
    return Outlook("now", "It starts at once.")
