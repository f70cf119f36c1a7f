"""The judge of a simulation: looks at what was written and at what is really alive, and at nothing the broker counts.

`Broken` says what was promised and is not so. Its own books are integers per device and node, kept from the rows of
each transaction as the database took it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from typing import Any

from jupyterhub_bkai import policy
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.lifecycle import FINAL, HOLDING
from jupyterhub_bkai.leasing.queue import Discipline
from jupyterhub_bkai.leasing.scheduler import Rules
from jupyterhub_bkai.model import Node
from jupyterhub_bkai.store.database import Batch, Row

#: what may pass between a deadline and the end that follows it, in milliseconds: a service that died tries again
LATE_MS = 120_000
#: the same amounts, once as fractions and once as floating point, may differ by this much
CLOSE = 1e-6


class Broken(Exception):
    """A promise was broken; the text says which."""


@dataclass(slots=True)
class Seen:
    """One request as its rows tell of it. Moments are of the even clock."""

    id: str
    order: int
    user: str
    server: str
    group: str
    priority: int
    state: str
    asked_ms: int
    wants: bool = False
    devices: float = 0.0
    granted_ms: int | None = None
    ended_ms: int | None = None
    deadline_ms: int | None = None
    cause: str | None = None
    node: str = ""
    cpu_milli: int = 0
    memory_mib: int = 0
    slices: Sequence[Row] = ()


@dataclass(slots=True)
class _Queue:
    """Who waits in one group, for the order that its rules give."""

    rules: Rules
    totals: dict[str, float]
    waiting: dict[str, Seen] = field(default_factory=dict)
    first: list[tuple[int, int, str]] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=dict)

    def key(self, seen: Seen) -> tuple[int, int, str]:
        later = self.rules.discipline is Discipline.LIFO
        return -seen.priority, -seen.order if later else seen.order, seen.id

    def add(self, seen: Seen) -> None:
        self.waiting[seen.id] = seen
        heappush(self.first, self.key(seen))

    def head(self) -> tuple[int, int, str] | None:
        while self.first and self.first[0][2] not in self.waiting:
            heappop(self.first)
        return self.first[0] if self.first else None

    def part(self, seen: Seen) -> float:
        """The largest part of any resource of the group that a session holds."""
        amounts = {"cpu": float(seen.cpu_milli), "memory": float(seen.memory_mib)}
        for piece in seen.slices:
            amounts[piece["slot"]] = amounts.get(piece["slot"], 0.0) + float(Fraction(piece["share"]))
        return max(
            (amounts[name] / self.totals[name] for name in amounts if self.totals.get(name)), default=0.0
        )


class Judge:
    """Sees every transaction. `now_ms` and `wall_ms` are set by whoever drives the simulation, before each turn."""

    def __init__(self, settings: policy.Settings, nodes: Sequence[Node]) -> None:
        self.now_ms = self.wall_ms = 0
        #: leases whose processes are alive
        self.alive: set[str] = set()
        self.live: dict[str, Seen] = {}
        #: what was granted and what ended since the driver last looked
        self.granted: list[Seen] = []
        self.ended: list[Seen] = []
        #: every device's memory, thousandths of SMs and (without MIG) parts that are given, MIG slots taken
        self.memory: dict[str, int] = {}
        self.sm: dict[str, int] = {}
        self.share: dict[str, Fraction] = {}
        self.mask: dict[str, int] = {}
        #: device-parts held, and those on devices held whole or in part: for the report
        self.held = 0.0
        #: how many wait for a device
        self.wanting = 0
        self.broken_into = 0
        self._holders: dict[str, int] = {}
        self._devices = {device.id: device for node in nodes for device in node.devices}
        self._nodes = {node.name: [0, 0] for node in nodes}
        self._room = {node.name: (_cpu(settings, node), node.memory_mib) for node in nodes}
        self._deadlines: list[tuple[int, str]] = []
        #: who is late, and since when by the even clock
        self._late: tuple[str, int] | None = None
        self._queues = {group.name: _queue(settings, group, nodes) for group in settings.groups}

    # -- transactions ------------------------------------------------------------------------

    def see(self, batch: Batch) -> None:
        """One transaction that the database took. Raises `Broken`."""
        for row in batch.requests:
            self._asked(row)
        slices: dict[str, list[Row]] = {}
        for row in batch.slices:
            slices.setdefault(row["lease"], []).append(row)
        leases = {row["id"]: row for row in batch.leases}
        causes = {row["id"]: row.get("cause") for row in (*batch.requests, *batch.changed_requests)}
        begun, over = len(self.granted), len(self.ended)
        # In the order in which it happened: what comes free is free before somebody else is given it.
        for row in batch.transitions:
            seen = self._moved(row)
            if row["source"] == "queued":
                self._queues[seen.group].waiting.pop(seen.id, None)
                self.wanting -= seen.wants
        for row in batch.transitions:
            if row["target"] in FINAL:
                self._over(self.live[row["request"]], causes.get(row["request"]))
            elif (row["source"], row["target"]) == ("queued", "granted"):
                if row["request"] not in leases:
                    raise Broken(f"{row['request']} was granted without a lease")
                self._given(leases[row["request"]], slices.get(row["request"], ()))
        for row in (*batch.leases, *batch.changed_leases):
            if (held := self.live.get(row["id"])) is not None:
                self._deadline(held, row.get("deadline_ms"))
        self._metered(batch, self.granted[begun:], self.ended[over:])

    def _asked(self, row: Row) -> None:
        if row["id"] in self.live:
            raise Broken(f"{row['id']} was asked for twice")
        # The wish is stored as JSON; its priority is what order goes by.
        priority = int(_after(row["wish"], '"priority":') or 10)
        seen = Seen(
            row["id"], row["ord"], row["user_name"], row["server"], row["group_name"], priority, "queued",
            self.now_ms, wants='"wish":null' not in row["wish"],
        )  # fmt: skip
        self.wanting += seen.wants
        self.live[seen.id] = seen
        self._queues[seen.group].add(seen)

    def _moved(self, row: Row) -> Seen:
        seen = self.live.get(row["request"])
        if seen is None:
            raise Broken(f"{row['request']} moved to {row['target']} and is not live")
        if row["source"] is None:
            return seen
        if seen.state != row["source"]:
            raise Broken(f"{seen.id} was {seen.state} and moved as if it were {row['source']}")
        seen.state = row["target"]
        return seen

    def _given(self, row: Row, slices: Sequence[Row]) -> None:
        seen = self.live[row["id"]]
        if seen.granted_ms is not None:
            raise Broken(f"{seen.id} was granted twice")
        self._in_turn(seen)
        seen.granted_ms, seen.node, seen.slices = self.now_ms, row["node"], slices
        seen.cpu_milli, seen.memory_mib = row["cpu_milli"], row["memory_mib"]
        self._book(seen, 1)
        used, room = self._nodes[seen.node], self._room[seen.node]
        if used[0] > room[0] or used[1] > room[1]:
            raise Broken(
                f"{seen.node} gave {used[0]} of {room[0]} thousandths of cores, {used[1]} of {room[1]} MiB"
            )
        self.granted.append(seen)

    def _book(self, seen: Seen, sign: int) -> None:
        used = self._nodes[seen.node]
        used[0] += sign * seen.cpu_milli
        used[1] += sign * seen.memory_mib
        queue = self._queues[seen.group]
        if queue.rules.discipline is Discipline.DRF:
            queue.held[seen.user] = queue.held.get(seen.user, 0.0) + sign * queue.part(seen)
        for piece in seen.slices:
            self._piece(piece, sign)
        if sign > 0:
            seen.devices = sum(float(Fraction(piece["share"])) for piece in seen.slices)
        self.held += sign * seen.devices

    def _piece(self, piece: Row, sign: int) -> None:
        id = piece["device"]
        device = self._devices[id]
        memory = self.memory[id] = self.memory.get(id, 0) + sign * piece["memory_mib"]
        sm = self.sm[id] = self.sm.get(id, 0) + sign * piece["sm_milli"]
        holders = self._holders[id] = self._holders.get(id, 0) + sign
        self.broken_into += (sign > 0 and holders == 1) - (sign < 0 and holders == 0)
        if memory > device.memory_mib or sm > device.sms * 1000:
            raise Broken(
                f"{id} gave {memory} of {device.memory_mib} MiB, {sm} of {device.sms * 1000} SMs/1000"
            )
        if piece["mig_size"]:
            bits = ((1 << piece["mig_size"]) - 1) << piece["mig_start"]
            mask = self.mask.get(id, 0)
            if sign > 0 and mask & bits:
                raise Broken(f"MIG slots of {id} were given twice")
            self.mask[id] = mask ^ bits
            return
        share = self.share[id] = self.share.get(id, Fraction(0)) + sign * Fraction(piece["share"])
        if share > 1:
            raise Broken(f"{share} of {id} were given")

    def _over(self, seen: Seen, cause: str | None) -> None:
        if seen.id in self.alive:
            raise Broken(f"{seen.id} was given back while it is alive")
        seen.ended_ms, seen.cause = self.now_ms, cause
        if seen.granted_ms is not None:
            self._book(seen, -1)
        del self.live[seen.id]
        self.ended.append(seen)

    def _metered(self, batch: Batch, given: Sequence[Seen], over: Sequence[Seen]) -> None:
        """What is metered is what was held, by a clock that nobody sets."""
        opened, begun = {row["lease"] for row in batch.intervals}, {seen.id for seen in given}
        if opened != begun:
            raise Broken(f"metered is not what was given: {sorted(opened ^ begun)}")
        rows = (*batch.intervals, *batch.closed_intervals)
        closed = {row["lease"]: row["duration_ms"] for row in rows if row.get("duration_ms") is not None}
        ended = {seen.id: self.now_ms - seen.granted_ms for seen in over if seen.granted_ms is not None}
        if closed != ended:
            wrong = sorted(set(closed.items()) ^ set(ended.items()))
            raise Broken(f"metered is not what was held, in ms: {wrong[:4]}")

    # -- order -------------------------------------------------------------------------------

    def _in_turn(self, seen: Seen) -> None:
        """Without backfill nobody starts before one whose turn it was, as the group's discipline says."""
        queue = self._queues[seen.group]
        rules = queue.rules
        if rules.backfill or rules.skip_after is not None or rules.discipline is Discipline.FAIR:
            return
        if rules.discipline is Discipline.DRF:
            self._least_had(queue, seen)
        elif (head := queue.head()) is not None and head < queue.key(seen):
            raise Broken(f"{seen.id} overtook {head[2]}, whose turn it was by {rules.discipline}")

    def _least_had(self, queue: _Queue, seen: Seen) -> None:
        had = queue.held.get(seen.user, 0.0)
        for other in queue.waiting.values():
            if other.priority > seen.priority:
                raise Broken(f"{seen.id} overtook {other.id}, which has a higher priority")
            if other.priority == seen.priority and queue.held.get(other.user, 0.0) + CLOSE < had:
                raise Broken(f"{seen.user} had {had:.6f} and overtook {other.user}, who had less")

    # -- at any moment -----------------------------------------------------------------------

    def _deadline(self, seen: Seen, deadline_ms: int | None) -> None:
        if deadline_ms is not None and deadline_ms != seen.deadline_ms:
            seen.deadline_ms = deadline_ms
            heappush(self._deadlines, (deadline_ms, seen.id))

    def look(self) -> None:
        """Nothing lives without a lease, and nobody holds anything beyond their time. Raises `Broken`."""
        while self._deadlines and self._deadlines[0][0] < self.wall_ms:
            deadline_ms, id = self._deadlines[0]
            seen = self.live.get(id)
            if seen is not None and seen.state == "running" and seen.deadline_ms == deadline_ms:
                if self._late is None or self._late[0] != id:
                    self._late = id, self.now_ms
                if self.now_ms > self._late[1] + LATE_MS:
                    raise Broken(f"{id} is held beyond its deadline")
                return
            heappop(self._deadlines)
        self._late = None

    def compare(self, broker: Broker) -> None:
        """What the service believes is what is written. Raises `Broken`."""
        holding = {id for id, seen in self.live.items() if seen.state in HOLDING}
        if not self.alive <= holding:
            raise Broken(f"alive without a lease: {sorted(self.alive - holding)}")
        believed = {id: str(record.state) for id, record in broker.records.items()}
        written = {id: seen.state for id, seen in self.live.items()}
        if believed != written:
            wrong = sorted(set(believed.items()) ^ set(written.items()))[:4]
            raise Broken(f"the service believes something else than what is written: {wrong}")
        scheduler = broker.scheduler
        for id in written.keys() - holding:
            try:
                scheduler.waiting(id)
            except KeyError:
                raise Broken(f"{id} waits and is forgotten") from None
        if set(scheduler.held) != holding:
            raise Broken(f"the books know of other holders: {sorted(set(scheduler.held) ^ holding)[:4]}")

    def settled(self) -> None:
        """At the end everything was answered and given back. Raises `Broken`."""
        if self.live:
            some = [f"{seen.id} ({seen.state})" for seen in self.live.values()][:4]
            raise Broken(f"{len(self.live)} wishes were never answered, among them {', '.join(some)}")
        left = {name: used for name, used in self._nodes.items() if used != [0, 0]}
        if left or self.broken_into or any(self.memory.values()) or any(self.mask.values()):
            raise Broken(f"something is held when all have ended: {left}")

    @property
    def waiting(self) -> Mapping[str, Mapping[str, Seen]]:
        """Who waits, by group."""
        return {name: queue.waiting for name, queue in self._queues.items()}


def _queue(settings: policy.Settings, group: policy.Group, nodes: Sequence[Node]) -> _Queue:
    totals: dict[str, Any] = {}
    for node in nodes:
        if group.nodes and node.name not in group.nodes:
            continue
        totals["cpu"] = totals.get("cpu", 0.0) + _cpu(settings, node)
        totals["memory"] = totals.get("memory", 0.0) + node.memory_mib
        for device in node.devices:
            totals[device.slot] = totals.get(device.slot, 0.0) + 1
    return _Queue(group.rules, totals)


def _cpu(settings: policy.Settings, node: Node) -> int:
    """The processors of a node that may be promised, in thousandths."""
    mine = [group.cpu_overcommit for group in settings.groups if not group.nodes or node.name in group.nodes]
    return int(node.cpu_milli * min(mine, default=Fraction(1)))


def _after(text: str, key: str) -> str:
    """The number after a key of a JSON text."""
    found = text.rfind(key)
    end = found + len(key)
    while found >= 0 and end < len(text) and text[end].isdigit():
        end += 1
    return text[found + len(key) : end] if found >= 0 else ""
