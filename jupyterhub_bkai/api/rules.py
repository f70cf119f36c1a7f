"""The rules: resource groups, people's and projects' policies, presets. Only administrators see and change them."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from jupyterhub_bkai import rulebook, settings
from jupyterhub_bkai.api.operations import Call, Operation, Query, Text
from jupyterhub_bkai.errors import InvalidOptions, NotAllowed, SettingsError

Rules = dict[str, dict[str, dict[str, Any] | None]]


class SettingView(msgspec.Struct):
    """One place of a rule: its label and help, and what kind of value it has."""

    place: str
    label: str
    help: str
    kind: str
    choices: list[str]


class RulesView(msgspec.Struct):
    """All rules by kind ("groups", "users", "projects", "presets") and name, as they would stand in the settings file,
    and what can be said in each. `revision` changes whenever one of them does.
    """

    revision: str
    rules: dict[str, dict[str, dict[str, Any]]]
    fields: dict[str, list[SettingView]]
    slots: list[str]


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
    """Rules to put, by kind and name, or null to remove one; what is not named stays. Or the same as a `text` in YAML,
    like the settings file; with `prune` the rules of each kind it names are all there are.

    With `only_check` nothing is changed. `revision` is that of the rules one has seen; without it what others did
    meanwhile is changed over.
    """

    rules: Rules = {}
    text: str | None = None
    prune: bool = False
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


async def show(call: Call) -> RulesView | Text:
    """All rules."""
    _administrator(call)
    broker = call.context.broker
    found = rulebook.bodies_of(broker.rules)
    if call.query.get("format") == "yaml":
        return Text(rulebook.as_yaml(found), "application/yaml; charset=utf-8", "rules.yaml")
    return RulesView(
        rulebook.revision(broker.rules),
        {kind: {name: dict(body) for name, body in named.items()} for kind, named in found.items()},
        {
            kind: [SettingView(f.place, f.label, f.help, f.kind, list(f.choices)) for f in fields]
            for kind, fields in rulebook.FIELDS.items()
        },
        list(dict.fromkeys(device.slot for node in broker.nodes for device in node.devices)),
    )


async def change(call: Call) -> Changed:
    """Changes rules, or says what would change by it."""
    _administrator(call)
    broker, body = call.context.broker, call.body
    changes = await _changes(call)
    _, entries, future = broker.proposed(changes)
    starts = [broker.records[id] for id in broker.would_start(future) if id in broker.records]
    if body.only_check:
        found = rulebook.differences(rulebook.bodies_of(broker.rules), rulebook.bodies_of(entries))
    else:
        seen = body.revision or rulebook.revision(broker.rules)
        found = await broker.change_rules(changes, seen, call.caller.person.name)
    return Changed(
        rulebook.revision(broker.rules),
        [DifferenceView(d.kind, d.name, d.change, [Line(*line) for line in d.lines]) for d in found],
        [Starts(r.id, r.user, r.server or r.request.name or "default", r.request.group) for r in starts],
    )


async def _changes(call: Call) -> Mapping[str, Mapping[str, settings.Body | None]]:
    broker, body = call.context.broker, call.body
    if body.text is None:
        found: Mapping[str, Mapping[str, settings.Body | None]] = body.rules
        return found
    try:
        # Beside the loop: to read a megabyte of YAML takes half a minute.
        site, bodies = await asyncio.to_thread(settings.split, body.text)
    except SettingsError as error:
        raise InvalidOptions({place: f"{place}: {said}" for place, said in error.problems}) from None
    later = "this is read when the service starts; write it into its settings file, or leave it out here."
    other = [key for key, value in site.items() if key != "version" and broker.site.get(key) != value]
    if other:
        raise InvalidOptions({key: f"{key}: {later}" for key in other})
    return rulebook.whole(bodies, broker.rules) if body.prune else bodies


OPERATIONS = (
    Operation(
        "GET", "/rules", "Groups, policies and presets (administrators)", show, RulesView,
        query=(Query("format", "json or yaml."),),
    ),
    Operation(
        "PUT", "/rules", "Change groups, policies and presets, or see what would change", change, Changed, Change
    ),
)  # fmt: skip
