"""The database: opening, migrating, one writer thread, one reader thread.

Owns connections and transactions; knows nothing of what the rows mean. A `Batch` is written in one transaction and
has been synced to disk when `write` returns.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from jupyterhub_bkai.errors import SettingsError, Unavailable
from jupyterhub_bkai.store import tables

T = TypeVar("T")
Row = dict[str, Any]
#: how long to wait for the lock of a service that has just ended, before each try but the first
LOCK_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(slots=True)
class Batch:
    """What one transaction writes. `changed_*` rows name the primary key and the columns to set."""

    requests: list[Row] = field(default_factory=list)
    changed_requests: list[Row] = field(default_factory=list)
    leases: list[Row] = field(default_factory=list)
    changed_leases: list[Row] = field(default_factory=list)
    slices: list[Row] = field(default_factory=list)
    transitions: list[Row] = field(default_factory=list)
    intervals: list[Row] = field(default_factory=list)
    closed_intervals: list[Row] = field(default_factory=list)
    #: rows that are put in the place of those of the same kind and name; with `gone`, only taken out
    rules: list[Row] = field(default_factory=list)
    switches: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    notices: list[Row] = field(default_factory=list)
    deliveries: list[Row] = field(default_factory=list)
    changed_deliveries: list[Row] = field(default_factory=list)
    #: as `rules`
    choices: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)

    def settle(self) -> None:
        """Keeps of several changes to one row what they come to: a row that is new is written once, as it is in the
        end. What is left of `changed_*` then is of rows that were there before.
        """
        self.changed_requests = _settled(self.requests, self.changed_requests, "id")
        self.changed_leases = _settled(self.leases, self.changed_leases, "id")
        self.closed_intervals = _settled(self.intervals, self.closed_intervals, "lease")


def _settled(made: Sequence[Row], changed: Sequence[Row], key: str) -> list[Row]:
    """Brings new rows up to their changes; returns what is left, one change for each older row."""
    new = {row[key]: row for row in made}
    old: dict[str, Row] = {}
    for row in changed:
        target = new.get(row[key])
        (old.setdefault(row[key], {}) if target is None else target).update(row)
    return list(old.values())


class Store(Protocol):
    """What a broker keeps its rows in. Raises `Unavailable` for a write that it does not take."""

    async def write(self, batch: Batch) -> None:
        """All of a batch, or nothing."""

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """The answer of a query."""


class Database:
    """One database, open. Raises `SettingsError` when it cannot be opened or is somebody else's."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._engine = _engine(url)
        except ModuleNotFoundError as error:
            raise SettingsError(
                [
                    (
                        "database",
                        f"{error.name} is not installed; use: pip install 'jupyterhub-bkai[hub,postgres]'",
                    )
                ]
            ) from error
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._lock: sa.Connection | None = None
        try:
            self._open()
        except SettingsError:
            self.close()
            raise
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            self.close()
            raise SettingsError([("database", _opening(error))]) from error

    def _open(self) -> None:
        if self._engine.dialect.name == "postgresql":
            if not self._wait_for_lock():
                raise SettingsError([("database", "another service uses this database; stop it first.")])
        else:
            connection = self._engine.connect()
            answer = connection.scalar(sa.text("PRAGMA quick_check(1)"))
            connection.close()
            if answer != "ok":
                raise SettingsError([("database", f"the file is damaged ({answer}); restore a copy.")])
        migrate(self._engine)

    def _wait_for_lock(self) -> bool:
        """The server takes a moment to notice that the service before this one has ended."""
        for pause_s in LOCK_PAUSES_S:
            if self._take_lock():
                return True
            time.sleep(pause_s)
        return self._take_lock()

    def _take_lock(self) -> bool:
        """One service only: the lock goes with the connection, so a killed service leaves none behind."""
        connection = self._engine.connect()
        if not connection.scalar(sa.text("SELECT pg_try_advisory_lock(4207731)")):
            connection.close()
            return False
        connection.commit()
        self._lock = connection
        return True

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """On the connection that holds the lock, where there is one: who has lost it writes nothing."""
        if self._engine.dialect.name != "postgresql":
            with self._engine.begin() as connection:
                yield connection
            return
        if self._lock is None and not self._take_lock():
            raise Unavailable(
                "Another service uses this database now; this one writes nothing.", reason="database"
            )
        assert self._lock is not None
        try:
            with self._lock.begin():
                yield self._lock
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                self._lock.close()
                self._lock = None
            raise

    def close(self) -> None:
        """Ends the threads and connections; what is being written is finished first."""
        self._writer.shutdown()
        self._reader.shutdown()
        if self._lock is not None:
            self._lock.close()
        self._engine.dispose()

    async def write(self, batch: Batch) -> None:
        """Writes all of a batch or nothing. Raises `Unavailable` when the disk or the server refuses."""
        if batch:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._writer, self._write, batch)

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """The answer of `query`, run in the reader's thread."""

        def run() -> T:
            with self._engine.connect() as connection:
                return query(connection)

        return await asyncio.get_running_loop().run_in_executor(self._reader, run)

    def _write(self, batch: Batch) -> None:
        batch.settle()
        try:
            with self._transaction() as connection:
                # What ends first: a server whose session ends here may have a new request here.
                _update(connection, tables.requests, "id", batch.changed_requests)
                _insert(connection, tables.requests, batch.requests)
                _update(connection, tables.leases, "id", batch.changed_leases)
                _insert(connection, tables.leases, batch.leases)
                _insert(connection, tables.slices, batch.slices)
                _insert(connection, tables.transitions, batch.transitions)
                _update(connection, tables.intervals, "lease", batch.closed_intervals)
                _insert(connection, tables.intervals, batch.intervals)
                _replace(connection, tables.rules, batch.rules)
                _replace(connection, tables.switches, batch.switches)
                _insert(connection, tables.changes, batch.changes)
                _insert(connection, tables.notices, batch.notices)
                _insert(connection, tables.deliveries, batch.deliveries)
                _update(connection, tables.deliveries, "id", batch.changed_deliveries)
                _replace(connection, tables.choices, batch.choices)
        except sa.exc.DBAPIError as error:
            raise Unavailable(
                f"The database did not take the change ({error.orig}); try again.",
                reason="database",
            ) from error


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """New rows, those with the same columns together."""
    for alike in _alike(rows).values():
        connection.execute(table.insert(), alike)


