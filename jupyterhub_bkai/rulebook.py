"""The rules as they are kept in the database, beside what the settings file had: what counts, and what a change is.

Pure. Owns how the file and changes by hand go together: an entry of the file is taken over when it changed there since
it was last read, and what was changed by hand stays until then.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus.fit import Placement
from jupyterhub_bkai.leasing.queue import Discipline
from jupyterhub_bkai.model import SessionType
from jupyterhub_bkai.options import KEYS, shown
from jupyterhub_bkai.settings import KINDS, OWN_OPTIONS, Bodies, Body


def text_of(body: Body) -> str:
    """A rule's body as it is stored: the same text for the same rule."""
    return json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule: what counts (None: removed by hand), and what the file had when it was last read (None: nothing)."""

    kind: str
    name: str
    body: str | None
    seeded: str | None


def revision(entries: Iterable[Entry]) -> str:
    """A short text that changes whenever one of the rules does."""
    rules = sorted((e.kind, e.name, e.body) for e in entries if e.body is not None)
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:16]


def changed(entries: Iterable[Entry], changes: Mapping[str, Mapping[str, Body | None]]) -> list[Entry]:
    """The entries that are to be stored anew when rules are put (a body) or removed (None) by hand. Raises
    `SettingsError` for a kind that is none.
    """
    known = {(entry.kind, entry.name): entry for entry in entries}
    if strange := [kind for kind in changes if kind not in KINDS]:
        raise SettingsError(
            [(shown(k), f"there are no such rules; there are {', '.join(KINDS)}.") for k in strange]
        )
    found = []
    for kind, rules in changes.items():
        for name, body in rules.items():
            before = known.get((kind, name))
            now = text_of(body) if body is not None else None
            if now != (before.body if before else None):
                found.append(Entry(kind, name, now, before.seeded if before else None))
    return found


def put(entries: Iterable[Entry], new: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries with new ones in their places."""
    found = {(entry.kind, entry.name): entry for entry in entries} | {(e.kind, e.name): e for e in new}
    return tuple(entry for entry in found.values() if entry.body is not None or entry.seeded is not None)


def whole(bodies: Bodies, entries: Iterable[Entry]) -> dict[str, dict[str, Body | None]]:
    """Changes after which these are all the rules there are of each kind that they name."""
    return {
        kind: {**{e.name: None for e in entries if e.kind == kind}, **named}
        for kind, named in bodies.items()
        if named
    }


def as_yaml(bodies: Bodies) -> str:
    """Rules as they would stand in the settings file."""
    plain = {
        kind: {name: dict(body) for name, body in rules.items()} for kind, rules in bodies.items() if rules
    }
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=False))


def bodies_of(entries: Iterable[Entry]) -> Bodies:
    """The rules that count."""
    found: dict[str, dict[str, Body]] = {kind: {} for kind in KINDS}
    for entry in entries:
        if entry.body is not None and entry.kind in found:
            found[entry.kind][entry.name] = json.loads(entry.body)
    return found


def taken_over(entries: Iterable[Entry], file: Bodies) -> Iterator[tuple[Entry, bool]]:
    """What becomes of the stored rules when the file says `file`: each entry that is to be stored anew, and whether
    what counts changed by it. What was changed elsewhere stays until it is changed in the file.
    """
    known = {(entry.kind, entry.name): entry for entry in entries}
    for kind, rules in file.items():
        for name, body in rules.items():
            now, before = text_of(body), known.pop((kind, name), None)
            if before is None or before.seeded != now:
                yield Entry(kind, name, now, now), before is None or before.body != now
    for entry in known.values():
        if entry.seeded is not None:  # it stood in the file, and does not any more
            yield Entry(entry.kind, entry.name, None, None), entry.body is not None


@dataclass(frozen=True, slots=True)
class Difference:
    """How one rule changes: "added", "removed" or "changed"; each place in it, with what stood there and what will."""

    kind: str
    name: str
    change: str
    lines: tuple[tuple[str, str, str], ...] = ()


def differences(before: Bodies, after: Bodies) -> list[Difference]:
    """Every rule that is not the same in both."""
    found = []
    for kind in KINDS:
        old, new = before.get(kind, {}), after.get(kind, {})
        for name in [*new, *(name for name in old if name not in new)]:
            was, will = old.get(name), new.get(name)
            if was is not None and will is not None and text_of(was) == text_of(will):
                continue
            change = (
                "changed" if was is not None and will is not None else "added" if was is None else "removed"
            )
            left, right = dict(_flat(was or {})), dict(_flat(will or {}))
            places = [*right, *(place for place in left if place not in right)]
            lines = [(p, left.get(p, ""), right.get(p, "")) for p in places if left.get(p) != right.get(p)]
            found.append(Difference(kind, name, change, tuple(lines)))
    return found


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _flat(below, f"{place}.{key}" if place else str(key))
    elif place:
        yield place, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# -- what a rule can say


