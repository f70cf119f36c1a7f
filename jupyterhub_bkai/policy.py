"""What a person may have: the administrator's settings, and the check of a request against them.

Pure. `load` turns the settings file into frozen rules or lists every problem with its place; `offer` says what one
person can choose from; `check` raises `PolicyDenied` with the policy and what is left.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, TypeVar

import yaml

from jupyterhub_bkai.errors import PolicyDenied, SettingsError
from jupyterhub_bkai.gpus.fit import Placement
from jupyterhub_bkai.gpus.slices import Unit, number
from jupyterhub_bkai.leasing.queue import Discipline
from jupyterhub_bkai.leasing.scheduler import Rules
from jupyterhub_bkai.model import Mount, Person, Request, SessionType
from jupyterhub_bkai.options import amount, seconds, shown

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Folder:
    """A shared folder the administrator declared: its absolute path and who gets it how ("ro"/"rw" by group)."""

    name: str
    path: str
    groups: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most one person may have at a time in a resource group; None is no limit."""

    sessions: int | None = None
    pending: int | None = None
    devices: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A resource group: nodes, the unit its accelerators are counted in, and who may use it for what."""

    name: str
    title: str
    nodes: tuple[str, ...] = ()
    unit: Unit = field(default_factory=Unit)
    session_types: tuple[SessionType, ...] = (SessionType.INTERACTIVE, SessionType.BATCH)
    public: bool = True
    users: frozenset[str] = frozenset()
    hub_groups: frozenset[str] = frozenset()
    images: tuple[str, ...] = ()
    cpu_overcommit: Fraction = Fraction(4)
    default_duration_s: int | None = None
    max_duration_s: int | None = None
    limits: Limits = field(default_factory=Limits)
    rules: Rules = field(default_factory=Rules)

    def open_to(self, person: Person) -> bool:
        """True when the person may use the group at all."""
        return (
            self.public
            or person.admin
            or person.name in self.users
            or not self.hub_groups.isdisjoint(person.groups)
        )

    def has_image(self, version: str) -> bool:
        """True when sessions of the group may use the image version (an empty list allows every one)."""
        return not self.images or any(version == i or version.startswith(f"{i}/") for i in self.images)


@dataclass(frozen=True, slots=True)
class Settings:
    """The administrator's settings file, checked."""

    groups: tuple[Group, ...] = (Group("default", "Default"),)
    folders: tuple[Folder, ...] = ()
    devices: str = "auto"
    reserve_mib: int | None = None
    default_version: str | None = None
    queue_limit_s: int = 7 * 86400
    start_limit_s: int = 600
    image_roots: tuple[str, ...] = ()
    subdomain_host: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def group(self, name: str) -> Group | None:
        """The group of that name."""
        return next((group for group in self.groups if group.name == name), None)


@dataclass(frozen=True, slots=True)
class Holding:
    """What one live or waiting request of a person counts."""

    group: str
    waiting: bool
    devices: Fraction = Fraction(0)


def check(settings: Settings, person: Person, request: Request, holdings: Sequence[Holding]) -> None:
    """Raises `PolicyDenied` when the request would exceed a limit; `holdings` are the person's in all groups."""
    group = settings.group(request.group)
    if group is None or not group.open_to(person):
        raise PolicyDenied(
            f"You may not use the resource group {shown(request.group)}.", fields={"group": "not open to you"}
        )
    if not group.has_image(request.version):
        raise _denied("version", f"{group.title} does not allow the image version {request.version}.")
    mine = [holding for holding in holdings if holding.group == group.name]
    limits = group.limits
    if limits.sessions is not None and len(mine) + request.count > limits.sessions:
        left = max(0, limits.sessions - len(mine))
        raise _denied(
            "count",
            f"{group.title} allows each person {limits.sessions} sessions at a time; you can have {left} more.",
        )
    waiting = sum(holding.waiting for holding in mine)
    # Whether they start at once is not known yet, so all of them count.
    if limits.pending is not None and waiting + request.count > limits.pending:
        raise _denied(
            "count",
            f"{group.title} allows each person {limits.pending} waiting sessions at a time; "
            f"you can ask for {max(0, limits.pending - waiting)} more.",
        )
    if limits.devices is not None and request.wish is not None:
        held = sum((holding.devices for holding in mine), Fraction(0))
        asked = request.wish.share * request.wish.count * request.count
        if held + asked > limits.devices:
            left_over = max(Fraction(0), limits.devices - held)
            raise _denied(
                "fgpu",
                f"{group.title} allows each person {number(group.unit.fgpu(limits.devices))} fGPU at a time; "
                f"you can have {number(group.unit.fgpu(left_over))} more.",
            )


def _denied(key: str, sentence: str) -> PolicyDenied:
    return PolicyDenied(sentence, reason="quota", fields={key: sentence})


# -- reading the settings file ----------------------------------------------------------------

