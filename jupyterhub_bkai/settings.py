"""The administrator's settings as text, and the rules in them as they are kept in the database.

Pure. `load` turns the settings file into `policy.Settings` or lists every problem with its place. The rules in it
(groups, users, projects, presets) only seed the database: `compose` reads what the file says of the site together with
the rules that count (`rulebook`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Any, TypeVar

import yaml

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus.fit import Placement
from jupyterhub_bkai.gpus.slices import Unit, number
from jupyterhub_bkai.leasing.caps import PLAIN, Amounts
from jupyterhub_bkai.leasing.queue import Discipline
from jupyterhub_bkai.leasing.scheduler import Rules
from jupyterhub_bkai.model import SessionType
from jupyterhub_bkai.notices.kinds import Email, Ways, Webhook, is_address
from jupyterhub_bkai.options import KEYS, amount, duration_text, seconds, shown, size_mib
from jupyterhub_bkai.policy import HIGHEST, Folder, Group, Limits, Policy, Preset, Settings

E = TypeVar("E", bound=StrEnum)

#: the rules: what is kept in the database, by kind and name, as it would stand in the file
KINDS = ("groups", "users", "projects", "presets")
Body = Mapping[str, Any]
Bodies = Mapping[str, Mapping[str, Body]]
#: a name of a group or preset becomes part of addresses; people and projects are called as the Hub calls them
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z")
#: options that a preset cannot say for somebody else
OWN_OPTIONS = frozenset(
    {"name", "count", "environment", "folders", "project", "preset", "after", "not_before", "group"}
)
#: of a number
MOST_DIGITS = 40


DEFAULT_SETTINGS = """\
# Settings of this site. Changes take effect when the service is restarted.
#
# Groups, users, projects and presets can also be changed while the service runs: on the page “Policies” of the hub, or
# with `bkai admin apply FILE`. An entry here counts again as soon as it is changed here.
version: 1

# Where accelerators come from: auto (NVIDIA if there is one, else fake), nvidia,
# fake:<sample> (two-80gb, eight-141gb-mig, one-8gb, two-fgpu, atom-npu) or fake:/path/to/file.toml
devices: auto

# People reach this site as https://hub.example.org, and the sessions of each person at a host name below it: pages in
# one person's session can then do nothing in another's name. Needs DNS for *.hub.example.org, and a certificate.
# subdomain_host: https://hub.example.org

# People are warned so long before their session ends.
# warn_before: [30m, 10m, 2m]

# Where notices go (a session ends soon, has ended, it is somebody's turn …). Posts are signed with the key in
# secret_file; files are relative to the data folder.
# notices:
#   turn_after: 5m        # only who has waited for longer is told that it is their turn
#   webhook: {url: "https://chat.example.org/hooks/bkai", secret_file: webhook.key}
#   email: {smtp: "mail.example.org:587", from: bkai@example.org, to: "{user}@example.org",
#           user: bkai, password_file: mail.password}    # security: starttls, tls or none; own_address: true

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
    limits:                # of each person, by sessions, cpu, memory, fgpu, or an accelerator's name (cuda: 2 devices)
      total: {sessions: 20}      # at a time, waiting ones too; more is refused
      pending: {sessions: 10}    # waiting at a time; more is refused
      # running: {fgpu: 4}       # running at a time; more waits
      # size: {memory: 64g}      # in each session
    # queue: {discipline: fifo, placement: balance, backfill: true}   # or lifo, drf, fair; pack, spread
    # pending_timeout: 2d

# What people may have beside that, by the Hub's name for them ("*": everybody without an entry), and what the members
# of a project (a Hub group) may have together.
# users:
#   "*": {limits: {running: {sessions: 4}}}
#   ada: {limits: {running: {cuda: 2}}, max_priority: 50, max_duration: 2d}
# projects:
#   vision: {limits: {total: {cuda: 8}}, priority: 20}

# Amounts to choose by one name.
# presets:
#   small: {title: Small, options: {cpu: 2, memory: 4g, fgpu: 0.5}, groups: [default]}

