"""A database that is only memory, for simulations: the rows of `tables`, written as a whole or not at all.

Keeps the same promises as `database.Database` as far as they can be broken in one process: one live request for each
server, one lease for each request, one open interval for each lease. Nothing is kept after the process.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from jupyterhub_bkai.errors import Unavailable
from jupyterhub_bkai.store import queries
from jupyterhub_bkai.store.database import Batch, Row
from jupyterhub_bkai.store.records import Record, read
from jupyterhub_bkai.store.tables import LIVE_STATES

T = TypeVar("T")
_LIVE = frozenset(LIVE_STATES.strip("()").replace("'", "").split(","))


class MemoryDatabase:
    """Rows by their keys. `fault` is called before and after each write ("before", "after"): what it raises happens
    at that moment, as the end of the process would.
    """

    def __init__(self, fault: Callable[[str], None] | None = None) -> None:
        self.requests: dict[str, Row] = {}
        self.leases: dict[str, Row] = {}
        self.slices: dict[str, list[Row]] = {}
        self.intervals: dict[str, Row] = {}
        self.transitions: list[Row] = []
        self.rules: dict[tuple[str, str], Row] = {}
        self.switches: dict[tuple[str, str], Row] = {}
        self.changes: list[Row] = []
        self.notices: list[Row] = []
        self.fault = fault or (lambda moment: None)
        self._servers: dict[tuple[str, str], str] = {}

    def close(self) -> None:
        """Nothing to end."""

    async def write(self, batch: Batch) -> None:
        """All of a batch or nothing. Raises `Unavailable` for what the tables forbid."""
        if not batch:
            return
        self.fault("before")
        batch.settle()
        self._check(batch)
        for row in batch.changed_requests:
            now = self.requests[row["id"]]
            now.update(row)
            if now["state"] not in _LIVE:
                self._forget(now)
        for row in batch.requests:
            self.requests[row["id"]] = dict(row)
            if row["state"] in _LIVE:
                self._servers[row["user_name"], row["server"]] = row["id"]
        for row in batch.changed_leases:
            self.leases[row["id"]].update(row)
        for row in batch.leases:
            self.leases[row["id"]] = dict(row)
        for row in batch.slices:
            self.slices.setdefault(row["lease"], []).append(dict(row))
        for row in batch.closed_intervals:
            self.intervals[row["lease"]].update(row)
        for row in batch.intervals:
            self.intervals[row["lease"]] = {
                "closed_ms": None,
                "duration_ms": None,
                "measured_kib": None,
                **row,
            }
        self.transitions.extend(batch.transitions)
        for table, rows in ((self.rules, batch.rules), (self.switches, batch.switches)):
            for row in rows:
                table.pop((row["kind"], row["name"]), None)
                if not row.get("gone"):
                    table[row["kind"], row["name"]] = dict(row)
        self.changes.extend(batch.changes)
        self.notices.extend(batch.notices)
        self.fault("after")

    def _forget(self, row: Row) -> None:
        server = row["user_name"], row["server"]
        if self._servers.get(server) == row["id"]:
            del self._servers[server]

    def _check(self, batch: Batch) -> None:
        ended = {row["id"] for row in batch.changed_requests if row.get("state", "queued") not in _LIVE}
        taken: set[tuple[str, str]] = set()
        for row in batch.requests:
            if row["state"] not in _LIVE:
                continue
            server = row["user_name"], row["server"]
            if server in taken or self._servers.get(server, row["id"]) not in {*ended, row["id"]}:
                raise Unavailable("The server has a live request.", reason="database")
            taken.add(server)
        for row in batch.leases:
            if row["id"] in self.leases:
                raise Unavailable("The request has a lease.", reason="database")

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """The answer of one of the queries that a broker starts with. Raises KeyError for any other."""
        answers: dict[Any, Callable[[], Any]] = {
            queries.last_order: lambda: max((row["ord"] for row in self.requests.values()), default=0),
            queries.live: lambda: self._records(lambda row: row["state"] in _LIVE),
            queries.unwanted: lambda: self._records(
                lambda row: bool(row["remove_server"]) and row["state"] not in _LIVE
            ),
            queries.rules: lambda: [row for _, row in sorted(self.rules.items())],
            queries.switches: lambda: [row for _, row in sorted(self.switches.items())],
            queries.choices: list,
            queries.warned: lambda: [
                row
                for row in self.notices
                if row["step_s"] is not None and self.requests[row["request"]]["state"] in _LIVE
            ],
            queries.open_intervals: lambda: [
                row for _, row in sorted(self.intervals.items()) if row["closed_ms"] is None
            ],
        }
        if isinstance(query, queries.Overlapping):
            touching = [
                row
                for row in self.intervals.values()
                if row["opened_ms"] < query.to_ms
                and (row["closed_ms"] is None or row["closed_ms"] > query.from_ms)
            ]
            return sorted(touching, key=lambda row: row["opened_ms"])  # type: ignore[return-value]
        if isinstance(query, queries.One):
            found = self._records(lambda row: row["id"] == query.record_id)
            return found[0] if found else None  # type: ignore[return-value]
        answer: T = answers[query]()
        return answer

    def _records(self, wanted: Callable[[Row], bool]) -> list[Record]:
        rows = sorted((row for row in self.requests.values() if wanted(row)), key=lambda row: row["ord"])
        empty = {"node": None, "granted_ms": None, "started_ms": None, "deadline_ms": None, "handle": None}
        return [
            read({**row, **(self.leases.get(row["id"]) or empty)}, self.slices.get(row["id"], ()))
            for row in rows
        ]
