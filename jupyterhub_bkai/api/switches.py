"""What administrators close by hand: drained nodes and devices, held groups."""

from typing import Annotated

import msgspec

from jupyterhub_bkai.api.devices import Closed, closed
from jupyterhub_bkai.api.operations import Call, Operation
from jupyterhub_bkai.errors import NotAllowed
from jupyterhub_bkai.leasing import closing
from jupyterhub_bkai.leasing.switches import Kind


class Reason(msgspec.Struct):
    """Why it is closed; everybody who waits because of it reads this."""

    why: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]


def administrators(call: Call) -> str:
    """The name of the administrator who calls. Raises `NotAllowed` for anybody else."""
    if not call.caller.person.admin:
        raise NotAllowed("Only administrators may do this.")
    return call.caller.person.name


async def _close(call: Call, kind: Kind) -> Closed:
    who, broker = administrators(call), call.context.broker
    why = " ".join(call.body.why.split()) or "no reason given"
    switch = await broker.submit(closing.close(broker, kind, call.path["name"], who, why))
    found = closed(call, switch)
    assert found is not None
    return found


async def _open(call: Call, kind: Kind) -> None:
    who, broker = administrators(call), call.context.broker
    await broker.submit(closing.reopen(broker, kind, call.path["name"], who))


async def drain_node(call: Call) -> Closed:
    """Nothing new starts on the node; what runs there goes on."""
    return await _close(call, Kind.NODE)


async def undrain_node(call: Call) -> None:
    """The node takes sessions again."""
    await _open(call, Kind.NODE)


async def drain_device(call: Call) -> Closed:
    """Nothing new starts on the device; what holds a part of it goes on."""
    return await _close(call, Kind.DEVICE)


async def undrain_device(call: Call) -> None:
    """The device is given out again."""
    await _open(call, Kind.DEVICE)


async def hold_group(call: Call) -> Closed:
    """Nothing new starts in the group; people go on asking, and wait."""
    return await _close(call, Kind.GROUP)


async def release_group(call: Call) -> None:
    """Those who wait start again, in their order."""
    await _open(call, Kind.GROUP)


OPERATIONS = (
    Operation("POST", "/nodes/{name}/drain", "Start nothing new on a node", drain_node, Closed, Reason),
    Operation("DELETE", "/nodes/{name}/drain", "Let a node take sessions again", undrain_node, status=204),
    Operation("POST", "/devices/{name}/drain", "Start nothing new on a device", drain_device, Closed, Reason),
    Operation("DELETE", "/devices/{name}/drain", "Give a device out again", undrain_device, status=204),
    Operation("POST", "/groups/{name}/hold", "Start nothing new in a resource group", hold_group, Closed, Reason),
    Operation("DELETE", "/groups/{name}/hold", "Let those who wait in a group start again", release_group, status=204),
)  # fmt: skip
