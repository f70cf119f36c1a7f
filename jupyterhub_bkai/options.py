"""What can be asked for, declared once: the form, REST, the command line and JupyterLab read `FIELDS`.

Owns the names and kinds of the options, and `parse`: raw values (texts, or what JSON gives) → a `Request`, or one
clear sentence per field. Pure: what may be chosen comes in as an `Offer`. Whether a person *may have* it is the
policy's business.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, TypeVar

from jupyterhub_bkai import names
from jupyterhub_bkai.errors import InvalidOptions
from jupyterhub_bkai.gpus.slices import Unit, number
from jupyterhub_bkai.model import Mount, Request, SessionType, Wish

T = TypeVar("T")

MAX_TEXT = 200
MAX_COUNT = 100
#: of all names and values together: a request is kept, with its variables, as long as the books are
MAX_ENVIRONMENT = 64 * 1024
#: so many names that are no options are told one by one
MAX_UNKNOWN = 10
#: where the administrator sets no limit: longer than this is a slip
MAX_DURATION_S = 366 * 86400


@dataclass(frozen=True, slots=True)
class Field:
    """One option. `kind` is what a face shows: choice, number, size, duration, time, text, list, map, flag.

    `choices` names the part of the offer that lists what can be chosen, where there is such a list.
    """

    key: str
    label: str
    help: str
    kind: str
    default: str = ""
    choices: str | None = None
    group: str = "basic"


FIELDS: tuple[Field, ...] = (
    Field("version", "Image version", "The software you work with.", "choice", choices="images"),
    Field("group", "Resource group", "The machines it runs on.", "choice", choices="groups"),
    Field(
        "preset",
        "Preset",
        "Amounts under one name; what is given beside it counts instead.",
        "choice",
        choices="presets",
    ),
    Field(
        "accelerator", "Accelerator", "The kind of accelerator, or none.", "choice", choices="accelerators"
    ),
    Field("fgpu", "fGPU", "How much, in this site's unit (fGPU).", "number"),
    Field("gpu", "GPU share", "How much, as a share of one device (0.25) or as whole devices (2).", "number"),
    Field("mig", "MIG profile", "A hardware partition by name, such as 1g.18gb.", "choice", choices="mig"),
    Field("spread", "Devices", "Over how many devices the amount is spread evenly.", "number", "1"),
    Field("cpu", "Processor cores", "Cores, in steps of 0.1.", "number", "1"),
    Field("memory", "Memory", "Main memory, such as 2g or 512m.", "size", "2g"),
    Field("shm", "Shared memory", "Size of /dev/shm, for data loaders; part of the memory.", "size", "64m"),
    Field("duration", "Maximum duration", "The session ends after this time, such as 8h or 90m.", "duration"),
    Field("name", "Name", "What you call it; up to 30 of a–z, 0–9 and single hyphens.", "text"),
    Field("count", "How many", "So many equal sessions at once.", "number", "1"),
    Field("together", "All together", "Of several, all start at the same moment or none does.", "flag"),
    Field(
        "project", "Project", "The Hub group whose limits and priority count.", "choice", choices="projects"
    ),
    Field(
        "session_type",
        "Session type",
        "What it is for: you work in an interactive one, a batch one computes by itself. Only noted; both start alike.",
        "choice",
        "interactive",
        "session_types",
    ),
    Field("priority", "Priority", "0 to 100; among those who wait a higher one is served first.", "number"),
    Field(
        "not_before",
        "Start at",
        "Not before this time, such as +2h or 2026-03-31T18:00 (UTC where it does not say otherwise).",
        "time",
    ),
    Field("after", "After", "Only when these sessions of yours have ended.", "list", choices="sessions"),
    Field("folders", "Shared folders", "Folders to attach, such as datasets:ro.", "list", choices="folders"),
    Field("environment", "Environment", "Variables for your programs, NAME=value.", "map"),
)
KEYS = tuple(field.key for field in FIELDS)
BY_KEY: Mapping[str, Field] = {field.key: field for field in FIELDS}


# -- what can be chosen ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageOffer:
    """An image version somebody may choose, with the least it needs."""

    version: str
    title: str
    description: str = ""
    family: str = ""
    minimum_cpu_milli: int = 0
    minimum_memory_mib: int = 0
    ready: bool = True


@dataclass(frozen=True, slots=True)
class SlotOffer:
    """One kind of accelerator in a group. `devices` counts them on the largest node; `free` is the largest share
    free on one device now, `idle` the number of idle devices on the best node now."""

    slot: str
    title: str
    devices: int
    divisible: bool = True
    mig: tuple[str, ...] = ()
    #: what part of a device an instance of each profile is, where it is known
    mig_shares: Mapping[str, Fraction] = field(default_factory=dict)
    memory_mib: int = 0
    free: Fraction = Fraction(0)
    idle: int = 0
    fractions: bool = True


@dataclass(frozen=True, slots=True)
class GroupOffer:
    """A resource group somebody may use; the cpu and memory are those of its largest node."""

    name: str
    title: str
    unit: Unit
    slots: tuple[SlotOffer, ...] = ()
    session_types: tuple[SessionType, ...] = (SessionType.INTERACTIVE,)
    folders: tuple[Mount, ...] = ()
    cpu_milli: int = 0
    memory_mib: int = 0
    waiting: int = 0
    default_duration_s: int | None = None
    max_duration_s: int | None = None
    max_priority: int | None = None
    #: how long a request may wait
    queue_limit_s: int = 7 * 86400
    note: str = ""


@dataclass(frozen=True, slots=True)
class PresetOffer:
    """Options under one name; an empty list of groups is all of them."""

    name: str
    title: str
    options: Mapping[str, str]
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionOffer:
    """A live session that another can come after."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Offer:
    """Everything one person can choose from now. The first of each list is the default."""

    images: tuple[ImageOffer, ...]
    groups: tuple[GroupOffer, ...]
    projects: tuple[str, ...] = ()
    presets: tuple[PresetOffer, ...] = ()
    sessions: tuple[SessionOffer, ...] = ()
    #: by project ("" for none): the priority of a request that names none, and the highest one may ask for
    priorities: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    now_ms: int = 0
    fake: bool = False
    enforcement: str = "booked, not enforced"