# folders:
#   datasets:
#     path: /srv/datasets
#     groups: {default: ro}
"""


def _plain(text: str) -> bool:
    """Whether it is a short text that every database keeps and every page shows as it is."""
    return len(text) <= 255 and text.isprintable()


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
        if not isinstance(value, list) or not all(
            isinstance(item, str) and item.isprintable() for item in value
        ):
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

    def within(self, value: Any, place: str, least: int, most: int) -> int | None:
        found = self.whole(value, place)
        if found is not None and not least <= found <= most:
            self.add(place, f"expected a whole number from {least} to {most}.")
            return None
        return found

    def yes(self, value: Any, place: str, default: bool) -> bool:
        if value is None:
            return default
        if not isinstance(value, bool):
            self.add(place, "expected true or false.")
            return default
        return value

    def text(self, value: Any, place: str, default: str) -> str:
        if value is None:
            return default
        if not isinstance(value, str | int | float) or not _plain(str(value)):
            self.add(place, "expected a short text without control characters.")
            return default
        return str(value)

    def line(self, value: Any, place: str, most: int) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not value or len(value) > most or not value.isprintable():
            self.add(place, "expected a text of one line.")
            return None
        return value

    def duration(self, value: Any, place: str) -> int | None:
        if value is None:
            return None
        found = seconds(value)
        if found is None or found < 1:
            self.add(place, f"“{shown(value)}” is not a time such as 8h or 90m.")
        return found


_SITE = (
    "version", "devices", "reserve_mib", "folders", "default_version", "queue_limit", "start_limit", "images", "auth",
    "subdomain_host", "warn_before", "notices",
)  # fmt: skip
_GROUP = (
    "title", "nodes", "fgpu_per_gpu", "quantum", "session_types", "public", "users", "hub_groups", "images",
    "cpu_overcommit", "default_duration", "max_duration", "max_priority", "pending_timeout", "limits", "queue",
)  # fmt: skip
_NOTICES = ("turn_after", "webhook", "email")
_WEBHOOK = ("url", "secret_file")
_EMAIL = ("smtp", "from", "to", "security", "user", "password_file", "own_address")
_POLICY = ("limits", "priority", "max_priority", "max_duration")
_PRESET = ("title", "options", "groups", "public", "hub_groups")
_LIMITS = ("total", "pending", "size", "running")


def load(text: str) -> Settings:
    """The settings in a YAML text. Raises `SettingsError` with every problem and its place."""
    return compose(*split(text))


def split(text: str) -> tuple[Mapping[str, Any], Bodies]:
    """A YAML text as what it says of the site, and the rules in it. Raises `SettingsError` where it is no such text."""
    top = document(text)
    problems = _Problems()
    problems.mapping(top, "", [*_SITE, *KINDS])
    bodies = {kind: problems.mapping(top.get(kind), kind) for kind in KINDS}
    for kind, entries in bodies.items():
        for name, body in entries.items():
            problems.mapping(body, f"{kind}.{shown(name)}")
    if problems.found:
        raise SettingsError(problems.found)
    site = {key: value for key, value in top.items() if key not in KINDS}
    return site, {
        kind: {name: body or {} for name, body in entries.items()} for kind, entries in bodies.items()
    }


def document(text: str) -> dict[str, Any]:
    """A YAML text's names and values. Raises `SettingsError` with the line where it is none."""
    try:
        found = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        raise SettingsError(
            [(place, f"this is not YAML: {getattr(error, 'problem', None) or 'unreadable'}.")]
        ) from None
    except (RecursionError, ValueError):  # nested too deep; a date or number that is none
        raise SettingsError([("file", "this cannot be read: it has values that are none.")]) from None
    problems = _Problems()
    top = problems.mapping(found, "")
    if problems.found:
        raise SettingsError([("file", "expected names with values below them, such as “groups:”.")])
    return top


