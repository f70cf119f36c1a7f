"""What is to be seen of a site from outside: rows of its database, the kernel's process table, the Hub's word, and
what answers behind the proxy.

Imports nothing of the product, on purpose: whoever judges the product by its own code believes what it believes.
"""

import json
import sqlite3
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx

MARK = b"BKAI_LEASE_ID="
QUEUED, RUNNING, STOPPING = "queued", "running", "stopping"
PREPARING = frozenset({"granted", "pulling", "starting"})
HOLDING = PREPARING | {RUNNING, STOPPING}
FINAL = frozenset({"released", "withdrawn", "failed"})


@dataclass(frozen=True, slots=True)
class Card:
    """What one device has to give."""

    memory_mib: int
    sm_milli: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What a lease holds of a card."""

    card: int
    share: Fraction
    memory_mib: int
    sm_milli: int


@dataclass(frozen=True, slots=True)
class Move:
    """One row of the story, in the order of the database's own counter."""

    n: int
    lease: str
    at_ms: int
    source: str | None
    target: str
    who: str
    why: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A request, and what it holds or held."""

    id: str
    order: int
    user: str
    server: str
    group: str
    state: str
    cause: str | None
    share: Fraction
    handle: Mapping[str, Any] | None
    pieces: tuple[Piece, ...]

    def __str__(self) -> str:
        return f"{self.user}/{self.server} ({self.id}, number {self.order}, {self.state})"


@dataclass(frozen=True, slots=True)
class Interval:
    """One row of the meter."""

    lease: str
    duration_ms: int | None
    memory_mib: int
    measured_kib: int | None


@dataclass(frozen=True, slots=True)
class Books:
    """Everything the database says, read in one transaction."""

    leases: Mapping[str, Lease]
    moves: tuple[Move, ...]
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    def at(self, *states: str) -> list[Lease]:
        """The leases in some states, first asked first."""
        return sorted((x for x in self.leases.values() if x.state in states), key=lambda x: x.order)

    def story(self, lease: str) -> list[Move]:
        """What happened to one of them."""
        return [move for move in self.moves if move.lease == lease]


@dataclass(frozen=True, slots=True)
class Process:
    """A process that carries a lease; with its start it is this one and no other."""

    pid: int
    started: int
    parent: int
    lease: str
    line: str

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process of this boot has."""
        return self.pid, self.started


@dataclass(frozen=True, slots=True)
class Seen:
    """All evidence of about one moment. `hub` and `answers` are None when the Hub did not answer.

    `hub` has (user, server) → "ready", "spawn" or "stop"; `answers` has lease → when the session's server says it
    was started, or None for one that does not answer.
    """

    books: Books
    processes: tuple[Process, ...]
    hub: Mapping[tuple[str, str], str] | None = None
    answers: Mapping[str, str | None] | None = None

    def of(self, lease: str) -> list[Process]:
        """The processes that carry a lease."""
        return [process for process in self.processes if process.lease == lease]


def cards(devices: Path) -> dict[int, Card]:
    """The devices of a file, by their number."""
    found: dict[int, Card] = {}
    for one in tomllib.loads(devices.read_text())["devices"]:
        for _ in range(one.get("count", 1)):
            found[len(found)] = Card(one["memory_mib"] - one.get("reserve_mib", 0), 1000 * one["sms"])
    return found


def read_books(database: Path) -> Books:
    """All rows, of one moment, without a lock that could hold up the service."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        rows = connection.execute(
            "SELECT requests.*, handle FROM requests LEFT JOIN leases USING (id) ORDER BY ord"
        ).fetchall()
        pieces: dict[str, list[Piece]] = {}
        for row in connection.execute("SELECT * FROM slices"):
            piece = Piece(row["device_index"], Fraction(row["share"]), row["memory_mib"], row["sm_milli"])
            pieces.setdefault(row["lease"], []).append(piece)
        moves = tuple(
            Move(*row)
            for row in connection.execute(
                "SELECT n, request, at_ms, source, target, who, why FROM transitions ORDER BY n"
            )
        )
        meter = {
            row[0]: Interval(*row)
            for row in connection.execute(
                "SELECT lease, duration_ms, memory_mib, measured_kib FROM intervals"
            )
        }
    leases = {row["id"]: _lease(row, tuple(pieces.get(row["id"], ()))) for row in rows}
    return Books(leases, moves, meter)


def _lease(row: sqlite3.Row, pieces: tuple[Piece, ...]) -> Lease:
    wish = json.loads(row["wish"])["wish"]
    return Lease(
        id=row["id"],
        order=row["ord"],
        user=row["user_name"],
        server=row["server"],
        group=row["group_name"],
        state=row["state"],
        cause=row["cause"],
        share=Fraction(wish["share"]) if wish else Fraction(0),
        handle=json.loads(row["handle"]) if row["handle"] else None,
        pieces=pieces,
    )


def read_processes() -> tuple[Process, ...]:
    """Every process of this machine that carries a lease, of whatever site."""
    return tuple(process for entry in Path("/proc").glob("[0-9]*") for process in _process(entry))


def _process(entry: Path) -> Iterator[Process]:
    try:
        environment = (entry / "environ").read_bytes().split(b"\0")
        marks = [item[len(MARK) :].decode() for item in environment if item.startswith(MARK)]
        if not marks:
            return
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has just ended
        return
    if fields[0] not in "ZX":
        yield Process(int(entry.name), int(fields[19]), int(fields[1]), marks[0], line[:200])


def read_record(path: Path) -> dict[str, tuple[int, int | None]]:
    """What `recorder` noted: lease → when its interval was opened and closed, in ns. What was tried again counts."""
    found: dict[str, tuple[int, int | None]] = {}
    for line in path.read_text().splitlines():
        what, lease, moment = line.split()
        if what == "open":
            found[lease] = int(moment), None
        elif lease in found:  # who only waited held nothing
            found[lease] = found[lease][0], int(moment)
    return found


class Site:
    """Where the evidence of one site is."""

    def __init__(self, url: str, database: Path, devices: Path, token: str) -> None:
        self.url, self.database, self.cards, self.token = url, database, cards(devices), token

    def glance(self) -> Seen:
        """The books, and only then the processes: one seen afterwards of a lease that had ended is one too many."""
        books = read_books(self.database)
        return Seen(books, read_processes())

    def look(self) -> Seen:
        """Everything."""
        hub = self._hub()
        seen = self.glance()
        answers = {lease.id: self._started(lease) for lease in seen.books.at(RUNNING)}
        return Seen(seen.books, seen.processes, hub, answers)

    def _get(self, path: str) -> Any:
        headers = {"Authorization": f"token {self.token}"}
        try:
            answer = httpx.get(self.url + path, headers=headers, timeout=5, trust_env=False)
            return answer.json() if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None

    def _hub(self) -> dict[tuple[str, str], str] | None:
        users = self._get("/hub/api/users?limit=200")
        if users is None:
            return None
        return {
            (user["name"], name): server["pending"] or ("ready" if server["ready"] else "nothing")
            for user in users
            for name, server in (user["servers"] or {}).items()
        }

    def _started(self, lease: Lease) -> str | None:
        status = self._get(f"/user/{lease.user}/{lease.server}/api/status")
        return str(status["started"]) if status else None
