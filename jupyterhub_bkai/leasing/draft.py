"""What the commands of one transaction change: records, their rows, rules and switches, before any of it is true.

A draft is made from the present state, changed by commands one after the other, written, and only then taken over. One
command that is refused can be taken back while the others stand.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol, TypeVar

from jupyterhub_bkai import metering, names, policy, rulebook
from jupyterhub_bkai.clock import Stamp
from jupyterhub_bkai.errors import NotFound
from jupyterhub_bkai.gpus.fit import Choice
from jupyterhub_bkai.leasing import telling
from jupyterhub_bkai.leasing.lifecycle import FINAL, Cause, Move, State, target
from jupyterhub_bkai.leasing.switches import Switch, Switches
from jupyterhub_bkai.model import Request
from jupyterhub_bkai.notices import kinds
from jupyterhub_bkai.store.database import Batch
from jupyterhub_bkai.store.records import (
    Record,
    lease_row,
    request_row,
    slice_rows,
    standing_columns,
    wish_columns,
)

T = TypeVar("T")
#: where a command begins in a draft: steps, order, intervals, rows of the batch, what is closed
Mark = tuple[int, int, dict[str, metering.Interval | None], dict[str, int], Switches]


class Present(Protocol):
    """What a draft reads of the present state."""

    records: dict[str, Record]
    by_user: dict[str, dict[str, None]]
    intervals: dict[str, metering.Interval]
    settings: policy.Settings
    choices: dict[str, kinds.Choice]
    switches: Switches
    last_order: int
    entropy: Callable[[int], bytes]

    def composed(self, entries: Sequence[rulebook.Entry]) -> policy.Settings:
        """The settings with these rules. Raises `SettingsError`."""


class Draft:
    """The state as the commands of one transaction change it."""

    def __init__(self, present: Present, now: Stamp) -> None:
        self.now = now
        self.batch = Batch()
        self.changed: dict[str, Record] = {}
        self.order = present.last_order
        self.intervals: dict[str, metering.Interval | None] = {}
        #: the rules that count from the next decision on, when a command of this transaction changed them
        self.rules: tuple[tuple[rulebook.Entry, ...], policy.Settings] | None = None
        self.switches = present.switches
        self._present = present
        #: what commands did to `changed`, to take back the steps of one that is refused
        self._steps: list[tuple[str, Record | None]] = []

    def get(self, record_id: str) -> Record:
        """A live record as this draft has it. Raises `NotFound`."""
        record = self.changed.get(record_id) or self._present.records.get(record_id)
        if record is None:
            raise NotFound(f"There is no live session with the id {record_id[:26]}.")
        return record

    def of_user(self, user: str) -> list[Record]:
        """A person's live records as this draft has them."""
        ids = dict.fromkeys(self._present.by_user.get(user, ()))
        ids |= dict.fromkeys(id for id, record in self.changed.items() if record.user == user)
        return [record for id in ids if (record := self.get(id)).state not in FINAL]

    def add(self, record: Record, who: str, why: str) -> None:
        """A new request."""
        self._set(record)
        self.batch.requests.append(request_row(record))
        self._note(record, None, who, why)

    def move(self, record: Record, move: Move, who: str, why: str, **changes: Any) -> Record:
        """Makes one move of the table and whatever columns go with it. Raises `InvalidMove`."""
        cause = changes.get("cause") or record.cause
        state = target(State(record.state), move, Cause(cause) if cause else None)
        if state in FINAL:
            changes["ended_ms"] = self.now.wall_ms
        moved = replace(record, state=state, since_ms=self.now.wall_ms, **changes)
        self.put(moved)
        self._note(moved, record.state, who, why)
        if told := telling.of_move(moved, move, who, self._present.settings.notices.turn_after_s):
            self.tell(moved, *told)
        return moved

    def put(self, record: Record) -> None:
        """Columns changed without a move."""
        self._set(record)
        self.batch.changed_requests.append(standing_columns(record))
        if record.node is not None and record.granted_ms is not None:
            lease = lease_row(record)
            keys = ("id", "started_ms", "deadline_ms", "released_ms", "handle")
            self.batch.changed_leases.append({key: lease[key] for key in keys})

    def rewish(self, record: Record, request: Request, who: str, why: str) -> Record:
        """A waiting request asks for something else and keeps its place."""
        changed = replace(record, request=request)
        self.put(changed)
        self.batch.changed_requests.append(wish_columns(changed))
        self._note(changed, record.state, who, why)
        return changed

    def postpone(self, record: Record, deadline_ms: int, who: str, why: str) -> Record:
        """A running session ends later."""
        longer = replace(record, deadline_ms=deadline_ms)
        self.put(longer)
        self._note(longer, record.state, who, why)
        reached = kinds.step(self._present.settings.warn_before_s, deadline_ms, self.now.wall_ms)
        self.tell(longer, kinds.Kind.EXTENDED, telling.extended(longer, self.now.wall_ms), reached)
        return longer

    def tell(self, record: Record, kind: kinds.Kind, message: str, step_s: int | None = None) -> None:
        """Has the session's owner told something, by the ways they want. `step_s` before the deadline and earlier need
        no warning any more.
        """
        present, at_ms = self._present, self.now.wall_ms
        ways = kinds.ways(present.settings.notices, present.choices.get(record.user), kind)
        if ways or step_s is not None:
            id = names.lease_id(at_ms, present.entropy(10))
            self.batch.notices.append(telling.notice_row(record, id, at_ms, kind, message, step_s))
            self.batch.deliveries.extend(telling.delivery_rows(id, at_ms, ways))

    def rule(self, new: Sequence[rulebook.Entry], entries: tuple[rulebook.Entry, ...], who: str) -> None:
        """Rules changed; `entries` are all that there are then."""
        for entry in new:
            self.batch.rules.append(rule_row(entry))
            row = {"at_ms": self.now.wall_ms, "who": who, "kind": entry.kind, "name": entry.name}
            self.batch.changes.append(row | {"body": entry.body})
        self.rules = entries, self._present.composed(entries)

    def grant(self, record: Record, choice: Choice) -> Record:
        """Gives what `choice` says: the lease, its slices and its usage interval in one transaction."""
        request = record.request
        granted = self.move(
            record,
            Move.GRANT,
            "scheduler",
            f"granted on {choice.node}",
            node=choice.node,
            slices=choice.slices,
            granted_ms=self.now.wall_ms,
            message=None,
        )
        # `move` noted the lease's columns as changed, but the lease is only being made now.
        self.batch.changed_leases.pop()
        self.batch.leases.append(lease_row(granted))
        self.batch.slices.extend(slice_rows(granted))
        interval = metering.open_interval(
            record.id,
            (record.user, request.project, request.group, request.version),
            request.cpu_milli,
            request.memory_mib,
            choice.slices,
            self.now,
        )
        self.batch.intervals.append(metering.row(interval))
        self.intervals[record.id] = interval
        return granted

    def free(self, record: Record, who: str, why: str, measured_kib: int | None = None) -> Record:
        """Gives the slices back and closes the usage interval; the fence has proved that nothing is alive."""
        freed = self.move(record, Move.FREE, who, why)
        interval = self.intervals.get(record.id) or self._present.intervals.get(record.id)
        if interval is not None:
            closed = metering.close_interval(interval, self.now, measured_kib)
            self.batch.closed_intervals.append(metering.closing_row(closed))
            self.intervals[record.id] = None
        return freed

    def switch(self, switch: Switch, who: str, *, gone: bool = False) -> None:
        """Closes something by hand, or opens it again (`gone`)."""
        key = (switch.kind, switch.name)
        others = {other: one for other, one in self.switches.items() if other != key}
        self.switches = others if gone else {**others, key: switch}
        self.batch.switches.append(
            {**asdict(switch), "kind": str(switch.kind), **({"gone": True} if gone else {})}
        )
        self.batch.changes.append(
            {
                "at_ms": self.now.wall_ms,
                "who": who,
                "kind": f"{switch.kind}-switch",
                "name": switch.name,
                "body": None if gone else json.dumps({"why": switch.why}),
            }
        )

    def _set(self, record: Record) -> None:
        self._steps.append((record.id, self.changed.get(record.id)))
        self.changed[record.id] = record

    def mark(self) -> Mark:
        """Where a command begins, for `undo`."""
        lengths = {name: len(getattr(self.batch, name)) for name in self.batch.__slots__}
        return len(self._steps), self.order, dict(self.intervals), lengths, self.switches

    def undo(self, mark: Mark) -> None:
        """Takes back what one refused command did, so that the others of its transaction stand alone."""
        steps, self.order, self.intervals, lengths, self.switches = mark
        while len(self._steps) > steps:
            record_id, before = self._steps.pop()
            if before is None:
                del self.changed[record_id]
            else:
                self.changed[record_id] = before
        for name, length in lengths.items():
            del getattr(self.batch, name)[length:]

    def _note(self, record: Record, source: str | None, who: str, why: str) -> None:
        self.batch.transitions.append(
            {
                "request": record.id,
                "at_ms": self.now.wall_ms,
                "source": str(source) if source else None,
                "target": str(record.state),
                "who": who,
                "why": why[:500],
            }
        )


Command = Callable[[Draft], T]


def rule_row(entry: rulebook.Entry) -> dict[str, Any]:
    """The row of `rules`; one that says neither what counts nor what the file had only goes."""
    gone = entry.body is None and entry.seeded is None
    return {"kind": entry.kind, "name": entry.name, "body": entry.body, "seeded": entry.seeded, "gone": gone}
