"""What an administrator closes by hand: nodes and devices that take nothing new, groups in which nothing new starts.

Pure. What runs there goes on, whoever waits goes on waiting; and it is said whose doing that is, since when and why.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.model import Device


class Kind(StrEnum):
    """What can be closed. A node or a device is drained, a group is held."""

    NODE = "node"
    DEVICE = "device"
    GROUP = "group"


#: a kind and a name: the key of everything that is closed
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Switch:
    """One thing that is closed: since when (milliseconds since the epoch), by whom, and the reason that was given."""

    kind: Kind
    name: str
    since_ms: int
    who: str
    why: str


Switches = Mapping[Key, Switch]


def shut(book: NodeBook, empty: NodeBook, closed: Collection[Key]) -> NodeBook:
    """What may be given of a node's remainder: nothing of a drained node, no part of a drained device.

    `empty` is the node with nothing on it and nothing closed, which says what its devices really are.
    """
    facts = {one.device.id: one.device for one in empty.devices}
    devices = tuple(
        replace(one, device=_shut(facts[one.device.id], closed)) if one.device.id in facts else one
        for one in book.devices
    )
    return replace(book, open=empty.open and (Kind.NODE, book.node) not in closed, devices=devices)


def _shut(device: Device, closed: Collection[Key]) -> Device:
    return replace(device, healthy=device.healthy and (Kind.DEVICE, device.id) not in closed)


def concern(book: NodeBook, switches: Switches) -> list[Switch]:
    """What is closed of a node: itself, or some of its devices."""
    keys = [(Kind.NODE, book.node), *((Kind.DEVICE, one.device.id) for one in book.devices)]
    return [switches[key] for key in keys if key in switches]


def sentence(switch: Switch, title: str) -> str:
    """Who closes what since when, and why; `title` is what people call it."""
    verb = "holds" if switch.kind is Kind.GROUP else "drains"
    return f"The administrator {verb} {title} {reason(switch)}"


def reason(switch: Switch) -> str:
    """Since when, and the reason that was given, as the end of a sentence."""
    moment = datetime.fromtimestamp(switch.since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    why = switch.why.strip()
    return f"since {moment}: {why}{'' if why.endswith(('.', '!', '?')) else '.'}"
