"""What the service answers, as frozen dataclasses.

Owns shapes only: `decode` fills them from JSON. A key the client does not know is ignored and one with a
default may be missing or null, so that an older client works with a newer service. `raw` is the JSON itself.
"""

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from jupyterhub_bkai.model import Slice

T = TypeVar("T")
Json = Mapping[str, Any]

ENDED = frozenset({"TERMINATED", "CANCELLED", "ERROR"})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the preparation is; `percent` is None while nobody can tell."""

    message: str
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class When:
    """Between which moments somebody who waits starts, in nine of ten cases."""

    earliest: datetime
    latest: datetime


@dataclass(frozen=True, slots=True)
class Warning:
    """That a session ends soon, as its owner was told; each has an id of its own."""

    id: str
    message: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One session, waiting, running or ended, as the service's books have it.

    `position` and `why`, and `when` where it can be told, are set while it waits;
    `fgpu` and `share` while it has or wants a slice; `cause` and
    `message` say how it ended. `url` is where the session answers, relative to the hub's address.
    """

    id: str
    user: str
    server: str
    url: str
    image: str
    state: str
    name: str = ""
    group: str = ""
    project: str | None = None
    session_type: str = "interactive"
    state_since: datetime | None = None
    position: int | None = None
    why: str | None = None
    when: When | None = None
    progress: Progress | None = None
    accelerator: str = "no accelerator"
    fgpu: Fraction | None = None
    share: Fraction | None = None
    slices: tuple[Slice, ...] = ()
    cpu: float = 0.0
    memory_mib: int = 0
    shm_mib: int = 0
    asked: datetime | None = None
    granted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    deadline: datetime | None = None
    warning: Warning | None = None
    cause: str | None = None
    message: str | None = None
    trouble: str | None = None
    not_before: datetime | None = None
    after: tuple[str, ...] = ()
    node: str | None = None
    enforcement: str = ""
    fake: bool = False
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @property
    def over(self) -> bool:
        """True when it has ended and will not change any more."""
        return self.state in ENDED

    @property
    def title(self) -> str:
        """What people call it, once among their live ones: its server's name; "default" for the nameless one."""
        return self.server or self.name or "default"


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a session's life."""

    at: datetime
    to: str
    origin: str | None = None
    who: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Info:
    """What kind of service this is."""

    version: str
    fake_devices: bool = False
    statement: str = ""
    enforcement: str = ""
    process_users: str = ""
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Me:
    """Whom the token belongs to; `session` is set when it is a session's own token."""

    name: str
    admin: bool = False
    projects: tuple[str, ...] = ()
    session: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Options:
    """What may be asked for: the declared fields and what is on offer just now."""

    fields: tuple[Json, ...] = ()
    offer: Json = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a session like this would start: `starts` is "now", "later" or "never"."""

    starts: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """What the service thinks of options before they are asked for; no errors means it would take them."""

    errors: Mapping[str, str] = field(default_factory=dict)
    outlook: Outlook | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of something there is, how much of it is booked, and the most that can be (0: as much as there is)."""

    total: float
    booked: float = 0
    most: float = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """A part of a device that somebody holds. Whose it is, stands there if the caller may know."""

    share: Fraction
    memory_mib: int
    session: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """Something that takes nothing new: since when and why, and for administrators by whom."""

    since: datetime | None = None
    why: str = ""
    who: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator and what is booked on it."""

    id: str
    index: int
    slot: str
    model: str
    memory_mib: int
    booked_mib: int = 0
    sms: int = 0
    booked_sm_milli: int = 0
    share_free: Fraction | None = None
    divisible: bool = True
    healthy: bool = True
    drained: Closed | None = None
    mig: tuple[str, ...] = ()
    fake: bool = False
    slices: tuple[Holding, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Node:
    """One machine: its processors in thousandths of a core, its memory, its devices."""

    name: str
    cpu: Amount
    memory_mib: Amount
    drained: Closed | None = None
    devices: tuple[Device, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Waiting:
    """One request in a queue. `id` and `user` are there where the caller may see whose it is."""

    position: int
    id: str | None = None
    user: str | None = None
    name: str | None = None
    priority: int | None = None
    why: str | None = None
    when: When | None = None
    asked: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """The requests that wait for one resource group, first come first."""

    name: str
    held: Closed | None = None
    waiting: tuple[Waiting, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)


# -- from JSON --------------------------------------------------------------------------------


def decode(kind: type[T], value: object) -> T:
    """`value`, parsed JSON, as `kind`. Raises ValueError, with the place, when it does not fit."""
    return cast(T, _read(kind, value, kind.__name__))


def _read(kind: Any, value: Any, place: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _read(_present(kind), value, place)
    if origin is tuple:
        _expect(isinstance(value, list), place, value)
        return tuple(_read(get_args(kind)[0], item, f"{place}[{n}]") for n, item in enumerate(value))
    if is_dataclass(kind):
        return _record(cast(type[Any], kind), value, place)
    if origin is not None:
        _expect(isinstance(value, dict), place, value)
        return value
    return _scalar(kind, value, place)


def _record(kind: type[Any], value: Any, place: str) -> Any:
    _expect(isinstance(value, dict), place, value)
    known: dict[str, Any] = {}
    for name, (key, hint, required) in _shape(cast(Any, kind)).items():
        if name == "raw":
            known[name] = value
        elif required or value.get(key) is not None:
            known[name] = _read(hint, value.get(key), f"{place}.{key}")
    return kind(**known)


@cache
def _shape(kind: type[Any]) -> dict[str, tuple[str, Any, bool]]:
    hints = get_type_hints(kind)
    renamed = {"origin": "from"} if kind is Transition else {}
    return {
        f.name: (
            renamed.get(f.name, f.name),
            hints[f.name],
            f.default is MISSING and f.default_factory is MISSING,
        )
        for f in fields(kind)
    }


def _scalar(kind: Any, value: Any, place: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        if kind is Fraction:
            return Fraction(value)
        if kind is datetime:
            return datetime.fromisoformat(value)
        if kind is float and number:
            return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        _expect(False, place, value)
    fits = number and float(value).is_integer() if kind is int else isinstance(value, kind)
    _expect(fits, place, value)
    return int(value) if kind is int else value


def _present(kind: Any) -> Any:
    return next(option for option in get_args(kind) if option is not type(None))


def _expect(fits: bool, place: str, value: object) -> None:
    if not fits:
        raise ValueError(f"{place} is {value!r:.60}")
