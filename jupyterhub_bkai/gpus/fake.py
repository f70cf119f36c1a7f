"""Devices that do not exist, described in a TOML file: to try things out, to test with, to plan a purchase.

Owns the file's form and its checking: everything wrong with a file is said at once, each thing with its place. The
file is read again at every look, so that a test (or a curious administrator) makes a device vanish by an edit.
"""

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus.source import (
    SETTING,
    Health,
    MigInstance,
    Source,
    SourceOptions,
    SourceProblem,
    gone,
)
from jupyterhub_bkai.model import Device, MigProfile, Node

DEFAULT_SAMPLE = "two-80gb"

_LARGEST_FILE = 1 << 20
_MOST_DEVICES = 65_536
_MOST_MIB = 1 << 30
_MOST_UNITS = 1_000_000
_MOST_SLOTS = 64
_MOST_PROBLEMS = 50

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,119}")
_NODE = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_SLOT = re.compile(r"(?!none\Z)[a-z][a-z0-9-]{0,30}")
_PROFILE = re.compile(r"[0-9a-z][0-9a-z.+-]{0,40}")
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,200}")


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file describes, all checked."""

    devices: tuple[Device, ...]
    machines: tuple[Node, ...] = ()
    instances: tuple[MigInstance, ...] = ()
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    failing: str = ""


class FakeSource(Source):
    """Devices from a shipped sample or from a file of the administrator's.

    The first reading happens in the constructor and raises `SettingsError`; a file that goes wrong later is a
    `SourceProblem`, so that what runs keeps running.
    """

    name = "fake"
    fake = True

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._path = sample_path(options.argument or DEFAULT_SAMPLE, options.folder)
        self._read: bytes | None = None
        self._layout = self._load()

    def devices(self) -> list[Device]:
        """What the file says now."""
        layout = self._current()
        return [replace(device, healthy=device.id not in layout.unhealthy) for device in layout.devices]

    def health(self, device: Device) -> Health:
        """What the file's `[faults]` say of the device."""
        layout = self._current()
        if device.id not in {known.id for known in layout.devices}:
            return gone(device)
        sentence = layout.unhealthy.get(device.id)
        return Health(True) if sentence is None else Health(False, sentence)

    def instances(self, device: Device) -> tuple[MigInstance, ...]:
        """The MIG devices that the file says exist."""
        return tuple(found for found in self._current().instances if found.device == device.id)

    def machines(self) -> tuple[Node, ...]:
        """The nodes that the file gives processors and memory to."""
        return self._layout.machines

    def facts(self) -> Mapping[str, str]:
        """Which file the devices come from."""
        return {"fake devices": self._options.argument or DEFAULT_SAMPLE}

    def _current(self) -> Layout:
        try:
            self._layout = self._load()
        except SettingsError as error:
            raise SourceProblem(f"The file of fake devices is wrong: {error}", reason="fake-file") from error
        if self._layout.failing:
            raise SourceProblem(self._layout.failing, reason="fake-failing")
        return self._layout

    def _load(self) -> Layout:
        content = _content(self._path)
        if content != self._read:
            layout = parse(content, self._path.name, self._options)
            self._read = content
            return layout
        return self._layout


def samples() -> tuple[str, ...]:
    """The names of the shipped samples."""
    folder = files("jupyterhub_bkai.gpus") / "samples"
    names = (Path(entry.name) for entry in folder.iterdir())
    return tuple(sorted(name.stem for name in names if name.suffix == ".toml"))


def sample_path(sample: str, folder: Path = Path()) -> Path:
    """The file that `sample` means: a shipped one's name, or the path (from `folder`) of one's own in .toml."""
    if sample.endswith(".toml"):
        try:
            return folder / Path(sample).expanduser()
        except RuntimeError as error:
            raise SettingsError(
                [(SETTING, f"“{sample[:60]}” begins with the home of nobody known.")]
            ) from error
    if sample not in samples():
        sentence = (
            f"There is no sample “{sample[:60]}”: choose one of {', '.join(samples())}, or give a .toml file."
        )
        raise SettingsError([(SETTING, sentence)])
    return Path(str(files("jupyterhub_bkai.gpus") / "samples" / f"{sample}.toml"))


def described(sample: str, options: SourceOptions) -> Layout:
    """What a shipped sample or a file of one's own describes now. Raises `SettingsError`."""
    path = sample_path(sample, options.folder)
    return parse(_content(path), path.name, options)


def parse(content: bytes, name: str, options: SourceOptions) -> Layout:
    """The layout that a file's content describes, or `SettingsError` with every problem and its place in `name`."""
    try:
        table = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise SettingsError([(name, f"The file is not UTF-8 text (byte {error.start}).")]) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([(name, f"The file is not TOML: {error}.")]) from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number of too many digits
        raise SettingsError(
            [(name, "The file is not TOML that can be read: it is nested too deep or too long.")]
        ) from error
    checker = _Checker(name)
    layout = _layout(table, checker, options)
    checker.finish()
    return layout


