"""What there is to give: this machine's processors and memory, and the devices of all sources.

Owns the comparing of one look with the last (what appeared, vanished, fell ill) and the reading of this machine's
true size. Does not know who holds what: that is the broker's.
"""

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jupyterhub_bkai.gpus.source import Health, Source, SourceProblem
from jupyterhub_bkai.model import Device, Node

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Illness:
    """A device that may not take new sessions, and why in a sentence."""

    device: Device
    why: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What one refresh found different from the one before. False when nothing is.

    `altered` are devices whose other facts changed (a MIG mode switched, a card moved to another index), as they
    are now. `resized` are nodes that came, went, or have other processors or memory. `complaints` are all present
    troubles with sources in sentences; they count as a change only through `complained`.
    """

    appeared: tuple[Device, ...] = ()
    vanished: tuple[Device, ...] = ()
    unhealthy: tuple[Illness, ...] = ()
    recovered: tuple[Device, ...] = ()
    altered: tuple[Device, ...] = ()
    resized: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    complained: bool = False

    def __bool__(self) -> bool:
        devices = (self.appeared, self.vanished, self.unhealthy, self.recovered, self.altered)
        return any(devices) or bool(self.resized) or self.complained


class Inventory:
    """The nodes and their devices, as of the last refresh.

    `refresh` blocks (a sick driver may take seconds): call it from a thread. What the other members give is a
    snapshot that never changes under the reader. A source that fails loses no device: its devices stay, unhealthy,
    until it answers again; only a source that answers without a device makes it vanish.
    """

    def __init__(self, sources: Sequence[Source], *, node: Node) -> None:
        self._sources = tuple(sources)
        self._node = node
        self._lock = threading.Lock()
        self._seen: dict[int, tuple[Device, ...]] = {}
        self._devices: Mapping[str, Device] = {}
        self._nodes: tuple[Node, ...] = (node,)
        self._ill: Mapping[str, str] = {}
        self._complaints: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """This machine first, then the machines that fake sources make up; each with its devices."""
        return self._nodes

    @property
    def devices(self) -> Mapping[str, Device]:
        """Every device there is, by id."""
        return self._devices

    @property
    def illnesses(self) -> Mapping[str, str]:
        """Why each unhealthy device is, by the device's id."""
        return self._ill

    @property
    def complaints(self) -> tuple[str, ...]:
        """Present troubles with sources, in sentences."""
        return self._complaints

    @property
    def fake(self) -> bool:
        """True when any of the devices does not exist."""
        return any(source.fake for source in self._sources)

    def facts(self) -> dict[str, str]:
        """Versions and the like, of all sources that tell."""
        told: dict[str, str] = {}
        for source in self._sources:
            try:
                told |= source.facts()
            except SourceProblem as problem:
                told[source.name] = problem.message
        return told

    def refresh(self) -> Changes:
        """Look at everything again and say what is different."""
        with self._lock:
            complaints: list[str] = []
            devices: dict[str, Device] = {}
            ill: dict[str, str] = {}
            for source in self._sources:
                for device, why in self._look(source, complaints):
                    if device.id in devices:
                        complaints.append(f"Two devices say they are “{device.id}”: the first one counts.")
                        continue
                    devices[device.id] = device
                    if not device.healthy:
                        ill[device.id] = why
            nodes = self._arrange(devices, complaints)
            changes = self._compare(devices, nodes, ill, tuple(complaints))
            self._devices, self._nodes, self._ill = devices, nodes, ill
            self._complaints = changes.complaints
        _report(changes)
        return changes

    def close(self) -> None:
        """Close the sources."""
        for source in self._sources:
            source.close()

    def _look(self, source: Source, complaints: list[str]) -> Iterable[tuple[Device, str]]:
        """One source's devices, each with why it is ill (or nothing)."""
        place = self._sources.index(source)
        why = None
        try:
            self._seen[place] = tuple(source.devices())
        except SourceProblem as problem:
            why = problem.message
        except Exception:  # the loop that asks has to go on, and sources may be anybody's
            log.exception("device source %s failed", source.name)
            why = f"The device source “{source.name}” failed: the service's log says how."
        if why is None:
            complaints += source.complaints
            return [(device, "" if device.healthy else _why(source, device)) for device in self._seen[place]]
        complaints.append(why)
        return [(replace(device, healthy=False), why) for device in self._seen.get(place, ())]

    def _arrange(self, devices: dict[str, Device], complaints: list[str]) -> tuple[Node, ...]:
        """The nodes with their devices; a device of a node that nobody described is left out of `devices`."""
        machines = {self._node.name: self._node}
        for source in self._sources:
            machines |= {machine.name: machine for machine in source.machines()}
        for device in [device for device in devices.values() if device.node not in machines]:
            complaints.append(
                f"The device “{device.id}” is left out: nothing is known of its node “{device.node}”."
            )
            del devices[device.id]
        return tuple(
            replace(
                machine, devices=tuple(device for device in devices.values() if device.node == machine.name)
            )
            for machine in machines.values()
        )

    def _compare(
        self,
        devices: Mapping[str, Device],
        nodes: tuple[Node, ...],
        ill: Mapping[str, str],
        complaints: tuple[str, ...],
    ) -> Changes:
        before = self._devices
        both = [(before[key], device) for key, device in devices.items() if key in before]
        appeared = tuple(device for key, device in devices.items() if key not in before)
        fell = [now for was, now in both if was.healthy and not now.healthy]
        fell += [device for device in appeared if not device.healthy]
        return Changes(
            appeared=appeared,
            vanished=tuple(device for key, device in before.items() if key not in devices),
            unhealthy=tuple(Illness(device, ill[device.id]) for device in fell),
            recovered=tuple(now for was, now in both if now.healthy and not was.healthy),
            altered=tuple(now for was, now in both if replace(was, healthy=now.healthy) != now),
            resized=_resized(self._nodes, nodes),
            complaints=complaints,
            complained=complaints != self._complaints,
        )


