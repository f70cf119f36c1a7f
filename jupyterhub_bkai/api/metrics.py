"""Metrics for Prometheus at `/services/bkai/metrics`, for administrators and tokens with the scope `read:metrics`.

Owns what stands at the moment, read from the broker when it is asked for; what has happened is counted by
`leasing.tally`. As there, no label names a person.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from jupyterhub_bkai.api.auth import HubLogin, NotLoggedIn
from jupyterhub_bkai.api.context import Context
from jupyterhub_bkai.api.operations import encode, error_body, to_public
from jupyterhub_bkai.errors import NotAllowed
from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.gpus.slices import usable_mib
from jupyterhub_bkai.leasing.lifecycle import PUBLIC, State
from jupyterhub_bkai.leasing.scheduler import Hall
from jupyterhub_bkai.leasing.switches import Kind
from jupyterhub_bkai.model import Node

SCOPE = "read:metrics"
MIB = 1 << 20


class _Sheet:
    """The gauges of one look, each made when it first gets a value."""

    def __init__(self) -> None:
        self.families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}

    def put(self, name: str, help: str, value: float, **labels: str) -> None:
        family = self.families.get(name)
        if family is None:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = self.families[name] = kind(name, help, labels=list(labels))
        family.add_metric(list(labels.values()), value)


@dataclass(slots=True)
class Standing(Collector):
    """What stands at the moment."""

    context: Context

    def collect(self) -> Iterable[Metric]:
        """All gauges, and the counters that are not counted one by one."""
        self.context.gauges.look()
        sheet = _Sheet()
        for hall in self.context.broker.scheduler.halls.values():
            self._group(sheet, hall)
        self._sessions(sheet)
        for node in self.context.broker.nodes:
            self._node(sheet, node)
        return sheet.families.values()

    def describe(self) -> Iterable[Metric]:
        """Nothing before the first look."""
        return ()

    def _group(self, sheet: _Sheet, hall: Hall) -> None:
        context, group = self.context, hall.name
        held = (Kind.GROUP, group) in context.broker.switches
        sheet.put("bkai_group_held", "1 while an administrator holds the group", held, group=group)
        gauges = context.gauges
        unusable = gauges.fragmentation(hall.books, [gauges.wants().get(group, {})])
        if unusable is not None:
            help = "Of what is free, the share that usual requests cannot use"
            sheet.put("bkai_fragmentation_ratio", help, unusable, group=group)
        help = "Device-seconds that stood free while somebody waited for a device"
        sheet.put("bkai_idle_device_seconds_total", help, gauges.idle.seconds.get(group, 0.0), group=group)
        for slot, (devices, free) in _capacity(hall.books).items():
            sheet.put("bkai_group_devices", "Devices that are given out", devices, group=group, slot=slot)
            sheet.put(
                "bkai_group_devices_free", "Devices free, in parts of devices", free, group=group, slot=slot
            )

    def _sessions(self, sheet: _Sheet) -> None:
        now_ms, broker = self.context.now_ms(), self.context.broker
        groups = [hall.name for hall in broker.scheduler.halls.values()]
        counts = Counter((r.request.group, PUBLIC[State(r.state)]) for r in broker.records.values())
        oldest: dict[str, int] = {}
        for record in broker.records.values():
            if record.state == State.QUEUED:
                group = record.request.group
                oldest[group] = min(record.asked_ms, oldest.get(group, record.asked_ms))
        for group in groups:
            since_ms = oldest.get(group, now_ms)
            sheet.put("bkai_waiting", "Requests that wait", counts[group, "PENDING"], group=group)
            help = "How long the one who waits longest has waited"
            sheet.put("bkai_oldest_wait_seconds", help, max(0, now_ms - since_ms) / 1000, group=group)
        for (group, state), count in counts.items():
            sheet.put("bkai_sessions", "Live sessions by state", count, group=group, state=state)

    def _node(self, sheet: _Sheet, node: Node) -> None:
        broker = self.context.broker
        book = broker.scheduler.node(node.name) or NodeBook.empty(node)
        name = {"node": node.name}
        cpu, memory = _booked(self.context, node.name)
        sheet.put("bkai_node_cpu_cores", "Processors", node.cpu_milli / 1000, **name)
        sheet.put("bkai_node_cpu_allocated_cores", "Processors promised", cpu / 1000, **name)
        sheet.put("bkai_node_memory_bytes", "Main memory", node.memory_mib * MIB, **name)
        sheet.put("bkai_node_memory_allocated_bytes", "Main memory booked", memory * MIB, **name)
        sheet.put("bkai_node_drained", "1 while drained", (Kind.NODE, node.name) in broker.switches, **name)
        healthy = {device.id: device.healthy for device in node.devices}
        for one in book.devices:
            device = one.device
            labels = {"node": node.name, "device": device.id}
            drained = (Kind.DEVICE, device.id) in broker.switches
            used_mib, used_sms = usable_mib(device) - one.free_mib, device.sms - one.free_sm_milli / 1000
            sheet.put("bkai_device_memory_bytes", "Memory for slices", usable_mib(device) * MIB, **labels)
            sheet.put("bkai_device_memory_allocated_bytes", "Memory in slices", used_mib * MIB, **labels)
            sheet.put("bkai_device_sms", "Streaming multiprocessors", device.sms, **labels)
            sheet.put("bkai_device_sms_allocated", "Streaming multiprocessors in slices", used_sms, **labels)
            sheet.put("bkai_device_share_allocated", "Held part, 0 to 1", float(1 - one.free_share), **labels)
            sheet.put(
                "bkai_device_healthy", "1 while it works", healthy.get(device.id, device.healthy), **labels
            )
            sheet.put("bkai_device_drained", "1 while drained", drained, **labels)
            info = {**labels, "index": str(device.index), "slot": device.slot, "model": device.model}
            sheet.put("bkai_device_info", "What the device is", 1, **info)


def _booked(context: Context, node: str) -> tuple[int, int]:
    """Thousandths of cores and MiB held on a node."""
    mine = context.broker.scheduler.held_on(node)
    return sum(held.cpu_milli for held in mine), sum(held.memory_mib for held in mine)


def _capacity(books: Iterable[NodeBook]) -> dict[str, tuple[int, float]]:
    """Devices that take something new, and what is free of them, by kind."""
    found: dict[str, tuple[int, float]] = {}
    for book in books:
        for one in book.devices:
            count, free = found.get(one.device.slot, (0, 0.0))
            if book.open and one.device.healthy:
                count, free = count + 1, free + float(one.free_share)
            found[one.device.slot] = count, free
    return found


class Collected(CollectorRegistry):
    """What was collected, as something to be written down: that takes a while, and need not hold up anybody."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """As it was."""
        return iter(self._families)


class Metrics(HubLogin):
    """Serves the metrics."""

    async def get(self) -> None:
        """All of them, as text."""
        try:
            await self._authorise()
            families = [one for part in self.application.settings["metrics"] for one in part.collect()]
            text = await asyncio.to_thread(generate_latest, Collected(families))
        except Exception as error:  # noqa: BLE001  the process edge: everything becomes an answer
            public = to_public(error)
            self.set_status(public.status)
            self.set_header("Content-Type", "application/json")
            self.finish(encode(error_body(public)))
            return
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(text)

    async def _authorise(self) -> None:
        model = await self.hub_auth.get_user(self, sync=False)
        self._hub_auth_user_cache = model
        if model is None:
            raise NotLoggedIn("Send a token with the scope read:metrics as “Authorization: Bearer …”.")
        if SCOPE in (model.get("scopes") or ()):
            return
        caller = await self.find_caller()
        if caller is None or not caller.person.admin:
            raise NotAllowed("Metrics are for administrators, and for tokens with the scope read:metrics.")

    def set_default_headers(self) -> None:
        """For the caller alone."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")


def collectors(context: Context) -> tuple[Collector, ...]:
    """What has happened, what stands at the moment, what the process itself uses."""
    return context.broker.tally.registry, Standing(context), ProcessCollector(registry=None)