def _content(path: Path) -> bytes:
    """The file's bytes. Never waits: a named pipe or a device is refused before it is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SettingsError([(str(path), f"The file cannot be read: {error.strerror}.")]) from error
    except ValueError as error:  # a null character in the path
        raise SettingsError([(SETTING, "This is not a path.")]) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SettingsError([(str(path), "This is not a plain file.")])
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise SettingsError([(str(path), f"The file cannot be read: {error.strerror}.")]) from error
    finally:
        os.close(descriptor)
    if len(content) > _LARGEST_FILE:
        raise SettingsError([(str(path), "The file is larger than 1 MiB.")])
    return content


# -- the form of the file ----------------------------------------------------------------------

_TOP = ("description", "devices", "faults", "instances", "mig", "nodes")
_NODE_KEYS = ("name", "cpu", "memory_mib", "devices")
_DEVICE_KEYS = (
    "id", "count", "slot", "model", "memory_mib", "sms", "reserve_mib", "numa", "mig", "divisible",
)  # fmt: skip
_MIG_KEYS = ("name", "size", "placements", "memory_mib", "sms")
_INSTANCE_KEYS = ("device", "profile", "start", "uuid")
_FAULT_KEYS = ("vanished", "unhealthy", "failing")


class _Checker:
    """Takes typed values out of tables and notes what is wrong, going on with a harmless stand-in."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[tuple[str, str]] = []

    def problem(self, place: str, sentence: str) -> None:
        self._problems.append((f"{self._file}, {place}" if place else self._file, sentence))

    @property
    def clean(self) -> bool:
        """True while nothing wrong was found."""
        return not self._problems

    def finish(self) -> None:
        """Raise what was found; of a file that is wrong in more places than anyone reads, the first ones."""
        shown = self._problems[:_MOST_PROBLEMS]
        if len(self._problems) > len(shown):
            shown.append((self._file, f"There are {len(self._problems) - len(shown)} more problems."))
        if shown:
            raise SettingsError(shown)

    def table(self, value: object, place: str, keys: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.problem(place, "This must be a table.")
            return {}
        for key in value:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, n=1)
                hint = f"did you mean “{near[0]}”?" if near else f"known here are {', '.join(keys)}."
                self.problem(_at(place, key), f"There is no such key: {hint}")
        return value

    def tables(
        self, table: dict[str, Any], place: str, key: str, keys: tuple[str, ...]
    ) -> Iterator[tuple[str, Any]]:
        """Each table of an array, with its place."""
        value = table.get(key, [])
        if not isinstance(value, list):
            self.problem(_at(place, key), f"This must be an array of tables: write [[{_at(place, key)}]].")
            return
        for number, entry in enumerate(value):
            spot = f"{_at(place, key)}[{number}]"
            found = self.table(entry, spot, keys)
            if isinstance(entry, dict):
                yield spot, found

    def integer(
        self, table: dict[str, Any], place: str, key: str, low: int, high: int, default: int | None = None
    ) -> int:
        value = table.get(key, default)
        if value is None:
            self.problem(_at(place, key), f"This is missing: give a whole number from {low} to {high}.")
        elif not _whole(value) or not low <= value <= high:
            self.problem(_at(place, key), f"This must be a whole number from {low} to {high}.")
        else:
            return int(value)
        return low

    def integers(self, value: object, place: str, high: int) -> tuple[int, ...]:
        if isinstance(value, list) and value and all(_whole(one) and 0 <= one <= high for one in value):
            return tuple(value)
        self.problem(place, f"This must be a list of whole numbers from 0 to {high}.")
        return ()

    def text(
        self,
        table: dict[str, Any],
        place: str,
        key: str,
        form: re.Pattern[str],
        what: str,
        default: str | None = None,
    ) -> str:
        value = table.get(key, default)
        if value is None:
            self.problem(_at(place, key), f"This is missing: give {what}.")
        elif not isinstance(value, str) or not form.fullmatch(value):
            self.problem(_at(place, key), f"This must be {what}.")
        else:
            return value
        return ""

    def flag(self, table: dict[str, Any], place: str, key: str, default: bool) -> bool:
        value = table.get(key, default)
        if isinstance(value, bool):
            return value
        self.problem(_at(place, key), "This must be true or false.")
        return default