def _alike(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by their columns."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(sorted(row)), []).append(row)
    return groups


def _update(connection: sa.Connection, table: sa.Table, key: str, rows: Sequence[Row]) -> None:
    """Updates by primary key; rows with the same columns go together."""
    for columns, alike in _alike(rows).items():
        statement = table.update().where(table.c[key] == sa.bindparam(f"b_{key}"))
        values: dict[str, Any] = {name: sa.bindparam(f"b_{name}") for name in columns if name != key}
        bound = [{f"b_{name}": value for name, value in row.items()} for row in alike]
        connection.execute(statement.values(values), bound)


def _replace(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Rows of a kind and name, in the place of what was there; a row that says `gone` only goes."""
    for row in rows:
        connection.execute(table.delete().where(table.c.kind == row["kind"], table.c.name == row["name"]))
        if not row.get("gone"):
            connection.execute(table.insert(), {key: value for key, value in row.items() if key != "gone"})


def _engine(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"check_same_thread": False, "timeout": 5})

    @sa.event.listens_for(engine, "connect")
    def pragmas(connection: sqlite3.Connection, _: object) -> None:
        # WAL lets readers go on beside the writer; FULL syncs the log at every commit: an answered
        # request survives a power cut.
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def migrate(engine: sa.Engine) -> None:
    """Brings the tables to this release's form; safe to kill and repeat."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _opening(error: Exception) -> str:
    text = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return f"it cannot be opened ({text})."