def _why(source: Source, device: Device) -> str:
    """The source's sentence on an ill device; never empty."""
    try:
        health = source.health(device)
    except SourceProblem as problem:
        health = Health(False, problem.message)
    except Exception:  # as in `_look`
        log.exception("device source %s failed on %s", source.name, device.id)
        health = Health(False)
    return health.message or f"{device.model} {device.index} does not work."


def _resized(before: tuple[Node, ...], after: tuple[Node, ...]) -> tuple[str, ...]:
    sizes = [{node.name: (node.cpu_milli, node.memory_mib) for node in nodes} for nodes in (before, after)]
    return tuple(sorted({name for name, _ in sizes[0].items() ^ sizes[1].items()}))


def _report(changes: Changes) -> None:
    for device in changes.appeared:
        log.info("device %s appeared: %s %s on %s", device.id, device.model, device.index, device.node)
    for device in changes.vanished:
        log.warning("device %s vanished: %s %s on %s", device.id, device.model, device.index, device.node)
    for illness in changes.unhealthy:
        log.warning("device %s is unhealthy: %s", illness.device.id, illness.why)
    for device in changes.recovered:
        log.info("device %s is healthy again", device.id)
    for device in changes.altered:
        log.info("device %s changed: %s", device.id, device)
    if changes.complained:
        for complaint in changes.complaints:
            log.warning("devices: %s", complaint)


# -- this machine ------------------------------------------------------------------------------


def this_machine(name: str = "local", *, root: Path = Path("/")) -> Node:
    """This machine, or the container we are in: what may be used of its processors and memory, without devices.

    Limits are read where a container sees its own (the top of its cgroup tree), not of the service's own cgroup:
    sessions do not run inside that one. `root` is where /proc and /sys are, for tests.
    """
    cpu_milli = len(os.sched_getaffinity(0)) * 1000
    memory_mib = _total_memory_mib(root)
    return Node(name, min([cpu_milli, *_cpu_limits(root)]), min([memory_mib, *_memory_limits(root)]))


def _total_memory_mib(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    raise RuntimeError("/proc/meminfo does not tell how much memory there is")


def _cpu_limits(root: Path) -> list[int]:
    """Thousandths of a core that the cgroup allows, by version 2 and by version 1 of cgroups."""
    quota, period = ([*_words(root / "sys/fs/cgroup/cpu.max"), "", ""])[:2]
    older = root / "sys/fs/cgroup/cpu"
    older_quota = "".join(_words(older / "cpu.cfs_quota_us"))
    older_period = "".join(_words(older / "cpu.cfs_period_us"))
    pairs = ((quota, period), (older_quota, older_period))
    return [
        max(1, int(quota) * 1000 // int(period))
        for quota, period in pairs
        if quota.isdigit() and period.isdigit() and int(quota) and int(period)
    ]


def _memory_limits(root: Path) -> list[int]:
    """MiB that the cgroup allows. Version 1 says "no limit" with a number larger than any machine's memory."""
    places = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
    limits = ("".join(_words(root / place)) for place in places)
    return [max(1, int(limit) // 2**20) for limit in limits if limit.isdigit()]


def _words(path: Path) -> list[str]:
    """A small kernel file's words; nothing where there is no such file."""
    try:
        return path.read_text().split()
    except OSError:
        return []