def _at(place: str, key: str) -> str:
    shown = key if _ID.fullmatch(key) else repr(key)[:60]
    return f"{place}.{shown}" if place else shown


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(slots=True)
class _Form:
    """What the parts of the file are read with; `room` is how many more devices may follow."""

    checker: _Checker
    options: SourceOptions
    geometries: Mapping[str, tuple[MigProfile, ...]]
    room: int = _MOST_DEVICES


def _layout(top: dict[str, Any], checker: _Checker, options: SourceOptions) -> Layout:
    checker.table(top, "", _TOP)
    if "description" in top:
        checker.text(top, "", "description", _LINE, "a line of text")
    form = _Form(checker, options, _geometries(top, checker))
    devices = list(_devices(top, "", options.node, form))
    machines: list[Node] = []
    for place, table in checker.tables(top, "", "nodes", _NODE_KEYS):
        node = _node(table, place, checker, options)
        if node.name in {machine.name for machine in machines}:
            checker.problem(_at(place, "name"), f"There is a node “{node.name}” already.")
        machines.append(node)
        devices += _devices(table, place, node.name, form)
    devices = _unique(devices, checker)
    if not devices and checker.clean:
        checker.problem("", "The file describes no devices: write at least one [[devices]].")
    instances = tuple(_instances(top, checker, {device.id: device for device in devices}))
    layout = Layout(tuple(devices), tuple(node for node in machines if node.cpu_milli), instances)
    return _with_faults(layout, top.get("faults", {}), checker)


def _node(table: dict[str, Any], place: str, checker: _Checker, options: SourceOptions) -> Node:
    """A node; this machine's own may leave out `cpu` and `memory_mib` and then has its real ones."""
    name = checker.text(table, place, "name", _NODE, "a host name in lower case")
    if name == options.node and "cpu" not in table and "memory_mib" not in table:
        return Node(name, 0, 0)
    cpu = checker.integer(table, place, "cpu", 1, 4096)
    return Node(name, cpu * 1000, checker.integer(table, place, "memory_mib", 1, _MOST_MIB))


def _geometries(top: dict[str, Any], checker: _Checker) -> dict[str, tuple[MigProfile, ...]]:
    tables = top.get("mig", {})
    if not isinstance(tables, dict):
        checker.problem("mig", "This must hold arrays of profiles: write [[mig.NAME]].")
        return {}
    found = {}
    for name in tables:
        profiles = [
            _profile(table, place, checker) for place, table in checker.tables(tables, "mig", name, _MIG_KEYS)
        ]
        if len({profile.name for profile in profiles}) < len(profiles):
            checker.problem(_at("mig", name), "Two profiles have the same name.")
        found[name] = tuple(profiles)
    return found


def _profile(table: dict[str, Any], place: str, checker: _Checker) -> MigProfile:
    name = checker.text(table, place, "name", _PROFILE, "a profile's name like “1g.18gb”")
    size = checker.integer(table, place, "size", 1, _MOST_SLOTS)
    starts = checker.integers(table.get("placements"), _at(place, "placements"), _MOST_SLOTS - 1)
    if len(set(starts)) < len(starts):
        checker.problem(_at(place, "placements"), "A placement is given twice.")
    memory = checker.integer(table, place, "memory_mib", 1, _MOST_MIB)
    sms = checker.integer(table, place, "sms", 1, _MOST_UNITS)
    return MigProfile(name, size, tuple(sorted(starts)), memory, sms * 1000)


def _devices(parent: dict[str, Any], parent_place: str, node: str, form: _Form) -> Iterator[Device]:
    checker = form.checker
    indices: dict[str, int] = {}
    for place, table in checker.tables(parent, parent_place, "devices", _DEVICE_KEYS):
        count = checker.integer(table, place, "count", 1, _MOST_DEVICES, default=1)
        if "id" in table and count != 1:
            checker.problem(
                _at(place, "id"), "Only a single device can be given an id: leave out “count” or “id”."
            )
        form.room -= count
        if form.room < 0:
            checker.problem(_at(place, "count"), f"A file has at most {_MOST_DEVICES} devices.")
            return
        pattern = _device(table, place, node, form)
        numa = _numa(table, place, count, checker)
        for offset in range(count):
            index = indices.get(pattern.slot, 0)
            indices[pattern.slot] = index + 1
            made = f"fake-{node}-{pattern.slot}-{index}"
            yield replace(pattern, id=pattern.id or made, index=index, numa=numa[offset])