# -- texts to numbers ------------------------------------------------------------------------

_NUMBER = re.compile(r"\s*([0-9]{1,9})(?:[.]([0-9]{1,6}))?\s*\Z")
_RATIO = re.compile(r"\s*([0-9]{1,4})/([1-9][0-9]{0,3})\s*\Z")
_SIZE = re.compile(r"\s*([0-9]{1,9}(?:[.][0-9]{1,3})?)\s*([kmgt]?)(?:i?b)?\s*\Z", re.IGNORECASE)
_SIZES = {
    "": Fraction(1, 1 << 20),
    "k": Fraction(1, 1024),
    "m": Fraction(1),
    "g": Fraction(1024),
    "t": Fraction(1 << 20),
}
_DURATION = re.compile(
    r"\s*(?:([0-9]{1,9})\s*d)?\s*(?:([0-9]{1,9})\s*h)?\s*(?:([0-9]{1,9})\s*m(?:in)?)?\s*(?:([0-9]{1,9})\s*s)?\s*\Z"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
#: What the platform sets, and what makes a session's server, its terminals or its Git read configuration or run
#: programs from elsewhere before anybody has done anything. What only counts for programs that somebody starts
#: themselves (OMP_…, HF_…, WANDB_…, PIP_…, proxies, places of caches) is free.
_RESERVED_PREFIXES = (
    "BKAI_", "BACKENDAI_", "CONFIGPROXY_", "CUDA_", "JPY_", "NVIDIA_",
    "GLIBC_", "IPYTHON", "JUPYTER", "LD_", "NODE_", "PYTHON", "XDG_CONFIG_", "XDG_DATA_", "XDG_RUNTIME_",
    "GIT_ASKPASS", "GIT_CONFIG", "GIT_DIR", "GIT_EDITOR", "GIT_EXEC_PATH", "GIT_EXTERNAL_DIFF", "GIT_PAGER",
    "GIT_PROXY_COMMAND", "GIT_SEQUENCE_EDITOR", "GIT_SSH", "GIT_TEMPLATE_DIR", "GIT_WORK_TREE",
)  # fmt: skip
_RESERVED = frozenset(
    {
        *("HOME", "LOGNAME", "PATH", "SHELL", "USER"),
        *("BASHOPTS", "BASH_ENV", "ENV", "IFS", "INPUTRC", "PROMPT_COMMAND", "SHELLOPTS", "ZDOTDIR"),
        *("PS0", "PS1", "PS2", "PS4", "GCONV_PATH", "LOCPATH", "OPENSSL_CONF", "OPENSSL_MODULES"),
    }
)


def reserved(name: str) -> bool:
    """True for variables that the system sets and nobody else may."""
    return name.upper() in _RESERVED or name.upper().startswith(_RESERVED_PREFIXES)


def amount(value: Any) -> Fraction | None:
    """A number as people or JSON write it, exactly: "0.5", 2, "1/3". None when it is not one (NaN, 1e9, -1, text)."""
    if isinstance(value, bool):
        return None
    text = repr(value) if isinstance(value, float) else str(value)
    if match := _RATIO.match(text):
        return Fraction(int(match[1]), int(match[2]))
    match = _NUMBER.match(text)
    return Fraction(match[1] + ("." + match[2] if match[2] else "")) if match else None


def size_mib(value: Any) -> int | None:
    """A size in MiB: "2g", "512m", "1.5 GB" (binary units). A bare number is bytes. None when it is not one."""
    match = _SIZE.match(str(value)) if not isinstance(value, bool) else None
    if match is None:
        return None
    mib = Fraction(match[1]) * _SIZES[match[2].lower()]
    return int(mib) if mib.denominator == 1 or mib > 1 else None


def seconds(value: Any) -> int | None:
    """A duration in seconds: "8h", "90m", "1d12h", "45s"; a bare number is seconds. None when it is not one."""
    text = str(value)
    if text.strip().isdecimal() and len(text.strip()) <= 8:
        return int(text)
    match = _DURATION.match(text)
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def size_text(mib: int) -> str:
    """A size for people: "2 GiB", "512 MiB"."""
    return f"{number(Fraction(mib, 1024), 2)} GiB" if mib >= 1024 else f"{mib} MiB"


def duration_text(value: int) -> str:
    """A duration for people: "1 d 2 h", "45 min", "30 s"."""
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if value >= size:
            parts.append(f"{value // size} {unit}")
            value %= size
    return " ".join(parts[:2]) or "0 s"


def number_trouble(value: Any) -> str | None:
    """What is wrong with a text that is nearly a number; None where it is none at all."""
    text = str(value).strip()
    if re.fullmatch(r"[+]?[0-9]{1,9},[0-9]{1,6}", text):
        return f"write a decimal point, not a comma: {text.lstrip('+').replace(',', '.')}."
    if re.fullmatch(r"-[0-9]{1,40}([.,][0-9]{1,40})?", text):
        return f"{shown(text)} is below zero; give a number above 0."
    if re.fullmatch(r"[0-9]{10,}([.][0-9]*)?|[0-9]+(?:[.][0-9]*)?e[+]?[0-9]+", text, re.IGNORECASE):
        return f"{shown(text)} is too large."
    if re.fullmatch(r"[0-9]{1,9}[.][0-9]{7,}", text):
        return f"{shown(text)} has too many decimals; six are enough."
    return None


# -- parsing ---------------------------------------------------------------------------------


class _Reader:
    """Collects one sentence per wrong field while the rest is still read."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = {key: value for key, value in raw.items() if value not in (None, "", [], {})}
        self.errors: dict[str, str] = {}

    def fail(self, key: str, sentence: str) -> None:
        self.errors.setdefault(key, sentence)

    def text(self, key: str, default: str = "") -> str:
        value = self.raw.get(key, default)
        if not isinstance(value, str | int | float) or len(str(value)) > MAX_TEXT:
            self.fail(key, f"{BY_KEY[key].label}: expected a short text.")
            return default
        return str(value).strip()

    def read(self, key: str, convert: Callable[[Any], T | None], example: str, default: T) -> T:
        if key not in self.raw:
            return default
        value = convert(self.raw[key])
        if value is None:
            trouble = number_trouble(self.raw[key]) or f"“{shown(self.raw[key])}” is not {example}."
            self.fail(key, f"{BY_KEY[key].label}: {trouble}")
            return default
        return value

    def one_of(self, key: str, names_: Iterable[str], default: str) -> str:
        known = list(names_)
        value = self.text(key, default)
        if value not in known:
            self.fail(key, unknown(BY_KEY[key].label, value, known))
            return default
        return value


def shown(value: Any) -> str:
    """What somebody typed, short enough and without control characters to be repeated in a sentence."""
    text = "".join(c for c in str(value) if c.isprintable())
    return text if len(text) <= 40 else text[:37] + "…"


def unknown(label: str, value: str, known: list[str]) -> str:
    """The sentence for a name that does not exist, with the nearest or all that do."""
    if not known:
        return f"{label}: there is none to choose; ask an administrator."
    near = get_close_matches(value[:MAX_TEXT], known, 1)
    hint = f"did you mean “{near[0]}”?" if near else "choose one of " + ", ".join(known[:12]) + "."
    return f"{label}: there is no “{shown(value)}”; {hint}"


def parse(raw: Mapping[str, Any], offer: Offer) -> Request:
    """Checked options with every default filled in. Raises `InvalidOptions` with a sentence per wrong field."""
    reader = _Reader(raw)
    preset = _preset(reader, offer)
    if preset is not None:
        reader.raw = _with(preset, reader.raw)
    strange = [key for key in reader.raw if key not in BY_KEY]
    for key in strange[:MAX_UNKNOWN]:
        reader.fail(shown(key), unknown("Options", str(key)[:MAX_TEXT], list(KEYS)))
    if len(strange) > MAX_UNKNOWN:
        reader.fail("", f"Options: {len(strange) - MAX_UNKNOWN:,} more names are none that there is.")
    if not offer.groups or not offer.images:
        what = "resource group" if not offer.groups else "image version"
        raise InvalidOptions(
            {"group" if not offer.groups else "version": f"You may use no {what} yet; ask an administrator."}
        )
    version = reader.one_of("version", (i.version for i in offer.images), offer.images[0].version)
    image = next(i for i in offer.images if i.version == version)
    group_name = reader.one_of("group", (g.name for g in offer.groups), offer.groups[0].name)
    group = next(g for g in offer.groups if g.name == group_name)
    kind = reader.one_of("session_type", (str(t) for t in group.session_types), str(group.session_types[0]))
    project = reader.one_of("project", offer.projects, "") if "project" in reader.raw else None
    if preset is not None and preset.groups and group_name not in preset.groups:
        where = ", ".join(g.title for g in offer.groups if g.name in preset.groups)
        reader.fail(
            "preset", f"Preset: {preset.title} is for {where or 'other groups'}, not for {group.title}."
        )
    count = _whole(reader, "count", 1, MAX_COUNT)
    request = Request(
        version=version,
        group=group_name,
        cpu_milli=_cpu(reader, image, group),
        memory_mib=(memory := _memory(reader, image, group)),
        shm_mib=_shm(reader, memory),
        wish=_wish(reader, group),
        session_type=SessionType(kind),
        project=project,
        count=count,
        duration_s=_duration(reader, group),
        folders=_folders(reader, group),
        name=_name(reader),
        environment=_environment(reader),
        priority=_priority(reader, offer, group, project),
        not_before_ms=_not_before(reader, offer.now_ms, group),
        after=_after(reader, offer.sessions),
        # Which is the first is known when they are noted; until then the word says that there is one.
        gang="together" if _flag(reader, "together") and count > 1 else "",
    )
    if reader.errors:
        raise InvalidOptions(reader.errors)
    return request


def _preset(reader: _Reader, offer: Offer) -> PresetOffer | None:
    if "preset" not in reader.raw:
        return None
    name = reader.one_of("preset", (preset.name for preset in offer.presets), "")
    return next((preset for preset in offer.presets if preset.name == name), None)


def _with(preset: PresetOffer, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Raw options with what a preset says where they say nothing. An amount of an accelerator is one thing, however it
    is written.
    """
    amounts = {"fgpu", "gpu", "mig", "spread", "accelerator"}
    own = not amounts.isdisjoint(raw)
    usual = {k: v for k, v in preset.options.items() if not (own and k in amounts)}
    return {**usual, **raw}


def _priority(reader: _Reader, offer: Offer, group: GroupOffer, project: str | None) -> int:
    usual, most = offer.priorities.get(project or "", (10, 10))
    if group.max_priority is not None:
        usual, most = min(usual, group.max_priority), min(most, group.max_priority)
    value = reader.read("priority", amount, "a number from 0 to 100", Fraction(usual))
    if value.denominator != 1 or not 0 <= value <= 100:
        reader.fail("priority", "Priority: give a whole number from 0 to 100.")
    elif value > most:
        reader.fail("priority", f"Priority: you may ask for at most {most} here.")
    return int(value)


def _not_before(reader: _Reader, now_ms: int, group: GroupOffer) -> int:
    text = reader.text("not_before")
    if not text:
        return 0
    found = moment_ms(text, now_ms)
    if found is None:
        reader.fail(
            "not_before", f"Start at: “{shown(text)}” is not a time such as +2h or 2026-03-31T18:00+02:00."
        )
        return 0
    if found - now_ms > group.queue_limit_s * 1000:
        longest = duration_text(group.queue_limit_s)
        reader.fail("not_before", f"Start at: a request waits for at most {longest} in {group.title}.")
    return found if found > now_ms else 0


def moment_ms(text: str, now_ms: int) -> int | None:
    """A moment in milliseconds since the epoch: "+2h", or ISO 8601 (UTC where it names no zone). None for no moment."""
    if text.startswith("+"):
        span = seconds(text[1:])
        return now_ms + span * 1000 if span is not None else None
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return int(found.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _after(reader: _Reader, sessions: Iterable[SessionOffer]) -> tuple[str, ...]:
    raw = reader.raw.get("after", [])
    if isinstance(raw, str):
        raw = [part for part in re.split(r"[\s,]+", raw) if part]
    if not isinstance(raw, list) or not all(isinstance(part, str) for part in raw) or len(raw) > MAX_COUNT:
        reader.fail("after", "After: give names of sessions of yours, such as train.")
        return ()
    known = [*sessions]
    ids = {session.id for session in known}
    by_name = {session.name: session.id for session in known}
    strange = next((part for part in raw if part not in ids and part not in by_name), None)
    if strange is not None:  # only the first: to look for what was meant takes a while
        reader.fail("after", unknown("After", strange, list(by_name)))
    found = (part if part in ids else by_name.get(part) for part in raw)
    return tuple(dict.fromkeys(id for id in found if id is not None))


def _flag(reader: _Reader, key: str) -> bool:
    value = reader.raw.get(key, False)
    text = str(value).lower()
    if text not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        reader.fail(key, f"{BY_KEY[key].label}: say yes or no.")
    return text in ("true", "yes", "on", "1")


def _whole(reader: _Reader, key: str, default: int, most: int) -> int:
    value = reader.read(key, amount, "a number", Fraction(default))
    if value.denominator != 1 or not 1 <= value <= most:
        reader.fail(key, f"{BY_KEY[key].label}: give a whole number from 1 to {most}.")
        return default
    return int(value)


def _cpu(reader: _Reader, image: ImageOffer, group: GroupOffer) -> int:
    least = max(image.minimum_cpu_milli, 100)
    cores = reader.read(
        "cpu", amount, "a number of cores such as 1 or 0.5", max(Fraction(1), Fraction(least, 1000))
    )
    milli = cores * 1000
    if milli.denominator != 1 or milli % 100:
        reader.fail("cpu", "Processor cores: give a multiple of 0.1, such as 0.5 or 2.")
    elif milli < least:
        reader.fail(
            "cpu", f"Processor cores: {image.version} needs at least {number(Fraction(least, 1000))}."
        )
    elif milli > group.cpu_milli:
        reader.fail(
            "cpu",
            f"Processor cores: the largest machine of {group.title} offers {number(Fraction(group.cpu_milli, 1000))}.",
        )
    return int(milli)


def _memory(reader: _Reader, image: ImageOffer, group: GroupOffer) -> int:
    least = max(image.minimum_memory_mib, 64)
    memory = reader.read("memory", size_mib, "a size such as 2g or 512m", max(2048, least))
    if memory < least:
        reader.fail("memory", f"Memory: {image.version} needs at least {size_text(least)}.")
    elif memory > group.memory_mib:
        reader.fail(
            "memory", f"Memory: the largest machine of {group.title} has {size_text(group.memory_mib)}."
        )
    return memory


def _shm(reader: _Reader, memory_mib: int) -> int:
    shm = reader.read("shm", size_mib, "a size such as 64m or 1g", 64)
    if shm > memory_mib:
        reader.fail("shm", f"Shared memory: it is part of the memory, so at most {size_text(memory_mib)}.")
    return shm


def _duration(reader: _Reader, group: GroupOffer) -> int | None:
    value: int | None = group.default_duration_s
    most = MAX_DURATION_S if group.max_duration_s is None else group.max_duration_s
    if "duration" in reader.raw:
        value = reader.read("duration", seconds, "a time such as 8h or 90m", 60)
        if value < 60:
            reader.fail("duration", "Maximum duration: give at least one minute, such as 8h or 90m.")
    if value is not None and value > most:
        reader.fail("duration", f"Maximum duration: {group.title} allows at most {duration_text(most)}.")
    return value if value is not None else group.max_duration_s


def _name(reader: _Reader) -> str:
    name = reader.text("name")
    if name and not names.is_server_name(name):
        reader.fail("name", "Name: use 1 to 30 of a–z, 0–9 and single hyphens, such as train-2.")
    return name


def _folders(reader: _Reader, group: GroupOffer) -> tuple[Mount, ...]:
    raw = reader.raw.get("folders", [])
    if isinstance(raw, str):
        raw = [part.strip() for part in re.split(r"[\s,]+", raw) if part.strip()]
    if not isinstance(raw, list) or not all(isinstance(part, str) for part in raw) or len(raw) > 50:
        reader.fail("folders", "Shared folders: give a list such as datasets:ro.")
        return ()
    allowed = {mount.name: mount.mode for mount in group.folders}
    found: dict[str, Mount] = {}
    for part in raw:
        name, _, mode = part.partition(":")
        if name not in allowed:
            reader.fail("folders", unknown("Shared folders", name, list(allowed)))
            break
        elif mode not in ("", "ro", "rw"):
            reader.fail("folders", f"Shared folders: “{shown(mode)}” is neither ro nor rw.")
        elif mode == "rw" and allowed[name] == "ro":
            reader.fail(
                "folders", f"Shared folders: {name} can only be read in {group.title}; ask for {name}:ro."
            )
        else:
            found[name] = Mount(name, mode or allowed[name])
    return tuple(found.values())


def _environment(reader: _Reader) -> Mapping[str, str]:
    raw = reader.raw.get("environment", {})
    if isinstance(raw, str):
        lines = [line.strip() for line in raw.splitlines() if line.strip()]
        if any("=" not in line for line in lines):
            reader.fail("environment", "Environment: write one NAME=value a line.")
            return {}
        raw = dict(line.split("=", 1) for line in lines)
    if not isinstance(raw, dict) or len(raw) > 200:
        reader.fail("environment", "Environment: give names and values.")
        return {}
    if sum(len(str(key)) + len(str(value)) for key, value in raw.items()) > MAX_ENVIRONMENT:
        reader.fail(
            "environment",
            f"Environment: at most {MAX_ENVIRONMENT:,} characters in all; put what is longer into a file.",
        )
        return {}
    for key, value in raw.items():
        if not isinstance(key, str) or not _VARIABLE.match(key):
            reader.fail("environment", f"Environment: “{shown(key)}” is not a variable's name.")
        elif reserved(key):
            reader.fail(
                "environment", f"Environment: {shown(key)} is set by the system and cannot be changed."
            )
        elif not isinstance(value, str) or "\0" in value or len(value) > 32768:
            reader.fail(
                "environment",
                f"Environment: the value of {shown(key)} must be a text of at most 32,768 characters.",
            )
    return {str(key): str(value) for key, value in raw.items()}


def _wish(reader: _Reader, group: GroupOffer) -> Wish | None:
    """What part of which accelerator, exactly; None for none."""
    given = [key for key in ("fgpu", "gpu", "mig") if key in reader.raw]
    slot_names = [slot.slot for slot in group.slots]
    default = slot_names[0] if given and slot_names else "none"
    chosen = reader.one_of("accelerator", [*slot_names, "none"], default)
    if chosen == "none":
        for key in given:
            reason = f"{group.title} has no accelerator" if not slot_names else "the accelerator is “none”"
            if amount(reader.raw[key]) != 0:
                reader.fail(key, f"{BY_KEY[key].label}: {reason}; leave this empty.")
        return None
    slot = next(s for s in group.slots if s.slot == chosen)
    if len(given) > 1:
        reader.fail(given[1], f"Give one of fGPU, GPU share and MIG profile, not both {' and '.join(given)}.")
        return None
    spread = _whole(reader, "spread", 1, max(1, slot.devices))
    if given == ["mig"]:
        return _mig_wish(reader, slot, spread)
    if slot.mig and not slot.fractions:
        reader.fail(
            given[0] if given else "mig",
            f"{slot.title} is cut by MIG here; choose a profile: {', '.join(slot.mig)}.",
        )
        return None
    return _share_wish(reader, slot, group, given[0] if given else "", spread)


def _mig_wish(reader: _Reader, slot: SlotOffer, spread: int) -> Wish | None:
    profile = reader.one_of("mig", slot.mig, "")
    return Wish(slot.slot, spread, slot.mig_shares.get(profile, Fraction(1)), profile) if profile else None


def _share_wish(reader: _Reader, slot: SlotOffer, group: GroupOffer, key: str, spread: int) -> Wish | None:
    unit = group.unit
    if not key:
        # The smallest sensible default: one unit of the administrator's, or a whole device where it is not cut.
        total = unit.share(Fraction(1)) if slot.divisible else Fraction(1)
        total, key = min(total, Fraction(1)), "fgpu"
    else:
        value = reader.read(key, amount, "a number such as 0.5", Fraction(1))
        if key in reader.errors:
            return None
        total = unit.share(value) if key == "fgpu" else value
    label = BY_KEY[key].label
    if total <= 0:
        reader.fail(key, f"{label}: give more than 0, or choose no accelerator.")
        return None
    if total > slot.devices:
        largest = Fraction(slot.devices)
        if not largest:
            has = f"no machine of {group.title} has {slot.title} at present."
        else:
            devices = f"{slot.devices} × {slot.title}" if slot.devices > 1 else f"one {slot.title}"
            has = f"the largest machine of {group.title} has {amount_text(unit.fgpu(largest), key, unit)} ({devices})."
        reader.fail(key, f"{label}: {has}")
        return None
    if total > 1 and spread == 1:
        if total.denominator == 1:
            spread = int(total)
        else:
            up = -(-total.numerator // total.denominator)
            whole = " or ".join(number(unit.fgpu(Fraction(devices))) for devices in (up - 1, up))
            reader.fail(
                key,
                f"{label}: {_both(total, unit)} does not fit on one device; ask for whole devices "
                f"({whole} fGPU) or spread it over {up} devices.",
            )
            return None
    return _pieces(reader, slot, unit, key, total, spread)


def _pieces(
    reader: _Reader, slot: SlotOffer, unit: Unit, key: str, total: Fraction, spread: int
) -> Wish | None:
    label, share = BY_KEY[key].label, total / spread
    if share > 1:
        reader.fail(
            "spread",
            f"Devices: {_both(total, unit)} needs at least {-(-total.numerator // total.denominator)} devices.",
        )
    elif share < 1 and not slot.divisible:
        reader.fail(key, f"{label}: {slot.title} is given out whole only; ask for 1 or more devices.")
    elif share < 1 and (near := unit.neighbours(unit.fgpu(share))):
        below, above = (n * spread for n in near)
        above = min(above, unit.per_device * spread)
        asked, step = (amount_text(value, key, unit) for value in (unit.fgpu(total), unit.quantum))
        nearest = list(dict.fromkeys(amount_text(v, key, unit) for v in (below, above) if v > 0))
        are = (
            f"the nearest are {' and '.join(nearest)}" if len(nearest) > 1 else f"the nearest is {nearest[0]}"
        )
        reader.fail(key, f"{label}: {asked} is not a multiple of {step}; {are}.")
    else:
        return Wish(slot.slot, spread, share)
    return None


def amount_text(fgpu: Fraction, key: str, unit: Unit) -> str:
    """An amount in the terms somebody used: fGPU, or a share of a device."""
    return f"{number(fgpu)} fGPU" if key == "fgpu" else f"{number(unit.share(fgpu), 4)} GPU"


def _both(share: Fraction, unit: Unit) -> str:
    return f"{number(unit.fgpu(share))} fGPU ({number(share)} GPU)"


def wish_text(wish: Wish | None, unit: Unit) -> str:
    """A wish for people: "0.5 fGPU (25 % of a device)", "2 whole devices", "1 × 1g.18gb", "no accelerator"."""
    if wish is None:
        return "no accelerator"
    if wish.profile:
        return f"{wish.count} × {wish.profile}"
    total = wish.share * wish.count
    if wish.share == 1:
        return f"{number(unit.fgpu(total))} fGPU ({wish.count} whole device{'s' if wish.count > 1 else ''})"
    where = "a device" if wish.count == 1 else f"each of {wish.count} devices"
    return f"{number(unit.fgpu(total))} fGPU ({number(wish.share * 100, 1)} % of {where})"
