"""The judge: what is wrong with a site, from the evidence alone. Pure, and knows nothing of how the product works.

history(books, cards)     over all time: nothing given twice, nobody overtaken, a story without gaps
moment(seen, cards)       at any moment, in the middle of everything: no process carries an ended lease, what
                          lives does not hold more than there is
settled(before, now, …)   some time after a kill: who ran still runs, who waited still waits, nothing is lost
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import pairwise

from tests.soak.evidence import (
    FINAL,
    HOLDING,
    PREPARING,
    QUEUED,
    RUNNING,
    STOPPING,
    Books,
    Card,
    Interval,
    Lease,
    Process,
    Seen,
)

Problem = tuple[str, str]  # the lease concerned (or nothing), and what is wrong


def history(books: Books, cards: Mapping[int, Card]) -> list[Problem]:
    """Replays every move there ever was."""
    found: list[Problem] = []
    state: dict[str, str] = {}
    for move in books.moves:
        lease = books.leases.get(move.lease)
        if lease is None:
            found.append((move.lease, "a story of a request that is not there"))
            continue
        if move.source != state.get(lease.id):
            found.append((lease.id, f"{lease} went from {move.source}, but it was {state.get(lease.id)}"))
        state[lease.id] = move.target
        if move.source == QUEUED and move.target in HOLDING:
            found += _overtaken(books, lease, state)
            holders = [x for x in books.leases.values() if state.get(x.id) in HOLDING]
            found += [(lease.id, f"granted twice: {words}") for words in _too_much(holders, cards)]
    for lease in books.leases.values():
        found += _row(books, lease, state.get(lease.id))
    return found


def _overtaken(books: Books, lease: Lease, state: Mapping[str, str]) -> Iterator[Problem]:
    for other in books.leases.values():
        if state.get(other.id) == QUEUED and other.group == lease.group and other.order < lease.order:
            yield lease.id, f"{lease} overtook {other}"


def _too_much(holders: Iterable[Lease], cards: Mapping[int, Card]) -> Iterator[str]:
    """Where the parts of a card add up to more than the card."""
    holders = list(holders)
    for index, card in cards.items():
        pieces = [piece for lease in holders for piece in lease.pieces if piece.card == index]
        memory, sms = sum(p.memory_mib for p in pieces), sum(p.sm_milli for p in pieces)
        if memory > card.memory_mib or sms > card.sm_milli or sum(p.share for p in pieces) > 1:
            names = ", ".join(str(x) for x in holders if any(p.card == index for p in x.pieces))
            yield f"card {index} has {card.memory_mib} MiB and gave {memory}, to {names}"


def _row(books: Books, lease: Lease, told: str | None) -> Iterator[Problem]:
    """One request's row against its story and its meter."""
    if lease.state != told:
        yield lease.id, f"{lease}: its story ends with {told}"
    if lease.state in FINAL and not lease.cause:
        yield lease.id, f"{lease} ended without a cause"
    if lease.state in HOLDING and sum(piece.share for piece in lease.pieces) != lease.share:
        yield lease.id, f"{lease} does not hold what it asked for"
    interval = books.intervals.get(lease.id)
    if (lease.state in HOLDING) != (interval is not None and interval.duration_ms is None):
        yield lease.id, f"{lease}: its usage interval is {interval}"


def moment(seen: Seen, cards: Mapping[int, Card]) -> list[Problem]:
    """What must hold at any moment, seen with the books read before the processes."""
    found: list[Problem] = []
    alive: dict[str, Lease] = {}
    for process in seen.processes:
        lease = seen.books.leases.get(process.lease)
        if lease is None:
            continue  # another site's
        if lease.state not in FINAL:
            alive[lease.id] = lease
        else:
            found.append((lease.id, f"{lease} has ended, and process {process.pid} lives: {process.line}"))
    found += [("", f"in use twice: {words}") for words in _too_much(alive.values(), cards)]
    return found


def settled(
    before: Seen, now: Seen, killed: Collection[str], cards: Mapping[int, Card], since_ms: int
) -> list[Problem]:
    """What must hold some time after a kill at `since_ms` that was aimed at the sessions of the leases `killed`."""
    found = [*history(now.books, cards), *moment(now, cards)]
    for lease in before.books.leases.values():
        if lease.state == RUNNING and lease.id not in killed:
            found += _still_runs(lease, before, now, since_ms)
        elif lease.state in HOLDING:
            found += _resolved(lease, now, killed)
    found += _waiting(before.books, now.books)
    if now.hub is None or now.answers is None:
        return [*found, ("", "the Hub does not answer")]
    for lease in now.books.leases.values():
        found += _lives(lease, now) if lease.state in HOLDING else _attended(lease, now.hub)
    return found + list(_unknown_servers(now)) + list(_lost(now.books, cards))


def _still_runs(lease: Lease, before: Seen, now: Seen, since_ms: int) -> Iterator[Problem]:
    """The very same processes, and nothing was done to it."""
    moved = [move for move in now.books.story(lease.id) if move.at_ms >= since_ms]
    if moved or now.books.leases[lease.id].state != RUNNING:
        yield lease.id, f"{lease} was running, and then: {moved}"
    had, has = ({p.identity: p for p in seen.of(lease.id)} for seen in (before, now))
    for identity, process in had.items():
        if identity not in has and _lasting(process):
            yield lease.id, f"{lease} was running, and its process {process} is gone"
    if before.answers and now.answers and before.answers.get(lease.id) != now.answers.get(lease.id):
        was, is_ = before.answers.get(lease.id), now.answers.get(lease.id)
        yield lease.id, f"{lease}: its server was started at {was}, now it says {is_}"


