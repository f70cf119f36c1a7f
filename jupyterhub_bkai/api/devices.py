"""Machines and devices: what there is, what is booked, who holds it, what is drained."""

from collections.abc import Iterable

import msgspec

from jupyterhub_bkai.api import views
from jupyterhub_bkai.api.operations import Call, Operation
from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.gpus.slices import Book, usable_mib
from jupyterhub_bkai.leasing.lifecycle import HOLDING, PUBLIC, State
from jupyterhub_bkai.leasing.switches import Kind, Switch
from jupyterhub_bkai.model import Device, Node
from jupyterhub_bkai.store.records import Record


class Closed(msgspec.Struct):
    """Since when and why something takes nothing new; who closed it, administrators see."""

    since: str
    why: str
    who: str | None = None


class Amount(msgspec.Struct):
    """How much there is, how much of it is booked, and the most that can be: processors are promised several times
    over where the administrator lets them."""

    total: int
    booked: int
    most: int


class Holder(msgspec.Struct):
    """A slice somebody holds; whose it is, administrators see, and everybody their own."""

    share: str
    memory_mib: int
    sm_milli: int
    session: str | None = None
    user: str | None = None
    name: str | None = None
    state: str | None = None
    mig: views.Mig | None = None


class DeviceView(msgspec.Struct):
    """One device and what of it is booked. `memory_mib` is all of its memory, `reserve_mib` what of it is never given;
    `mig_slots` is how many memory slots MIG instances are placed on."""

    id: str
    index: int
    slot: str
    model: str
    memory_mib: int
    reserve_mib: int
    booked_mib: int
    sms: int
    booked_sm_milli: int
    share_free: str
    divisible: bool
    healthy: bool
    drained: Closed | None
    mig: list[str]
    mig_slots: int
    fake: bool
    slices: list[Holder]


class NodeView(msgspec.Struct):
    """One machine. `fragmentation` is the share of what is free on it that usual requests cannot use (administrators;
    null when nothing is free or nothing is asked for)."""

    name: str
    cpu: Amount
    memory_mib: Amount
    drained: Closed | None
    groups: list[str]
    fragmentation: float | None
    devices: list[DeviceView]


class Devices(msgspec.Struct):
    """All machines with their devices."""

    nodes: list[NodeView]


def closed(call: Call, switch: Switch | None) -> Closed | None:
    """A switch as this caller sees it."""
    if switch is None:
        return None
    who = switch.who if call.caller.person.admin else None
    return Closed(views.iso(switch.since_ms) or "", switch.why, who)


async def devices(call: Call) -> Devices:
    """What there is, what is booked, what is drained."""
    broker = call.context.broker
    held: dict[str, list[Record]] = {}
    for record in broker.records.values():
        if record.state in HOLDING and record.node is not None:
            held.setdefault(record.node, []).append(record)
    mine = [group.name for group in call.context.settings.groups if group.open_to(call.caller.person)]
    members = {name: broker.nodes_of(name) for name in mine}
    wants = call.context.gauges.wants() if call.caller.person.admin else {}
    found = []
    for node in broker.nodes:
        view = _node(call, node, held.get(node.name, []))
        view.groups = [name for name, nodes in members.items() if node.name in nodes]
        if wants and (book := broker.scheduler.node(node.name)) is not None:
            wanted = [wants[name] for name in view.groups if name in wants]
            view.fragmentation = call.context.gauges.fragmentation([book], wanted)
        found.append(view)
    return Devices(found)


def _node(call: Call, node: Node, held: list[Record]) -> NodeView:
    broker = call.context.broker
    book = broker.scheduler.node(node.name) or NodeBook.empty(node)
    cpu = sum(record.request.cpu_milli for record in held)
    memory = sum(record.request.memory_mib for record in held)
    facts = {device.id: device for device in node.devices}
    holders: dict[str, list[Holder]] = {}
    for record in held:
        for device, holder in _holders(call, record):
            holders.setdefault(device, []).append(holder)
    return NodeView(
        node.name,
        Amount(node.cpu_milli, cpu, cpu + book.cpu_milli),
        Amount(node.memory_mib, memory, node.memory_mib),
        closed(call, broker.switches.get((Kind.NODE, node.name))),
        [],
        None,
        [
            _device(call, one, facts.get(one.device.id), holders.get(one.device.id, []))
            for one in book.devices
        ],
    )


def _holders(call: Call, record: Record) -> Iterable[tuple[str, Holder]]:
    visible = call.caller.may_see(record.user)
    for piece in record.slices:
        mig = views.Mig(piece.mig.profile, piece.mig.start, piece.mig.size) if piece.mig else None
        holder = Holder(str(piece.share), piece.memory_mib, piece.sm_milli, mig=mig)
        if visible:
            holder.session, holder.user = record.id, record.user
            holder.name, holder.state = record.server, PUBLIC[State(record.state)]
        yield piece.device, holder


def _device(call: Call, book: Book, fact: Device | None, holders: list[Holder]) -> DeviceView:
    # The scheduler's book of a drained device says that it takes nothing; what is true of it, the machine says.
    device = fact or book.device
    return DeviceView(
        id=device.id,
        index=device.index,
        slot=device.slot,
        model=device.model,
        memory_mib=device.memory_mib,
        reserve_mib=device.memory_mib - usable_mib(device),
        booked_mib=usable_mib(device) - book.free_mib,
        sms=device.sms,
        booked_sm_milli=device.sms * 1000 - book.free_sm_milli,
        share_free=str(book.left_share),
        divisible=device.divisible,
        healthy=device.healthy,
        drained=closed(call, call.context.broker.switches.get((Kind.DEVICE, device.id))),
        mig=[profile.name for profile in device.mig],
        mig_slots=max((place + p.size for p in device.mig for place in p.placements), default=0),
        fake=device.fake,
        slices=holders,
    )


OPERATIONS = (Operation("GET", "/devices", "Machines and devices, and what is booked", devices, Devices),)