DEFAULT_SETTINGS = """\
# Settings of this site. Changes take effect when the service is restarted.
version: 1

# Where accelerators come from: auto (NVIDIA if there is one, else fake), nvidia,
# fake:<sample> (two-80gb, eight-141gb-mig, one-8gb, two-fgpu, atom-npu) or fake:/path/to/file.toml
devices: auto

# People reach this site as https://hub.example.org, and the sessions of each person at a host name below it: pages in
# one person's session can then do nothing in another's name. Needs DNS for *.hub.example.org, and a certificate.
# subdomain_host: https://hub.example.org

groups:
  default:
    title: Default
    fgpu_per_gpu: 2        # so many fGPU make one device
    quantum: 0.1           # amounts are multiples of this many fGPU
    session_types: [interactive, batch]
    # public: false        # then only these:
    # users: [ada]
    # hub_groups: [vision]
    # images: [sklearn, pandas/2.3]
    # cpu_overcommit: 4    # processors may be promised so many times over; memory and accelerators never are
    # default_duration: 8h
    # max_duration: 2d
    limits: {sessions: 20, pending: 10}    # of each person at a time; also fgpu: 4
    # queue: {discipline: fifo, placement: balance, backfill: true}   # or lifo, drf, fair; pack, spread

# folders:
#   datasets:
#     path: /srv/datasets
#     groups: {default: ro}
"""


