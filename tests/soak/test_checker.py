"""The judge finds what it is there to find: evidence doctored in one way at a time."""

import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyterhub_bkai.store import tables
from tests.soak import checker, evidence
from tests.soak.evidence import (
    FINAL,
    HOLDING,
    Books,
    Card,
    Interval,
    Lease,
    Move,
    Piece,
    Process,
    Seen,
)

CARDS = {0: Card(16384, 22000), 1: Card(16384, 22000)}
HALF = Fraction(1, 2)
ROOM = 4
SINCE_MS = 1_000
#: how each kind of lease came to be what it is: who did it does not matter here
STORIES = {
    "queued": ("queued",),
    "starting": ("queued", "granted", "starting"),
    "running": ("queued", "granted", "starting", "running"),
    "stopping": ("queued", "granted", "starting", "running", "stopping"),
    "released": ("queued", "granted", "starting", "running", "stopping", "released"),
    "withdrawn": ("queued", "withdrawn"),
}


def lease(order: int, state: str, card: int | None = None, **changes: object) -> Lease:
    pieces = () if card is None else (Piece(card, HALF, 8192, 11000),)
    handle = {"pid": 100 * order, "start_time": 7} if state in HOLDING else None
    cause = "stopped" if state in FINAL else None
    one = Lease(f"L{order}", order, "ada", f"s{order}", "default", state, cause, HALF, handle, pieces)
    return replace(one, **changes)  # type: ignore[arg-type]


def books(*leases: Lease) -> Books:
    """Leases with the stories that lead there: asked in their order, granted in their order as room comes."""
    moves: list[Move] = []
    leaving: list[Lease] = []
    holders = 0

    def walk(one: Lease, *steps: str) -> None:
        for source, target in pairwise(steps):
            moves.append(Move(len(moves), one.id, 0, source, target, "test", ""))

    for one in leases:
        moves.append(Move(len(moves), one.id, 0, None, "queued", "ada", "asked"))
    for one in leases:
        steps = STORIES[one.state]
        if not one.pieces:
            walk(one, *steps)
            continue
        leaves = next((x for x in leaving if x.pieces[0].card == one.pieces[0].card), None)
        if holders == ROOM and leaves is not None:
            leaving.remove(leaves)
            walk(leaves, "stopping", "released")
            holders -= 1
        holders += 1
        walk(one, *(step for step in steps if step not in FINAL))
        leaving += [one] if one.state in FINAL else []
    for one in leaving:
        walk(one, "stopping", "released")
    meter = {
        one.id: Interval(one.id, None if one.state in HOLDING else 5, 256, None)
        for one in leases
        if one.pieces
    }
    return Books({one.id: one for one in leases}, tuple(moves), meter)


def processes(*leases: Lease) -> tuple[Process, ...]:
    """A keeper and its server for each."""
    return tuple(
        Process(100 * one.order + number, 7, 100 * one.order if number else 1, one.id, line)
        for one in leases
        for number, line in enumerate(["python bkaispawner.keeper", "python -m jupyterhub_bkai.singleuser"])
    )


def seen(all_books: Books) -> Seen:
    """All that would be seen of a healthy site with these books."""
    live = all_books.at(*HOLDING)
    words = {"running": "ready", "stopping": "stop"}
    hub = {(one.user, one.server): words.get(one.state, "spawn") for one in all_books.at("queued", *HOLDING)}
    return Seen(all_books, processes(*live), hub, {one.id: "noon" for one in all_books.at("running")})


#: two run, three wait, one is being prepared, one stops …
BEFORE = seen(
    books(
        lease(1, "running", 0),
        lease(2, "running", 0),
        lease(3, "starting", 1),
        lease(4, "stopping", 1),
        lease(5, "queued"),
        lease(6, "queued"),
        lease(7, "queued"),
    )
)
#: … and then the one has stopped, and the next in line has its place
AFTER_BOOKS = books(
    lease(1, "running", 0),
    lease(2, "running", 0),
    lease(3, "running", 1),
    lease(4, "released", 1),
    lease(5, "running", 1),
    lease(6, "queued"),
    lease(7, "queued"),
)
AFTER = seen(AFTER_BOOKS)


def judged(now: Seen, *killed: str) -> str:
    """All that is found, as text."""
    return "\n".join(words for _, words in checker.settled(BEFORE, now, killed, CARDS, SINCE_MS))


