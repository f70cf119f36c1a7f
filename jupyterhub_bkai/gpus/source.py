"""What a device source is, and how one is found by name.

Owns the interface between the service and whatever knows about accelerators, and the choice that the word
"auto" stands for. Keeps no books and remembers nothing between looks: that is the inventory's.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from ctypes import CDLL
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.model import Device, Node

ENTRY_POINT_GROUP = "bkai.device_sources"
AUTO = "auto"
SETTING = "devices"  # the place in the settings file where sources are named

#: Reasons of a `SourceProblem` that mean "this machine has no such hardware", as against "it does not work".
NO_HARDWARE = frozenset({"driver-missing", "driver-not-loaded", "no-devices", "not-installed"})

#: What a machine without NVIDIA's library is told.
NO_DRIVER = "No NVIDIA driver is installed on this machine: install it if there is an NVIDIA GPU."

# The two that come with us, so that they are found in a checkout that was never installed as well.
_BUILT_IN = (
    EntryPoint("fake", "jupyterhub_bkai.gpus.fake:FakeSource", ENTRY_POINT_GROUP),
    EntryPoint("nvidia", "jupyterhub_bkai.gpus.nvidia:NvidiaSource", ENTRY_POINT_GROUP),
)


class SourceProblem(Exception):
    """A source cannot say what there is.

    `message` is one plain sentence for the administrator: what is wrong and what to do. `reason` is a stable
    lower-case word for programs and metrics.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a device may take new sessions. `message` is a sentence: why not, or what to know; may be empty."""

    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A MIG device that exists: hardware already cut, by us or by somebody else.

    `uuid` is what a program is given to see it. `start` and `size` are its memory slots; None where the driver
    tells them only to root and we are not.
    """

    device: str
    uuid: str
    profile: str
    memory_mib: int
    sm_milli: int
    start: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceProcess:
    """A process of the host that holds memory of a device now. `memory_kib` is measured; None if not told.

    `instance` is the uuid of the MIG device it runs on, None on a device that is not cut.
    """

    pid: int
    memory_kib: int | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the administrator's settings tell a source.

    `node` is the name of this machine. `reserve_mib` is memory of each device that no session gets; None leaves
    it to the source. `argument` is what stands behind the source's name in the settings ("fake:two-80gb"), empty
    if nothing does; a path in it is relative to `folder`. The source checks it and raises `SettingsError`.
    """

    node: str = "local"
    reserve_mib: int | None = None
    argument: str = ""
    folder: Path = Path()


class Source(ABC):
    """One origin of devices. Write a subclass and name it in the entry-point group `bkai.device_sources`.

    The class (or any callable) is called with `SourceOptions` and returns the source. The constructor may raise
    `SettingsError` (all problems at once, each with its place) and must not need the hardware: a machine whose
    driver is being updated still has to come up.

    All methods block and may be called from any thread, never two at once. `devices`, `health`, `instances` and
    `processes` ask the hardware each time and raise `SourceProblem` when the source as a whole cannot answer;
    every other exception is a bug. None of them changes anything or takes memory of a device.
    """

    #: The name in settings and messages.
    name: str = ""
    #: True where the devices do not exist: every page then says so.
    fake: bool = False

    @abstractmethod
    def devices(self) -> list[Device]:
        """All devices there are now, in a stable order.

        - `id` is the identity: the same card has the same id after any restart and in any slot, and no other
          card ever has it. Of ids that two sources give, the first source's counts.
        - A device that is known but does not work is in the list with `healthy` false. One that is gone is
          not in the list. One that was never identified is a sentence in `complaints`.
        - `mig` is non-empty exactly when the device is in MIG mode, with the profiles and placements that *this*
          device has. Its `memory_mib`, `sms` and `index` are those of the whole card.
        - `fake` equals the source's.
        """

    def health(self, device: Device) -> Health:
        """Whether `device` works now and, if not, why in a sentence. Not ok for a device that is gone."""
        for found in self.devices():
            if found.id == device.id:
                sentence = "" if found.healthy else f"{found.model} {found.index} does not work."
                return Health(found.healthy, sentence)
        return gone(device)

    def instances(self, device: Device) -> tuple[MigInstance, ...]:
        """The MIG devices that exist on `device`; nothing where it is not in MIG mode."""
        return ()

    def processes(self, device: Device) -> tuple[DeviceProcess, ...]:
        """The processes that hold memory of `device`; nothing where the source cannot tell."""
        return ()

    def machines(self) -> tuple[Node, ...]:
        """Machines that this source makes up, without their devices. A source of real devices has none."""
        return ()

    def facts(self) -> Mapping[str, str]:
        """Versions and the like for the administrator's page ({"driver": "…", "cuda": "13.0"}); may be empty."""
        return {}

    @property
    def complaints(self) -> tuple[str, ...]:
        """Sentences on what the last `devices()` had to leave out."""
        return ()

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open, and need not say so
        """Let go of everything; idempotent, and nothing is called afterwards."""


