"""What is read from the database: live records, a person's ended ones, transitions, usage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from jupyterhub_bkai.store import tables
from jupyterhub_bkai.store.records import Record, decode_request, read
from jupyterhub_bkai.store.tables import LIVE_STATES, intervals, leases, requests, slices, transitions

_JOINED = sa.select(
    requests,
    leases.c.node,
    leases.c.granted_ms,
    leases.c.started_ms,
    leases.c.deadline_ms,
    leases.c.handle,
).select_from(requests.outerjoin(leases, leases.c.id == requests.c.id))


def _records(
    connection: sa.Connection, where: sa.ColumnElement[bool] | sa.TextClause, limit: int | None = None
) -> list[Record]:
    query = _JOINED.where(where).order_by(requests.c.ord.desc()).limit(limit)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    pieces: dict[str, list[Mapping[str, Any]]] = {}
    ids = [row["id"] for row in rows]
    for start in range(0, len(ids), 500):
        chunk = sa.select(slices).where(slices.c.lease.in_(ids[start : start + 500]))
        for piece in connection.execute(chunk.order_by(slices.c.device_index)).mappings():
            pieces.setdefault(piece["lease"], []).append(dict(piece))
    return [read(row, pieces.get(row["id"], [])) for row in rows]


def live(connection: sa.Connection) -> list[Record]:
    """Every request that waits or holds something, oldest first."""
    return _records(connection, sa.text(f"requests.state IN {LIVE_STATES}"))[::-1]


def unwanted(connection: sa.Connection) -> list[Record]:
    """Ended requests whose servers the Hub is still to forget."""
    return _records(connection, sa.text(f"requests.remove_server AND requests.state NOT IN {LIVE_STATES}"))


def last_order(connection: sa.Connection) -> int:
    """The largest place in time given so far."""
    return int(connection.scalar(sa.select(sa.func.coalesce(sa.func.max(requests.c.ord), 0))) or 0)


@dataclass(frozen=True, slots=True)
class One:
    """The record of an id, live or ended; None when there is none."""

    record_id: str

    def __call__(self, connection: sa.Connection) -> Record | None:
        """As a query."""
        found = _records(connection, requests.c.id == self.record_id)
        return found[0] if found else None


def ended(user: str | None, since_ms: int, limit: int = 200) -> Callable[[sa.Connection], list[Record]]:
    """Ended requests of one person (everyone's for None) since a time, newest first."""

    def query(connection: sa.Connection) -> list[Record]:
        where = sa.and_(
            sa.text(f"requests.state NOT IN {LIVE_STATES}"),
            requests.c.ended_ms >= since_ms,
            requests.c.user_name == user if user is not None else sa.true(),
        )
        return _records(connection, where, limit)

    return query


def asked(from_ms: int, to_ms: int) -> Callable[[sa.Connection], list[tuple[Record, int | None]]]:
    """Everything that was asked for in a period, oldest first, each with the milliseconds that it was held; None for
    what was not, or still is.
    """

    def query(connection: sa.Connection) -> list[tuple[Record, int | None]]:
        where = sa.and_(requests.c.asked_ms >= from_ms, requests.c.asked_ms < to_ms)
        lengths = sa.select(intervals.c.lease, intervals.c.duration_ms).join(
            requests, requests.c.id == intervals.c.lease
        )
        held = {row.lease: row.duration_ms for row in connection.execute(lengths.where(where))}
        return [(record, held.get(record.id)) for record in _records(connection, where)[::-1]]

    return query


def story(record_id: str) -> Callable[[sa.Connection], list[Mapping[str, Any]]]:
    """Every transition of a request, first to last."""

    def query(connection: sa.Connection) -> list[Mapping[str, Any]]:
        rows = connection.execute(
            sa.select(transitions).where(transitions.c.request == record_id).order_by(transitions.c.n)
        )
        return [dict(row) for row in rows.mappings()]

    return query


def lengths(limit: int) -> Callable[[sa.Connection], list[tuple[str, int | None, float]]]:
    """The last sessions that ended, oldest first: whose, how many seconds they asked for, how many they lasted."""

    def query(connection: sa.Connection) -> list[tuple[str, int | None, float]]:
        rows = connection.execute(
            sa.select(intervals.c.user_name, requests.c.wish, intervals.c.duration_ms)
            .join(requests, requests.c.id == intervals.c.lease)
            .join(leases, leases.c.id == intervals.c.lease)
            .where(intervals.c.duration_ms.is_not(None), leases.c.started_ms.is_not(None))
            .order_by(intervals.c.opened_ms.desc())
            .limit(limit)
        ).all()
        return [(user, decode_request(wish).duration_s, ms / 1000) for user, wish, ms in reversed(rows)]

    return query


def open_intervals(connection: sa.Connection) -> list[Mapping[str, Any]]:
    """The intervals no release has closed yet."""
    still_open = intervals.c.closed_ms.is_(None)
    rows = connection.execute(sa.select(intervals).where(still_open).order_by(intervals.c.lease))
    return [dict(row) for row in rows.mappings()]


def rules(connection: sa.Connection) -> list[Mapping[str, Any]]:
    """Groups, policies and presets, as they are stored."""
    return _all(connection, tables.rules)


def switches(connection: sa.Connection) -> list[Mapping[str, Any]]:
    """What is closed by hand."""
    return _all(connection, tables.switches)


def choices(connection: sa.Connection) -> list[Mapping[str, Any]]:
    """What people want to be told."""
    return _all(connection, tables.choices)


def warned(connection: sa.Connection) -> list[Mapping[str, Any]]:
    """What live sessions have been warned of, oldest first."""
    notices = tables.notices
    joined = notices.join(requests, requests.c.id == notices.c.request)
    live_ones = sa.text(f"requests.state IN {LIVE_STATES}")
    query = sa.select(notices).select_from(joined).where(notices.c.step_s.is_not(None), live_ones)
    return [dict(row) for row in connection.execute(query.order_by(notices.c.at_ms, notices.c.id)).mappings()]


def due_deliveries(way: str, now_ms: int, limit: int) -> Callable[[sa.Connection], list[Mapping[str, Any]]]:
    """Deliveries with their notices that are to be tried by one way now, oldest first."""
    table = tables.deliveries
    where = sa.and_(table.c.state == "waiting", table.c.way == way, table.c.next_ms <= now_ms)
    return _deliveries(where, [table.c.next_ms, table.c.id], limit)


def waiting_elsewhere(ways: Sequence[str]) -> Callable[[sa.Connection], list[Mapping[str, Any]]]:
    """Deliveries that wait for any other way than these."""
    table = tables.deliveries
    return _deliveries(sa.and_(table.c.state == "waiting", table.c.way.not_in(ways)), [table.c.id], None)


def told(
    user: str | None, state: str | None, limit: int
) -> Callable[[sa.Connection], list[Mapping[str, Any]]]:
    """Deliveries with their notices, newest first: one person's, or those in one state."""
    table = tables.deliveries
    where = sa.and_(
        tables.notices.c.user_name == user if user is not None else sa.true(),
        table.c.state == state if state is not None else sa.true(),
    )
    return _deliveries(where, [tables.notices.c.at_ms.desc(), table.c.id.desc()], limit)


def _deliveries(
    where: sa.ColumnElement[bool], order: Sequence[sa.ColumnElement[Any]], limit: int | None
) -> Callable[[sa.Connection], list[Mapping[str, Any]]]:
    table, notices = tables.deliveries, tables.notices
    columns = [column for column in notices.c if column.name != "id"]
    query = (
        sa.select(table, *columns)
        .select_from(table.join(notices, notices.c.id == table.c.notice))
        .where(where)
        .order_by(*order)
        .limit(limit)
    )
    return lambda connection: [dict(row) for row in connection.execute(query).mappings()]


def _all(connection: sa.Connection, table: sa.Table) -> list[Mapping[str, Any]]:
    rows = connection.execute(sa.select(table).order_by(table.c.kind, table.c.name))
    return [dict(row) for row in rows.mappings()]


@dataclass(frozen=True, slots=True)
class Used:
    """One interval's part inside a period; `day` is its UTC date."""

    user: str
    project: str | None
    version: str
    day: str
    duration_ms: int
    cpu_milli: int
    memory_mib: int
    gpu_memory_mib: int
    share: Fraction
    measured_kib: int | None
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Overlapping:
    """The intervals that touch a period of wall time: one person's, or everybody's."""

    from_ms: int
    to_ms: int
    user: str | None = None

    def __call__(self, connection: sa.Connection) -> Sequence[Mapping[str, Any]]:
        """As a query."""
        rows = connection.execute(
            sa.select(intervals)
            .where(
                intervals.c.opened_ms < self.to_ms,
                sa.or_(intervals.c.closed_ms.is_(None), intervals.c.closed_ms > self.from_ms),
                intervals.c.user_name == self.user if self.user is not None else sa.true(),
            )
            .order_by(intervals.c.opened_ms)
        )
        return [dict(row) for row in rows.mappings()]