def with_lease(now: Seen, changed: Lease) -> Seen:
    """The same evidence with one lease doctored, its story included."""
    leases = {**now.books.leases, changed.id: changed}
    return replace(now, books=books(*leases.values()))


def test_a_healthy_site_is_left_in_peace() -> None:
    assert judged(AFTER) == ""
    assert checker.moment(BEFORE, CARDS) == []
    assert {name: len(found) for name, found in checker.scene(BEFORE.books).items()} == {
        "running": 2,
        "waiting": 3,
        "preparing": 1,
        "stopping": 1,
    }


def lost_session(now: Seen) -> Seen:
    return replace(now, processes=tuple(p for p in now.processes if p.lease != "L1"))


def another_in_its_place(now: Seen) -> Seen:
    return replace(
        now, processes=tuple(replace(p, started=8) if p.lease == "L1" else p for p in now.processes)
    )


def server_started_anew(now: Seen) -> Seen:
    return replace(now, answers={**(now.answers or {}), "L1": "midnight"})


def moved_meanwhile(now: Seen) -> Seen:
    late = Move(99, "L1", SINCE_MS + 1, "running", "running", "reconcile", "")
    return replace(now, books=replace(now.books, moves=(*now.books.moves, late)))


def two_sessions(now: Seen) -> Seen:
    return replace(now, processes=(*now.processes, Process(999, 7, 1, "L1", "python bkaispawner.keeper")))


def unknown_to_the_hub(now: Seen) -> Seen:
    return replace(now, hub={k: v for k, v in (now.hub or {}).items() if k != ("ada", "s1")})


def unknown_to_the_books(now: Seen) -> Seen:
    return replace(now, hub={**(now.hub or {}), ("ada", "ghost"): "ready"})


def silent_hub(now: Seen) -> Seen:
    return replace(now, hub=None)


def silent_session(now: Seen) -> Seen:
    return replace(now, answers={**(now.answers or {}), "L3": None})


def unattended(now: Seen) -> Seen:
    return replace(now, hub={k: v for k, v in (now.hub or {}).items() if k != ("ada", "s6")})


def forgotten(now: Seen) -> Seen:
    return with_lease(now, lease(6, "withdrawn"))


def overtaken(now: Seen) -> Seen:
    first = with_lease(now, lease(5, "queued"))
    return with_lease(first, lease(6, "running", 1))


def without_cause(now: Seen) -> Seen:
    return with_lease(now, lease(4, "released", 1, cause=None))


def still_stopping(now: Seen) -> Seen:
    return with_lease(now, lease(4, "stopping", 1))


def carried_on(now: Seen) -> Seen:
    return replace(now, processes=(*now.processes, *processes(lease(4, "stopping"))))


def given_twice(now: Seen) -> Seen:
    return with_lease(now, lease(6, "running", 0))


def lost_slice(now: Seen) -> Seen:
    return with_lease(now, lease(5, "released", 1))


def without_move(now: Seen, lease: str, target: str) -> Seen:
    moves = tuple(move for move in now.books.moves if (move.lease, move.target) != (lease, target))
    return replace(now, books=replace(now.books, moves=moves))


def gap_in_the_story(now: Seen) -> Seen:
    return without_move(now, "L3", "granted")


def story_ends_elsewhere(now: Seen) -> Seen:
    return without_move(now, "L3", "running")


def open_interval(now: Seen) -> Seen:
    meter = {**now.books.intervals, "L4": Interval("L4", None, 256, None)}
    return replace(now, books=replace(now.books, intervals=meter))


def no_interval(now: Seen) -> Seen:
    meter = {name: one for name, one in now.books.intervals.items() if name != "L1"}
    return replace(now, books=replace(now.books, intervals=meter))


