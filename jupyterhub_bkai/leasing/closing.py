"""What an administrator does by hand, as commands of the broker: drain, hold, and open again; another priority.

Each is one transaction with a row of `changes` (or a transition of the request) that says who did it, when and why.
"""

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

from jupyterhub_bkai.errors import Conflict, NotFound
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.draft import Command, Draft
from jupyterhub_bkai.leasing.lifecycle import State
from jupyterhub_bkai.leasing.switches import Kind, Switch
from jupyterhub_bkai.options import shown
from jupyterhub_bkai.store.records import Record


def close(broker: Broker, kind: Kind, name: str, who: str, why: str) -> Command[Switch]:
    """Has a node or device take nothing new, or nothing new start in a group. Closed again, it gets the new reason and
    has been closed since the first time. Raises `NotFound` for an unknown name.
    """

    def command(draft: Draft) -> Switch:
        _known(broker, kind, name)
        before = draft.switches.get((kind, name))
        since_ms = before.since_ms if before is not None else draft.now.wall_ms
        switch = Switch(kind, name, since_ms, who, why)
        draft.switch(switch, who)
        return switch

    return command


def reopen(broker: Broker, kind: Kind, name: str, who: str) -> Command[bool]:
    """Takes that back; False when it was not closed. Raises `NotFound` for an unknown name."""

    def command(draft: Draft) -> bool:
        switch = draft.switches.get((kind, name))
        if switch is None:
            _known(broker, kind, name)
            return False
        draft.switch(switch, who, gone=True)
        return True

    return command


def prioritise(record_id: str, priority: int, who: str) -> Command[Record]:
    """Gives a waiting request another priority (0–100); it keeps its place in time. Raises `Conflict` when it does not
    wait any more.
    """

    def command(draft: Draft) -> Record:
        record = draft.get(record_id)
        if record.state != State.QUEUED:
            raise Conflict("It does not wait any more, so its priority changes nothing.")
        gang = record.request.gang
        together = [
            one
            for one in draft.of_user(record.user)
            if one.state == State.QUEUED and (one.id == record.id or (gang and one.request.gang == gang))
        ]
        for one in together:  # those that start together are served together
            before = one.request.priority
            if before != priority:
                request = replace(one.request, priority=priority)
                draft.rewish(one, request, who, f"priority {before} → {priority}")
        return draft.get(record_id)

    return command


def _known(broker: Broker, kind: Kind, name: str) -> None:
    names: Iterable[str]
    if kind is Kind.GROUP:
        names, what = [group.name for group in broker.settings.groups], "resource group"
    elif kind is Kind.NODE:
        names, what = [node.name for node in broker.nodes], "node"
    else:
        names, what = [device.id for node in broker.nodes for device in node.devices], "device"
    known = set(names)
    if name in known:
        return
    near = get_close_matches(name, known, 1, 0.3)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise NotFound(f"There is no {what} {shown(name)}{hint}.")