class _Loader(yaml.SafeLoader):
    """YAML without references (a small text could become a huge value) and without a name given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "references (*name) are not read", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"“{shown(key.value)}” stands here twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_short(self, node: Any) -> Any:
        """A number. YAML has forms (60s, hexadecimal) in which a small text is a number with millions of digits."""
        if len(node.value) > MOST_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, "a number has too many digits", node.start_mark
            )
        read = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        return read(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_short)


def compose(site: Mapping[str, Any], bodies: Bodies) -> Settings:
    """The settings that a site's own part and the rules make. Raises `SettingsError` with every problem."""
    problems = _Problems()
    problems.mapping(dict(site), "", _SITE)
    if site.get("version", 1) != 1:
        problems.add("version", f"this release reads version 1, not {shown(site['version'])}.")
    groups = tuple(_group(problems, name, body) for name, body in bodies.get("groups", {}).items())
    groups = groups or Settings().groups
    folders = tuple(
        _folder(problems, name, body, groups)
        for name, body in problems.mapping(site.get("folders"), "folders").items()
    )
    devices = site.get("devices", "auto")
    if not isinstance(devices, str):
        problems.add("devices", "expected auto, nvidia, fake:<sample> or the name of a source.")
        devices = "auto"
    images = problems.mapping(site.get("images"), "images", ("roots",))
    queue_limit_s = problems.duration(site.get("queue_limit"), "queue_limit") or 7 * 86400
    for group in groups:
        if group.queue_limit_s is not None and group.queue_limit_s > queue_limit_s:
            problems.add(
                f"groups.{group.name}.pending_timeout",
                f"it is longer than the site's queue_limit ({duration_text(queue_limit_s)}).",
            )
    settings = Settings(
        groups=groups,
        users={n: _policy(problems, "users", n, b) for n, b in bodies.get("users", {}).items()},
        projects={n: _policy(problems, "projects", n, b) for n, b in bodies.get("projects", {}).items()},
        presets=tuple(_preset(problems, n, b, groups) for n, b in bodies.get("presets", {}).items()),
        folders=folders,
        devices=devices,
        reserve_mib=problems.whole(site.get("reserve_mib"), "reserve_mib"),
        default_version=site.get("default_version"),
        queue_limit_s=queue_limit_s,
        start_limit_s=problems.duration(site.get("start_limit"), "start_limit") or 600,
        image_roots=problems.texts(images.get("roots"), "images.roots"),
        subdomain_host=_subdomain_host(problems, site.get("subdomain_host")),
        warn_before_s=_steps(problems, site.get("warn_before")),
        notices=_ways(problems, site.get("notices")),
        extra={"auth": site["auth"]} if "auth" in site else {},
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


def _steps(problems: _Problems, value: Any) -> tuple[int, ...]:
    """How long before its end a session's owner is warned: a list of times."""
    if value is None:
        return Settings().warn_before_s
    if not isinstance(value, list) or len(value) > 10:
        problems.add("warn_before", "expected a list of at most ten times, such as [30m, 10m, 2m].")
        return ()
    found = [problems.duration(one, "warn_before") for one in value]
    return tuple(sorted({one for one in found if one}, reverse=True))


def _ways(problems: _Problems, body: Any) -> Ways:
    raw = problems.mapping(body, "notices", _NOTICES)
    turn_after_s = problems.duration(raw.get("turn_after"), "notices.turn_after")
    return Ways(
        turn_after_s=Ways().turn_after_s if turn_after_s is None else turn_after_s,
        webhook=_webhook(problems, raw["webhook"]) if raw.get("webhook") is not None else None,
        email=_email(problems, raw["email"]) if raw.get("email") is not None else None,
    )


def _webhook(problems: _Problems, body: Any) -> Webhook:
    place = "notices.webhook"
    raw = problems.mapping(body, place, _WEBHOOK)
    url = problems.line(raw.get("url"), f"{place}.url", 2000) or ""
    if not re.match(r"https?://[^\s/@]+(/\S*)?\Z", url):
        problems.add(f"{place}.url", "expected an address such as https://chat.example.org/hooks/bkai.")
    return Webhook(url, problems.line(raw.get("secret_file"), f"{place}.secret_file", 4000))


def _email(problems: _Problems, body: Any) -> Email:
    place = "notices.email"
    raw = problems.mapping(body, place, _EMAIL)
    texts = {
        key: problems.line(raw.get(key), f"{place}.{key}", 4000) for key in _EMAIL if key != "own_address"
    }
    host, _, port = (texts["smtp"] or "").rpartition(":")
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", host) or not port.isdecimal() or not 0 < int(port) < 65536:
        problems.add(f"{place}.smtp", "expected host:port, such as mail.example.org:587.")
        host, port = "", "25"
    for key, example in (("from", "bkai@example.org"), ("to", "{user}@example.org")):
        address = (texts[key] or "").replace("{user}", "ada") if key == "to" else texts[key] or ""
        if not is_address(address) and texts[key] != "{user}":
            problems.add(f"{place}.{key}", f"expected an address such as {example}.")
    security = texts["security"] or "starttls"
    if security not in ("starttls", "tls", "none"):
        problems.add(f"{place}.security", f"“{shown(security)}” is none of starttls, tls, none.")
    if (texts["user"] is None) != (texts["password_file"] is None):
        problems.add(f"{place}.user", "user and password_file belong together.")
    return Email(
        host=host,
        port=int(port),
        sender=texts["from"] or "",
        to=texts["to"] or "",
        security=security,
        user=texts["user"],
        password_file=texts["password_file"],
        own_address=problems.yes(raw.get("own_address"), f"{place}.own_address", False),
    )


def _name(problems: _Problems, kind: str, name: str) -> str:
    """The place of an entry; notes a name that cannot be."""
    if not _NAME.match(name) and not (
        kind in ("users", "projects") and name and len(name) <= 255 and name.isprintable()
    ):
        problems.add(f"{kind}.{shown(name)}", "a name has 1 to 64 of letters, digits, “.”, “_” and “-”.")
    return f"{kind}.{shown(name)}"


def _group(problems: _Problems, name: str, body: Any) -> Group:
    place = _name(problems, "groups", name)
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
    default, most = (
        problems.duration(raw.get(key), f"{place}.{key}") for key in ("default_duration", "max_duration")
    )
    if default and most and default > most:
        problems.add(f"{place}.default_duration", "it is longer than max_duration.")
    return Group(
        name=name,
        title=problems.text(raw.get("title"), f"{place}.title", name),
        nodes=problems.texts(raw.get("nodes"), f"{place}.nodes"),
        unit=unit,
        session_types=tuple(SessionType(kind) for kind in kinds if kind in known)
        or Group("", "").session_types,
        public=problems.yes(raw.get("public"), f"{place}.public", True),
        users=frozenset(problems.texts(raw.get("users"), f"{place}.users")),
        hub_groups=frozenset(problems.texts(raw.get("hub_groups"), f"{place}.hub_groups")),
        images=problems.texts(raw.get("images"), f"{place}.images"),
        cpu_overcommit=problems.positive(raw.get("cpu_overcommit"), f"{place}.cpu_overcommit", Fraction(4)),
        default_duration_s=default,
        max_duration_s=most,
        max_priority=problems.within(raw.get("max_priority"), f"{place}.max_priority", 0, HIGHEST),
        queue_limit_s=problems.duration(raw.get("pending_timeout"), f"{place}.pending_timeout"),
        limits=_limits(problems, raw.get("limits"), f"{place}.limits", unit),
        rules=_rules(problems, raw.get("queue"), f"{place}.queue"),
    )


def _limits(problems: _Problems, body: Any, place: str, unit: Unit | None) -> Limits:
    raw = problems.mapping(body, place, _LIMITS)
    found = {key: _amounts(problems, raw.get(key), f"{place}.{key}", unit) for key in _LIMITS}
    if "sessions" in found["size"]:
        problems.add(
            f"{place}.size.sessions", "a session is always one; this belongs below total, pending or running."
        )
    for name, running in found["running"].items():
        most = found["total"].get(name)
        if most is not None and running > most:
            problems.add(f"{place}.running.{shown(name)}", "it is more than total allows.")
    return Limits(**found)


def _amounts(problems: _Problems, body: Any, place: str, unit: Unit | None) -> Amounts:
    """Amounts by name: "sessions", "cpu" in cores, "memory" in MiB, slots in devices."""
    found: dict[str, Fraction] = {}
    for name, value in problems.mapping(body, place).items():
        where = f"{place}.{shown(name)}"
        if name == "fgpu" and unit is None:
            problems.add(
                where, "how much one fGPU is differs from group to group; give devices, such as cuda: 2."
            )
        elif name == "memory":
            size = size_mib(value)
            if size is None:
                problems.add(where, f"“{shown(value)}” is not a size such as 64g.")
            else:
                found[name] = Fraction(size)
        elif name not in PLAIN and not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
            problems.add(where, "expected sessions, cpu, memory, fgpu, or the name of an accelerator.")
        else:
            given = amount(value)
            if given is None or (name == "sessions" and given.denominator != 1):
                problems.add(where, f"“{shown(value)}” is not a number.")
            else:
                found[name] = unit.share(given) if name == "fgpu" and unit is not None else given
    return found


def _policy(problems: _Problems, kind: str, name: str, body: Any) -> Policy:
    place = _name(problems, kind, name)
    raw = problems.mapping(body, place, _POLICY)
    usual, most = (
        problems.within(raw.get(key), f"{place}.{key}", 0, HIGHEST) for key in ("priority", "max_priority")
    )
    if usual is not None and most is not None and usual > most:
        problems.add(f"{place}.priority", "it is higher than max_priority.")
    return Policy(
        name=name,
        limits=_limits(problems, raw.get("limits"), f"{place}.limits", None),
        priority=usual,
        max_priority=most,
        max_duration_s=problems.duration(raw.get("max_duration"), f"{place}.max_duration"),
    )


def _preset(problems: _Problems, name: str, body: Any, groups: Sequence[Group]) -> Preset:
    place = _name(problems, "presets", name)
    raw = problems.mapping(body, place, _PRESET)
    options = problems.mapping(
        raw.get("options"), f"{place}.options", [k for k in KEYS if k not in OWN_OPTIONS]
    )
    known = [group.name for group in groups]
    members = problems.texts(raw.get("groups"), f"{place}.groups")
    for group in members:
        if group not in known:
            problems.add(
                f"{place}.groups", f"there is no group “{shown(group)}”; there are {', '.join(known[:12])}."
            )
    if not options:
        problems.add(f"{place}.options", "a preset says at least one option, such as fgpu: 0.5.")
    return Preset(
        name=name,
        title=problems.text(raw.get("title"), f"{place}.title", name),
        options={key: problems.text(value, f"{place}.options.{key}", "") for key, value in options.items()},
        groups=members,
        public=problems.yes(raw.get("public"), f"{place}.public", True),
        hub_groups=frozenset(problems.texts(raw.get("hub_groups"), f"{place}.hub_groups")),
    )


def rules(body: Any, usual: Rules, place: str = "queue") -> Rules:
    """A queue's rules: those of a mapping as under `queue:`, the usual ones for the rest. Raises `SettingsError`."""
    problems = _Problems()
    found = _rules(problems, body, place, usual)
    if problems.found:
        raise SettingsError(problems.found)
    return found


def _rules(problems: _Problems, body: Any, place: str, usual: Rules = Rules()) -> Rules:  # noqa: B008  frozen
    raw = problems.mapping(
        body, place, ("discipline", "placement", "backfill", "skip_after", "half_life", "depth")
    )
    skip_after, depth = (problems.whole(raw.get(key), f"{place}.{key}") for key in ("skip_after", "depth"))
    for key, value in (("skip_after", skip_after), ("depth", depth)):
        if value is not None and value < 1:
            problems.add(f"{place}.{key}", "expected a number above 0.")
    return Rules(
        discipline=problems.one_of(
            raw.get("discipline"), f"{place}.discipline", Discipline, usual.discipline
        ),
        placement=problems.one_of(raw.get("placement"), f"{place}.placement", Placement, usual.placement),
        backfill=problems.yes(raw.get("backfill"), f"{place}.backfill", usual.backfill),
        skip_after=skip_after or usual.skip_after,
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
