"""The nouns of the house, frozen: devices and slices, requests and leases.

Owns shapes and units only. Amounts are integers (MiB, thousandths of a core, thousandths of an SM)
or exact fractions of one device; times are milliseconds since the epoch, UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction


class SessionType(StrEnum):
    """What a session is for; a resource group may allow only some of them."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
    INFERENCE = "inference"
    SYSTEM = "system"


# -- devices ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MigProfile:
    """One way to cut a device in hardware, as the driver lists it.

    `size` is the number of memory slots an instance occupies, `placements` the slots it may begin at
    (for one device, in the driver's numbering), `sm_milli` thousandths of SMs.
    """

    name: str
    size: int
    placements: tuple[int, ...]
    memory_mib: int
    sm_milli: int


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator as its source describes it.

    `id` is stable over restarts (the vendor's uuid where there is one); `slot` is the kind of thing asked
    for ("cuda", "atom", …); `sms` is the number of streaming multiprocessors, or of whatever units the
    vendor counts. `mig` is non-empty when the device is in MIG mode: then only its profiles can be had.
    `divisible` is false where only whole devices make sense. `healthy` false keeps it from new leases.
    """

    id: str
    node: str
    index: int
    slot: str
    model: str
    memory_mib: int
    sms: int
    reserve_mib: int = 0
    numa: int | None = None
    mig: tuple[MigProfile, ...] = ()
    divisible: bool = True
    healthy: bool = True
    fake: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One machine whose processors, memory and devices are handed out."""

    name: str
    cpu_milli: int
    memory_mib: int
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where on a device a MIG instance sits: `start` and `size` in memory slots."""

    profile: str
    start: int
    size: int

    @property
    def mask(self) -> int:
        """The occupied memory slots as a bit mask."""
        return ((1 << self.size) - 1) << self.start


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of one device (or all of it) that a lease holds."""

    device: str
    index: int
    slot: str
    model: str
    share: Fraction
    memory_mib: int
    sm_milli: int
    mig: Placement | None = None


# -- requests --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """How much of an accelerator is asked for: `count` equal pieces, each on a device of its own.

    A piece is `share` of a device (1 = a whole one), or one MIG instance of `profile`. `models` names the models
    that will do; when it is empty, any will.
    """

    slot: str
    count: int = 1
    share: Fraction = Fraction(1)
    profile: str | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder the administrator declared, as one session gets it. `mode` is "ro" or "rw"."""

    name: str
    mode: str


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked for, checked and with every default filled in."""

    version: str
    group: str
    cpu_milli: int
    memory_mib: int
    shm_mib: int
    wish: Wish | None = None
    session_type: SessionType = SessionType.INTERACTIVE
    project: str | None = None
    count: int = 1
    duration_s: int | None = None
    folders: tuple[Mount, ...] = ()
    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    #: 0–100; a higher one is served first
    priority: int = 10
    #: it starts at this moment at the earliest (0: at once), and not before these sessions have ended
    not_before_ms: int = 0
    after: tuple[str, ...] = ()
    #: sessions that start together or not at all: the id of the first of them
    gang: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks: the Hub's user name, the Hub groups they are in, whether they administer the Hub."""

    name: str
    groups: tuple[str, ...] = ()
    admin: bool = False
