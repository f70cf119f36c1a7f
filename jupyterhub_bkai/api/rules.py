"""The rules: resource groups, people's and projects' policies, presets. Only administrators see and change them."""

from typing import Any

import msgspec

from jupyterhub_bkai import settings
from jupyterhub_bkai.api.operations import Call, Operation
from jupyterhub_bkai.errors import NotAllowed


class RulesView(msgspec.Struct):
    """All rules by kind ("groups", "users", "projects", "presets") and name, as they would stand in the settings file.
    `revision` changes whenever one of them does.
    """

    revision: str
    rules: dict[str, dict[str, dict[str, Any]]]


class Line(msgspec.Struct):
    """One place of a rule: what stood there, and what stands there now; empty for nothing."""

    place: str
    before: str
    after: str


class DifferenceView(msgspec.Struct):
    """How one rule changes: "added", "removed" or "changed"."""

    kind: str
    name: str
    change: str
    lines: list[Line]


class Starts(msgspec.Struct):
    """A waiting session that would start at once."""

    id: str
    user: str
    name: str
    group: str


class Change(msgspec.Struct):
    """Rules to put, by kind and name, or null to remove one; what is not named stays. With `only_check` nothing is
    changed. `revision` is that of the rules one has seen; without it whatever others did meanwhile is changed over.
    """

    rules: dict[str, dict[str, dict[str, Any] | None]]
    revision: str | None = None
    only_check: bool = False


class Changed(msgspec.Struct):
    """What differs by a change, and who of those that wait starts by it."""

    revision: str
    differences: list[DifferenceView]
    starts: list[Starts]


def _administrator(call: Call) -> None:
    if not call.caller.person.admin:
        raise NotAllowed("Only administrators see and change the rules.")


async def show(call: Call) -> RulesView:
    """All rules."""
    _administrator(call)
    rules = call.context.broker.rules
    found = {
        kind: {n: dict(b) for n, b in named.items()} for kind, named in settings.bodies_of(rules).items()
    }
    return RulesView(settings.revision(rules), found)


async def change(call: Call) -> Changed:
    """Changes rules, or says what would change by it."""
    _administrator(call)
    broker, body = call.context.broker, call.body
    _, entries, future = broker.proposed(body.rules)
    starts = [broker.records[id] for id in broker.would_start(future) if id in broker.records]
    if body.only_check:
        found = settings.differences(settings.bodies_of(broker.rules), settings.bodies_of(entries))
    else:
        seen = body.revision or settings.revision(broker.rules)
        found = await broker.change_rules(body.rules, seen, call.caller.person.name)
    return Changed(
        settings.revision(broker.rules),
        [DifferenceView(d.kind, d.name, d.change, [Line(*line) for line in d.lines]) for d in found],
        [Starts(r.id, r.user, r.server or r.request.name or "default", r.request.group) for r in starts],
    )


OPERATIONS = (
    Operation("GET", "/rules", "Groups, policies and presets (administrators)", show, RulesView),
    Operation(
        "PUT",
        "/rules",
        "Change groups, policies and presets, or see what would change",
        change,
        Changed,
        Change,
    ),
)