@dataclass(frozen=True, slots=True)
class Setting:
    """One place of a rule, for whoever shows or describes it. `kind` is text, names, number, duration, flag, choice,
    limits (amounts by name, below each of total, pending, running, size) or options.
    """

    place: str
    label: str
    help: str
    kind: str = "text"
    choices: tuple[str, ...] = ()


_LIMITS_SETTING = Setting(
    "limits",
    "Limits",
    "Empty: no limit. Accelerators are counted in devices; memory is such as 16g. What is too much in all, waiting or "
    "in each session is refused; what is too much running waits.",
    "limits",
)
_PRIORITIES = (
    Setting("priority", "Priority", "Of a request that names none, 0 to 100; 10 if empty.", "number"),
    Setting("max_priority", "Highest priority", "That may be asked for, 0 to 100.", "number"),
    Setting("max_duration", "Longest session", "Such as 8h or 2d; a number alone is seconds.", "duration"),
)
FIELDS: Mapping[str, tuple[Setting, ...]] = {
    "groups": (
        Setting("title", "Title", "What people call it."),
        Setting("public", "Open to everybody", "Otherwise to the people and Hub groups below.", "flag"),
        Setting("users", "People", "The Hub's names of those who may use it.", "names"),
        Setting("hub_groups", "Hub groups", "Whose members may use it.", "names"),
        Setting("nodes", "Machines", "By name, with commas; empty means all.", "names"),
        Setting(
            "images",
            "Image versions",
            "Such as sklearn or pandas/2.3; empty means all.",
            "names",
        ),
        Setting(
            "session_types",
            "Session types",
            "Empty: interactive and batch.",
            "names",
            tuple(str(kind) for kind in SessionType),
        ),
        Setting("fgpu_per_gpu", "fGPU in a device", "So many fGPU make one device; 1 if empty.", "number"),
        Setting("quantum", "Smallest step", "Amounts are multiples of so many fGPU; 0.1 if empty.", "number"),
        Setting(
            "cpu_overcommit",
            "Times that cores are promised",
            "Memory and accelerators are promised once; 4 if empty.",
            "number",
        ),
        Setting(
            "default_duration", "Usual duration", "Of a session that names none, such as 8h.", "duration"
        ),
        Setting(
            "max_duration", "Longest session", "Such as 8h or 2d; a number alone is seconds.", "duration"
        ),
        Setting(
            "pending_timeout", "Longest wait", "Such as 3d; a request that waited so long ends.", "duration"
        ),
        Setting("max_priority", "Highest priority", "That may be asked for here, 0 to 100.", "number"),
        Setting(
            "queue.discipline",
            "Who is next",
            "The order of the queue.",
            "choice",
            tuple(map(str, Discipline)),
        ),
        Setting(
            "queue.placement",
            "Where it starts",
            "On which machine of several that would do.",
            "choice",
            tuple(map(str, Placement)),
        ),
        Setting("queue.backfill", "Others may pass", "Where that does not put off the first one.", "flag"),
        Setting("queue.skip_after", "Pass the first after", "So many tries; empty means never.", "number"),
        Setting(
            "queue.half_life", "Half-life of use", "Where who used least is next; 7d if empty.", "duration"
        ),
        Setting(
            "queue.depth",
            "Different requests tried",
            "At most so many that do not fit, at each look; 200 if empty.",
            "number",
        ),
        Setting("limits", "Limits of each person", _LIMITS_SETTING.help, "limits"),
    ),
    "users": (_LIMITS_SETTING, *_PRIORITIES),
    "projects": (_LIMITS_SETTING, *_PRIORITIES),
    "presets": (
        Setting("title", "Title", "What people call it."),
        Setting("public", "Open to everybody", "Otherwise to the Hub groups below.", "flag"),
        Setting("hub_groups", "Hub groups", "Whose members may choose it.", "names"),
        Setting("groups", "Resource groups", "In which it can be chosen; empty means all.", "names"),
        Setting(
            "options",
            "Options",
            "What it fills in; what is empty stays as it was.",
            "options",
            tuple(key for key in KEYS if key not in OWN_OPTIONS),
        ),
    ),
}