class _Problems:
    """Reads a mapping and notes every wrong place instead of stopping at the first."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, place: str, sentence: str) -> None:
        self.found.append((place, sentence))

    def mapping(self, value: Any, place: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            self.add(place, "expected names with values below it.")
            return {}
        if keys is not None:
            allowed = set(keys)
            for key in value:
                if key not in allowed:
                    self.add(
                        f"{place}.{shown(key)}" if place else shown(key),
                        f"unknown setting; known are {', '.join(sorted(allowed))}.",
                    )
        return value

    def texts(self, value: Any, place: str) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.add(place, "expected a list of names.")
            return ()
        return tuple(value)

    def one_of(self, value: Any, place: str, kinds: type[E], default: E) -> E:
        if value is None:
            return default
        try:
            return kinds(value)
        except ValueError:
            self.add(place, f"“{shown(value)}” is none of {', '.join(kinds)}.")
            return default

    def positive(self, value: Any, place: str, default: Fraction) -> Fraction:
        if value is None:
            return default
        found = amount(value)
        if found is None or found <= 0:
            self.add(place, f"“{shown(value)}” is not a number above 0.")
            return default
        return found

    def whole(self, value: Any, place: str) -> int | None:
        if value is None:
            return None
        found = amount(value)
        if found is None or found.denominator != 1:
            self.add(place, f"“{shown(value)}” is not a whole number.")
            return None
        return int(found)

    def duration(self, value: Any, place: str) -> int | None:
        if value is None:
            return None
        found = seconds(value)
        if found is None or found < 1:
            self.add(place, f"“{shown(value)}” is not a time such as 8h or 90m.")
        return found


_TOP = (
    "version",
    "devices",
    "reserve_mib",
    "groups",
    "folders",
    "default_version",
    "queue_limit",
    "start_limit",
    "images",
    "auth",
    "subdomain_host",
)
_GROUP = (
    "title", "nodes", "fgpu_per_gpu", "quantum", "session_types", "public", "users", "hub_groups", "images",
    "cpu_overcommit", "default_duration", "max_duration", "limits", "queue",
)  # fmt: skip


def load(text: str) -> Settings:
    """The settings in a YAML text. Raises `SettingsError` with every problem and its place."""
    problems = _Problems()
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        raise SettingsError(
            [(place, f"this is not YAML: {getattr(error, 'problem', None) or 'unreadable'}.")]
        ) from None
    top = problems.mapping(document, "", _TOP)
    if top.get("version", 1) != 1:
        problems.add("version", f"this release reads version 1, not {shown(top['version'])}.")
    groups = (
        tuple(
            _group(problems, name, body)
            for name, body in problems.mapping(top.get("groups"), "groups").items()
        )
        or Settings().groups
    )
    folders = tuple(
        _folder(problems, name, body, groups)
        for name, body in problems.mapping(top.get("folders"), "folders").items()
    )
    devices = top.get("devices", "auto")
    if not isinstance(devices, str):
        problems.add("devices", "expected auto, nvidia, fake:<sample> or the name of a source.")
        devices = "auto"
    images = problems.mapping(top.get("images"), "images", ("roots",))
    settings = Settings(
        groups=groups,
        folders=folders,
        devices=devices,
        reserve_mib=problems.whole(top.get("reserve_mib"), "reserve_mib"),
        default_version=top.get("default_version"),
        queue_limit_s=problems.duration(top.get("queue_limit"), "queue_limit") or 7 * 86400,
        start_limit_s=problems.duration(top.get("start_limit"), "start_limit") or 600,
        image_roots=problems.texts(images.get("roots"), "images.roots"),
        subdomain_host=_subdomain_host(problems, top.get("subdomain_host")),
        extra={"auth": top["auth"]} if "auth" in top else {},
    )
    if problems.found:
        raise SettingsError(problems.found)
    return settings


_ORIGIN = re.compile(r"https?://[a-z0-9](?:[a-z0-9.-]{0,200}[a-z0-9])?(?::[0-9]{1,5})?\Z")


def _subdomain_host(problems: _Problems, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _ORIGIN.match(value) or value.rpartition(".")[2].isdecimal():
        problems.add("subdomain_host", "expected an address with a name, such as https://hub.example.org.")
        return None
    return value


def _group(problems: _Problems, name: str, body: Any) -> Group:
    place = f"groups.{shown(name)}"
    raw = problems.mapping(body, place, _GROUP)
    unit = Unit(
        problems.positive(raw.get("fgpu_per_gpu"), f"{place}.fgpu_per_gpu", Fraction(1)),
        problems.positive(raw.get("quantum"), f"{place}.quantum", Fraction(1, 10)),
    )
    if (unit.per_device / unit.quantum).denominator != 1:
        problems.add(
            f"{place}.quantum",
            f"{number(unit.per_device)} fGPU (one device) must be a multiple of the quantum {number(unit.quantum)}.",
        )
    kinds = problems.texts(raw.get("session_types"), f"{place}.session_types")
    known = [str(kind) for kind in SessionType]
    for kind in kinds:
        if kind not in known:
            problems.add(f"{place}.session_types", f"“{shown(kind)}” is none of {', '.join(known)}.")
    limits = problems.mapping(raw.get("limits"), f"{place}.limits", ("sessions", "pending", "fgpu"))
    fgpu = problems.positive(limits.get("fgpu"), f"{place}.limits.fgpu", Fraction(0))
    default, most = (
        problems.duration(raw.get(key), f"{place}.{key}") for key in ("default_duration", "max_duration")
    )
    if default and most and default > most:
        problems.add(f"{place}.default_duration", "it is longer than max_duration.")
    public = raw.get("public", True)
    if not isinstance(public, bool):
        problems.add(f"{place}.public", "expected true or false.")
    return Group(
        name=name,
        title=str(raw.get("title", name)),
        nodes=problems.texts(raw.get("nodes"), f"{place}.nodes"),
        unit=unit,
        session_types=tuple(SessionType(kind) for kind in kinds if kind in known)
        or Group("", "").session_types,
        public=public is not False,
        users=frozenset(problems.texts(raw.get("users"), f"{place}.users")),
        hub_groups=frozenset(problems.texts(raw.get("hub_groups"), f"{place}.hub_groups")),
        images=problems.texts(raw.get("images"), f"{place}.images"),
        cpu_overcommit=problems.positive(raw.get("cpu_overcommit"), f"{place}.cpu_overcommit", Fraction(4)),
        default_duration_s=default,
        max_duration_s=most,
        limits=Limits(
            problems.whole(limits.get("sessions"), f"{place}.limits.sessions"),
            problems.whole(limits.get("pending"), f"{place}.limits.pending"),
            unit.share(fgpu) if fgpu else None,
        ),
        rules=_rules(problems, raw.get("queue"), f"{place}.queue"),
    )


def _rules(problems: _Problems, body: Any, place: str) -> Rules:
    usual = Rules()
    raw = problems.mapping(
        body, place, ("discipline", "placement", "backfill", "skip_after", "half_life", "depth")
    )
    backfill = raw.get("backfill", usual.backfill)
    if not isinstance(backfill, bool):
        problems.add(f"{place}.backfill", "expected true or false.")
    skip_after, depth = (problems.whole(raw.get(key), f"{place}.{key}") for key in ("skip_after", "depth"))
    for key, value in (("skip_after", skip_after), ("depth", depth)):
        if value is not None and value < 1:
            problems.add(f"{place}.{key}", "expected a number above 0.")
    return Rules(
        discipline=problems.one_of(
            raw.get("discipline"), f"{place}.discipline", Discipline, usual.discipline
        ),
        placement=problems.one_of(raw.get("placement"), f"{place}.placement", Placement, usual.placement),
        backfill=backfill is not False,
        skip_after=skip_after,
        half_life_s=float(problems.duration(raw.get("half_life"), f"{place}.half_life") or usual.half_life_s),
        depth=depth or usual.depth,
    )


def _folder(problems: _Problems, name: str, body: Any, groups: Sequence[Group]) -> Folder:
    place = f"folders.{shown(name)}"
    raw = problems.mapping(body, place, ("path", "groups"))
    path = raw.get("path")
    if not isinstance(path, str) or not path.startswith("/"):
        problems.add(f"{place}.path", "expected an absolute path.")
        path = "/"
    modes = problems.mapping(raw.get("groups"), f"{place}.groups", [group.name for group in groups])
    for group, mode in modes.items():
        if mode not in ("ro", "rw"):
            problems.add(f"{place}.groups.{shown(group)}", "expected ro or rw.")
    return Folder(name, path, {g: m for g, m in modes.items() if m in ("ro", "rw")})


def mounts(settings: Settings, group: Group) -> tuple[Mount, ...]:
    """The folders sessions of a group may attach."""
    return tuple(Mount(f.name, f.groups[group.name]) for f in settings.folders if group.name in f.groups)