def _device(table: dict[str, Any], place: str, node: str, form: _Form) -> Device:
    checker = form.checker
    memory = checker.integer(table, place, "memory_mib", 1, _MOST_MIB)
    sms = checker.integer(table, place, "sms", 1, _MOST_UNITS)
    usual = min(form.options.reserve_mib or 0, memory)
    reserve = checker.integer(table, place, "reserve_mib", 0, _MOST_MIB, default=usual)
    if reserve > memory and "memory_mib" in table:
        checker.problem(_at(place, "reserve_mib"), "More is held back than the device has.")
    ident = ""
    if "id" in table:
        ident = checker.text(table, place, "id", _ID, "1–120 letters, digits, “.”, “_”, “:” or “-”")
    return Device(
        id=ident,
        node=node,
        index=0,
        slot=checker.text(
            table, place, "slot", _SLOT, "a short lower-case word (not “none”)", default="cuda"
        ),
        model=checker.text(table, place, "model", _LINE, "the model as people call it"),
        memory_mib=memory,
        sms=sms,
        reserve_mib=reserve,
        mig=_mig(table, place, form, memory, sms),
        divisible=checker.flag(table, place, "divisible", True),
        fake=True,
    )


def _mig(table: dict[str, Any], place: str, form: _Form, memory: int, sms: int) -> tuple[MigProfile, ...]:
    if "mig" not in table:
        return ()
    name = table["mig"]
    profiles = form.geometries.get(name, ()) if isinstance(name, str) else ()
    if not profiles:
        sentence = "This must be the NAME of profiles given with [[mig.NAME]] in this file."
        form.checker.problem(_at(place, "mig"), sentence)
    for profile in profiles:
        if profile.memory_mib > memory or profile.sm_milli > sms * 1000:
            form.checker.problem(
                _at(place, "mig"), f"The profile “{profile.name}” is larger than the device."
            )
    return profiles


def _numa(table: dict[str, Any], place: str, count: int, checker: _Checker) -> list[int | None]:
    """The memory node of each device of an entry: one number for all, or one for each."""
    value = table.get("numa")
    if value is None:
        return [None] * count
    if _whole(value) and 0 <= value <= 4095:
        return [value] * count
    nodes = checker.integers(value, _at(place, "numa"), 4095)
    if nodes and len(nodes) != count:
        checker.problem(
            _at(place, "numa"), f"Give one number for all devices, or one for each of the {count}."
        )
    return [*nodes, *[None] * count]


def _unique(devices: list[Device], checker: _Checker) -> list[Device]:
    found: dict[str, Device] = {}
    for device in devices:
        if device.id in found:
            checker.problem("devices", f"Two devices have the id “{device.id}”.")
        found[device.id] = device
    return list(found.values())


def _instances(
    top: dict[str, Any], checker: _Checker, devices: Mapping[str, Device]
) -> Iterator[MigInstance]:
    taken: dict[str, int] = {}
    for number, (place, table) in enumerate(checker.tables(top, "", "instances", _INSTANCE_KEYS)):
        device = devices.get(checker.text(table, place, "device", _ID, "a device's id"))
        profiles = {profile.name: profile for profile in device.mig} if device else {}
        profile = profiles.get(checker.text(table, place, "profile", _PROFILE, "a profile's name"))
        start = checker.integer(table, place, "start", 0, _MOST_SLOTS - 1)
        if device is None or profile is None or start not in profile.placements:
            checker.problem(place, "No device has such a profile that may begin there.")
            continue
        slots = ((1 << profile.size) - 1) << start
        if taken.get(device.id, 0) & slots:
            checker.problem(place, "It overlaps another instance of the same device.")
        taken[device.id] = taken.get(device.id, 0) | slots
        uuid = checker.text(table, place, "uuid", _ID, "an id", default=f"MIG-{device.id[:60]}-{number}")
        yield MigInstance(
            device.id, uuid, profile.name, profile.memory_mib, profile.sm_milli, start, profile.size
        )


def _with_faults(layout: Layout, faults: object, checker: _Checker) -> Layout:
    """The layout with its `[faults]`: devices that vanished, that are sick, or a source that fails altogether."""
    table = checker.table(faults, "faults", _FAULT_KEYS)
    ids = {device.id for device in layout.devices}
    vanished = table.get("vanished", [])
    unhealthy = table.get("unhealthy", {})
    if not isinstance(vanished, list) or not all(isinstance(one, str) and one in ids for one in vanished):
        checker.problem("faults.vanished", "This must be a list of ids of devices in this file.")
        vanished = []
    if not isinstance(unhealthy, dict):
        checker.problem("faults.unhealthy", "This must be a table: a device's id = “why in a sentence”.")
        unhealthy = {}
    for ident in unhealthy:
        if ident not in ids:
            checker.problem(_at("faults.unhealthy", ident), "No device in this file has this id.")
        checker.text(unhealthy, "faults.unhealthy", ident, _LINE, "a line of text")
    failing = checker.text(table, "faults", "failing", _LINE, "a line of text") if "failing" in table else ""
    devices = tuple(device for device in layout.devices if device.id not in set(vanished))
    return replace(layout, devices=devices, unhealthy=unhealthy, failing=failing)