Factory = Callable[[SourceOptions], Source]


@dataclass(frozen=True, slots=True)
class Selection:
    """The sources in use and one or two sentences for people on why these."""

    sources: tuple[Source, ...]
    statement: str

    @property
    def fake(self) -> bool:
        """True when any of the devices does not exist."""
        return any(source.fake for source in self.sources)


def gone(device: Device) -> Health:
    """The health of a device that its source no longer lists."""
    return Health(False, f"{device.model} {device.index} is no longer there.")


def installed() -> dict[str, EntryPoint]:
    """Every source that can be named in settings. Ours cannot be replaced by an installed one of that name."""
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {**found, **{point.name: point for point in _BUILT_IN}}


def open_source(name: str, options: SourceOptions) -> Source:
    """The source called `name`. `SettingsError` for an unknown name, `SourceProblem` if its code does not load."""
    known = installed()
    if name not in known:
        raise SettingsError([(SETTING, _unknown(name, known))])
    try:
        factory: Factory = known[name].load()
    except Exception as error:  # anything may go wrong in somebody else's module
        raise SourceProblem(
            f"The device source “{name}” cannot be loaded ({error}): install what it needs or name another one.",
            reason="not-installed",
        ) from error
    return factory(options)


def select(setting: str, options: SourceOptions) -> Selection:
    """The sources that the setting names: "auto", or one or several as NAME or NAME:ARGUMENT, with commas between.

    "auto" is NVIDIA's where its library finds devices, or is there and fails in a way that only a machine with
    such devices can (a driver just updated, say): devices must not turn into fake ones under the people who use
    them. Everywhere else it is the fake source, and the statement says so.
    """
    wanted = [part.strip() for part in setting.split(",")]
    if wanted == [AUTO]:
        return _automatic(options)
    names = [part.partition(":")[0] for part in wanted]
    if AUTO in names or len(set(names)) < len(names):
        raise SettingsError([(SETTING, f"Give “{AUTO}” alone, or the name of each source once.")])
    sources: list[Source] = []
    statements = []
    try:
        for part in wanted:
            name, _, argument = part.partition(":")
            sources.append(open_source(name, replace(options, argument=argument)))
            statements.append(_statement(sources[-1], argument))
    except BaseException:
        for source in sources:
            source.close()
        raise
    return Selection(tuple(sources), " ".join(statements))


def _automatic(options: SourceOptions) -> Selection:
    if not _nvidias_library_loads():
        return _pretend(NO_DRIVER, options)
    try:
        nvidia = open_source("nvidia", options)
    except SourceProblem as problem:
        return _pretend(problem.message, options)
    try:
        devices = nvidia.devices()
    except SourceProblem as problem:
        if problem.reason not in NO_HARDWARE:
            return Selection((nvidia,), f"{problem.message} Until then this machine has no devices to give.")
        why = problem.message
    else:
        if devices or nvidia.complaints:
            return Selection((nvidia,), _statement(nvidia))
        why = "NVIDIA's driver is there but finds no GPU."
    nvidia.close()
    return _pretend(why, options)


def _nvidias_library_loads() -> bool:
    """Asked before the module that talks to it is imported: that one takes 17 MB, for nothing on most laptops."""
    try:
        CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _pretend(why: str, options: SourceOptions) -> Selection:
    fake = open_source("fake", options)
    return Selection((fake,), f"{why} {_statement(fake, options.argument)}")


def _statement(source: Source, argument: str = "") -> str:
    described = f"“{source.name}:{argument}”" if argument else f"“{source.name}”"
    if source.fake:
        return f"The devices shown are fake (from {described}): they are booked, but no program can use them."
    return f"Devices come from the source {described}."


def _unknown(name: str, known: Mapping[str, EntryPoint]) -> str:
    choices = [AUTO, *sorted(known)]
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean “{near[0]}”?" if near else f"choose one of {', '.join(choices)}."
    return f"There is no device source “{name[:60]}”: {hint}"