def _lasting(process: Process) -> bool:
    """Whether it is one that stays: the keeper, the server, and what the tests started."""
    return any(
        word in process.line for word in ("bkaispawner.keeper", "jupyterhub_bkai.singleuser", "sleep 86400")
    )


def _resolved(lease: Lease, now: Seen, killed: Collection[str]) -> Iterator[Problem]:
    """What was killed or stopping has ended; what was being prepared runs, unless it was what was killed."""
    state = now.books.leases[lease.id].state
    if lease.state in PREPARING and lease.id not in killed:
        if state != RUNNING:
            yield lease.id, f"{lease} was being prepared, and is {state}"
    elif lease.state in PREPARING and state in (*FINAL, RUNNING):
        return
    elif state not in FINAL:
        yield lease.id, f"{lease} should have ended, and is {state}"


def _waiting(before: Books, now: Books) -> Iterator[Problem]:
    """Those who waited wait, or were granted in their order."""
    line = [now.leases[lease.id] for lease in before.at(QUEUED)]
    for lease in line:
        if lease.state in FINAL:
            yield lease.id, f"{lease} was waiting, and has ended ({lease.cause})"
    for first, second in pairwise(line):
        if first.state == QUEUED and second.state != QUEUED and first.group == second.group:
            yield second.id, f"{second} was behind {first}"


def _lives(lease: Lease, now: Seen) -> Iterator[Problem]:
    """A lease has a session: one, alive, in the Hub, and behind the proxy."""
    assert now.hub is not None
    assert now.answers is not None
    if lease.state != RUNNING:
        yield lease.id, f"{lease} is not settled"
        return
    processes = now.of(lease.id)
    pids = {process.pid for process in processes}
    roots = [process for process in processes if process.parent not in pids]
    handle = lease.handle or {}
    if (handle.get("pid"), handle.get("start_time")) not in {p.identity for p in processes}:
        yield lease.id, f"{lease} has no live session (its handle: {handle}; alive: {processes})"
    if len(roots) > 1:
        yield lease.id, f"{lease} has more than one session: {roots}"
    if now.hub.get((lease.user, lease.server)) != "ready":
        yield lease.id, f"{lease}: the Hub says {now.hub.get((lease.user, lease.server))}"
    if not now.answers.get(lease.id):
        yield lease.id, f"{lease} does not answer behind the proxy"


def _attended(lease: Lease, hub: Mapping[tuple[str, str], str]) -> Iterator[Problem]:
    """Who waits is waited for at the Hub, so that their page goes on."""
    if lease.state == QUEUED and hub.get((lease.user, lease.server)) != "spawn":
        yield lease.id, f"{lease} waits, and the Hub says {hub.get((lease.user, lease.server))}"


def _unknown_servers(now: Seen) -> Iterator[Problem]:
    assert now.hub is not None
    known = {(lease.user, lease.server) for lease in now.books.at(QUEUED, *HOLDING)}
    for server, state in now.hub.items():
        if server not in known:
            yield "", f"the Hub has {'/'.join(server)} ({state}), and nothing is leased for it"


def _lost(books: Books, cards: Mapping[int, Card]) -> Iterator[Problem]:
    """A slice that nobody holds while the first of the waiting wants no more than that."""
    free = dict.fromkeys(cards, Fraction(1))
    for lease in books.at(*HOLDING):
        for piece in lease.pieces:
            free[piece.card] -= piece.share
    for head in books.at(QUEUED)[:1]:
        if max(free.values()) >= head.share:
            yield head.id, f"{head} waits while {free} of the cards is free"


def scene(books: Books) -> dict[str, list[Lease]]:
    """Who is doing what: running, waiting, preparing, stopping."""
    return {
        "running": books.at(RUNNING),
        "waiting": books.at(QUEUED),
        "preparing": books.at(*PREPARING),
        "stopping": books.at(STOPPING),
    }


def ended(seen: Seen, cards: Mapping[int, Card]) -> list[Problem]:
    """What must hold when a site was stopped: no process of it is left."""
    left = [p for p in seen.processes if p.lease in seen.books.leases]
    return history(seen.books, cards) + [(p.lease, f"left behind: {p}") for p in left]


def metered(books: Books, record: Mapping[str, tuple[int, int | None]]) -> list[Problem]:
    """The meter after the last session has ended, against an independent record: lease → (opened, closed) in ns."""
    found: list[Problem] = []
    granted = {move.lease for move in books.moves if move.target in HOLDING}
    found += [(lease, "was granted, and not metered") for lease in sorted(granted - set(books.intervals))]
    found += [(lease, "was metered, and never granted") for lease in sorted(set(books.intervals) - granted)]
    for lease, interval in books.intervals.items():
        wrong_ms = off_ms(interval, *record.get(lease, (0, None)))
        if wrong_ms is None:
            found.append((lease, f"left open: {interval}, recorded {record.get(lease)}"))
        elif abs(wrong_ms) > 1:
            found.append((lease, f"measured {wrong_ms:+.1f} ms wrong: {interval}"))
        if interval.measured_kib is None:
            found.append((lease, f"nobody looked at its memory: {interval}"))
    return found


def off_ms(interval: Interval, opened_ns: int, closed_ns: int | None) -> float | None:
    """How much longer an interval is than the record says; None while either is open."""
    if interval.duration_ms is None or closed_ns is None:
        return None
    return interval.duration_ms - (closed_ns - opened_ns) / 1e6