@pytest.mark.parametrize(
    ("doctored", "expected"),
    [
        (lost_session, "L1, number 1, running) was running, and its process"),
        (another_in_its_place, "has no live session"),
        (server_started_anew, "was started at noon, now it says midnight"),
        (moved_meanwhile, "was running, and then: [Move"),
        (two_sessions, "has more than one session"),
        (unknown_to_the_hub, "the Hub says None"),
        (unknown_to_the_books, "ada/ghost (ready), and nothing is leased for it"),
        (silent_hub, "the Hub does not answer"),
        (silent_session, "ada/s3 (L3, number 3, running) does not answer behind the proxy"),
        (unattended, "waits, and the Hub says None"),
        (forgotten, "was waiting, and has ended (stopped)"),
        (overtaken, "s6 (L6, number 6, running) overtook ada/s5"),
        (overtaken, "number 6, running) was behind ada/s5"),
        (without_cause, "ended without a cause"),
        (still_stopping, "should have ended, and is stopping"),
        (carried_on, "has ended, and process 400 lives"),
        (given_twice, "granted twice: card 0 has 16384 MiB and gave 24576"),
        (given_twice, "in use twice"),
        (lost_slice, "waits while"),
        (gap_in_the_story, "went from granted, but it was queued"),
        (story_ends_elsewhere, "its story ends with starting"),
        (open_interval, "its usage interval is Interval"),
        (no_interval, "its usage interval is None"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_it_finds(doctored: Callable[[Seen], Seen], expected: str) -> None:
    now = doctored(AFTER)
    if doctored is given_twice:
        now = replace(now, processes=(*now.processes, *processes(now.books.leases["L6"])))
    assert expected in judged(now)


def test_what_was_killed_has_to_have_ended() -> None:
    assert "should have ended, and is running" in judged(AFTER, "L1")
    dead = with_lease(AFTER, lease(1, "released", 0))
    dead = with_lease(dead, lease(6, "running", 0))
    now = seen(dead.books)
    assert judged(now, "L1") == ""
    assert "was running, and" in judged(now)


def test_a_start_that_was_killed_may_end_either_way() -> None:
    failed = with_lease(AFTER, lease(3, "released", 1))
    now = seen(with_lease(failed, lease(6, "running", 1)).books)
    assert judged(now, "L3") == ""
    assert "was being prepared, and is released" in judged(now)


def test_the_books_are_read_as_they_are(tmp_path: Path) -> None:
    """The judge's own reading of the real tables, and a row that is doctored in the file."""
    path = tmp_path / "bkai.sqlite"
    tables.metadata.create_all(sa.create_engine(f"sqlite:///{path}"))
    wish = '{"wish": {"slot": "cuda", "count": 1, "share": "1/2"}}'
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO requests VALUES ('L1', 1, 'ada', 's1', '[]', 0, 'default', 'python/3.11', ?, 'released',"
            " 0, 0, 9, 'stopped', NULL, NULL, 0)",
            (wish,),
        )
        connection.execute(
            "INSERT INTO leases VALUES ('L1', 'local', 100, 256, 0, 1, NULL, 9, '{\"pid\": 100}')"
        )
        connection.execute(
            "INSERT INTO slices VALUES ('L1', 'GPU-0', 0, 'cuda', 'card', '1/2', 8192, 11000, NULL, NULL, NULL)"
        )
        for source, target in pairwise((None, *STORIES["released"])):
            connection.execute(
                "INSERT INTO transitions (request, at_ms, source, target, who, why) VALUES ('L1', 0, ?, ?, '', '')",
                (source, target),
            )
        connection.execute(
            "INSERT INTO intervals VALUES"
            " ('L1', 'ada', NULL, 'default', 'python/3.11', 100, 256, 8192, '1/2', 0, 0, 'b', 9, 9, NULL)"
        )
    found = evidence.read_books(path)
    assert checker.history(found, CARDS) == []
    assert found.leases["L1"].pieces == (Piece(0, HALF, 8192, 11000),)
    assert found.leases["L1"].handle == {"pid": 100}
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE requests SET state = 'running'")
    assert "its story ends with released" in str(checker.history(evidence.read_books(path), CARDS))


def test_the_process_table_is_read_as_it_is() -> None:
    mine = "01doctored0lease0for0a0test"
    child = subprocess.Popen(["sleep", "60"], env={"PATH": "/usr/bin:/bin", "BKAI_LEASE_ID": mine})
    try:
        # A process that has only just begun its program shows no environment for a moment.
        for _ in range(100):
            found = [process for process in evidence.read_processes() if process.lease == mine]
            if found:
                break
            time.sleep(0.02)
        assert [process.pid for process in found] == [child.pid]
        ended = lease(1, "released", 0, id=mine)
        now = Seen(books(ended), tuple(found))
        assert "has ended, and process" in str(checker.moment(now, CARDS))
    finally:
        child.kill()
        child.wait()
    assert not [process for process in evidence.read_processes() if process.lease == mine]
