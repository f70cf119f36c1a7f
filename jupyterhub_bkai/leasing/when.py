"""When each of those who wait will start: a range, or nothing where none can be told honestly.

Pure. The real scheduler goes on with a copy of the state, a few times over; how long each session really lasts is
drawn from how long earlier ones lasted of what they asked for. What earlier predictions missed by then says how wide a
range has to be, so that nine of ten starts lie inside (conformal prediction; Vovk et al. 2005): of their own group
and distance first. Nothing here is random: `salt` says which draws of an even sequence are taken.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import ceil, exp, log

from jupyterhub_bkai.leasing.queue import Waiting
from jupyterhub_bkai.leasing.scheduler import Scheduler
from jupyterhub_bkai.options import duration_text

GOLDEN = 0.6180339887498949
#: so many futures are looked at, and so far: starts in one, and by how much its steps grow with their distance
FUTURES = 5
DEPTH = 1500
STRIDE = 0.03
#: of so many starts one may lie outside its range; a little is kept in hand for what changes
COVER = 0.92
#: waits are compared with so much added, since nobody minds seconds
SLACK_MS = 60_000.0
#: misses of the last predictions that count, of each kind, and from how many on a kind stands for itself
KEPT, ENOUGH = 400, 40
#: misses that are assumed where nothing is known yet (logarithms of actual to predicted)
ASSUMED = tuple(-1.6 + 2.4 * step / 24 for step in range(25))
#: lengths of sessions that are remembered, of one person and of all
MINE, ALL = 60, 600
#: so many of those who wait are followed, and taken note of to see what predictions missed by
NOTED = 1000
#: so many steps are followed whatever they cost
LEAST = 8
#: a session that has lasted longer than any before goes on for this part of its age
LONGER = 0.25


@dataclass(frozen=True, slots=True)
class Range:
    """It starts between these moments (milliseconds since the epoch) in nine of ten cases."""

    earliest_ms: int
    latest_ms: int


@dataclass(frozen=True, slots=True)
class Running:
    """A session that holds something: whose, since when, and for how long at most (None: nobody said)."""

    user: str
    began_ms: int
    asked_s: int | None


@dataclass(slots=True)
class _Lengths:
    """The last lengths, in order of coming and in order of size."""

    most: int
    last: deque[float] = field(default_factory=deque)
    sizes: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.last.append(value)
        insort(self.sizes, value)
        if len(self.last) > self.most:
            del self.sizes[bisect_left(self.sizes, self.last.popleft())]

    def draw(self, chance: float, passed: float) -> float | None:
        """One of those above `passed`; None when nothing is known."""
        if not self.sizes:
            return None
        first = bisect_right(self.sizes, passed)
        if first == len(self.sizes):
            return passed * (1 + LONGER)
        return self.sizes[first + int(chance * (len(self.sizes) - first))]


class History:
    """How long sessions really lasted: as a part of what was asked for, or in seconds where nothing was."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], _Lengths] = {}

    def add(self, user: str, asked_s: int | None, took_s: float) -> None:
        """A session ended."""
        value = took_s / asked_s if asked_s else took_s
        for name, most in ((user, MINE), ("", ALL)):
            self._known.setdefault((name, bool(asked_s)), _Lengths(most)).add(value)

    def draw(self, user: str, asked_s: int | None, chance: float, passed_s: float = 0.0) -> float | None:
        """How long one lasts altogether that has lasted so long; None when nobody can say."""
        mine, unit = self._known.get((user, bool(asked_s))), float(asked_s or 1)
        if mine is None or len(mine.last) < MINE // 4:
            mine = self._known.get(("", bool(asked_s)))
        found = mine.draw(chance, passed_s / unit) if mine is not None else None
        if found is not None:
            return found * unit
        # Nobody knows better than who asked.
        return max(float(asked_s), passed_s) if asked_s else None


@dataclass(slots=True)
class Future:
    """Who starts when in one course of things, and how far it was followed."""

    starts: dict[str, int]
    until_ms: int


def follow(
    scheduler: Scheduler,
    running: Mapping[str, Running],
    history: History,
    now_ms: int,
    salt: int,
    go_on: Callable[[], bool],
) -> Future:
    """One future, until everybody has started, nothing ends any more, or `go_on` says that it has cost enough."""
    copy, draws = scheduler.copy(), (GOLDEN * (salt + 1)) % 1.0
    ends: list[tuple[int, str]] = []
    for place, id in enumerate(copy.held):
        if (one := running.get(id)) is not None:
            passed_s = max(0.0, (now_ms - one.began_ms) / 1000)
            chance = (draws + (place + 1) * GOLDEN) % 1.0
            if (lasts := history.draw(one.user, one.asked_s, chance, passed_s)) is not None:
                ends.append((one.began_ms + int(1000 * lasts), id))
    heapify(ends)
    future, at_ms = Future({}, now_ms), now_ms
    items = {id: copy.waiting(id) for hall in copy.halls.values() for id in _ids(hall.line.items.values())}
    steps = 0
    while ends and len(future.starts) < min(DEPTH, len(items)) and (steps < LEAST or go_on()):
        steps += 1
        at_ms = max(ends[0][0], at_ms + int(STRIDE * (at_ms - now_ms)))
        while ends and ends[0][0] <= at_ms:
            copy.free(heappop(ends)[1], at_ms)
        for grant in copy.decide(at_ms):
            item = items.get(grant.id)
            if item is None:
                continue
            future.starts[grant.id] = at_ms
            chance = (draws + (item.order + 7) * GOLDEN) % 1.0
            lasts = history.draw(item.user, item.request.duration_s, chance)
            if lasts is not None:
                heappush(ends, (at_ms + int(1000 * lasts), grant.id))
        future.until_ms = at_ms
    return future


def _ids(items: Iterable[Waiting]) -> Iterable[str]:
    return (id for item in items for id in item.ids or (item.id,))


#: what makes misses comparable: the group, whether it was beyond what was followed, how far off it was
Kind = tuple[str, bool, int]


class Misses:
    """What predictions missed by, and how wide a range has to be for it."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], deque[float]] = {}
        self._edges: dict[Kind, tuple[float, float]] = {}
        self.late: dict[Kind, list[float]] = {}

    def add(self, kind: Kind, miss: float) -> None:
        """A prediction of this kind turned out."""
        for key in (kind, kind[:2], ()):
            self._known.setdefault(key, deque(maxlen=KEPT)).append(miss)
        self._edges.clear()

    def wait_for(self, late: Mapping[Kind, list[float]]) -> None:
        """Predictions that have not turned out yet, with what they miss by at least."""
        self.late = dict(late)
        self._edges.clear()

    def edges(self, kind: Kind) -> tuple[float, float]:
        """The least and the largest miss that a range allows for."""
        if kind not in self._edges:
            self._edges[kind] = self._reckon(kind)
        return self._edges[kind]

    def _reckon(self, kind: Kind) -> tuple[float, float]:
        known: Sequence[float] = ()
        for key in (kind, kind[:2], ()):
            known = self._known.get(key, ())
            if len(known) >= ENOUGH:
                break
        missing = max(0, ENOUGH - len(known))
        misses = sorted([*known, *ASSUMED[: missing * len(ASSUMED) // ENOUGH]] if missing else known)
        if missing:
            misses = sorted([*known, *ASSUMED])
        count = ceil(COVER * (len(misses) + 1))
        low, high = _shortest(misses, min(count, len(misses)))
        more = [miss for miss in self.late.get(kind, ()) if miss > high]
        if more:
            misses = sorted([*misses, *more])
            low, high = _shortest(misses, min(ceil(COVER * (len(misses) + 1)), len(misses)))
        return low, high


def _shortest(misses: list[float], count: int) -> tuple[float, float]:
    """The pair of misses nearest in time with so many between them."""
    spans = [
        (exp(misses[n + count - 1]) - exp(misses[n]), misses[n], misses[n + count - 1])
        for n in range(len(misses) - count + 1)
    ]
    return min(spans)[1:]


@dataclass(frozen=True, slots=True)
class Guess:
    """What was predicted, when, and how."""

    at_ms: int
    middle_ms: float
    kind: Kind


class Expectation:
    """Everything that is known about when who starts. Follows one future more with each `look`."""

    def __init__(self) -> None:
        self.history, self.misses = History(), Misses()
        self._salt = 0
        self._guesses: dict[str, list[Guess]] = {}
        self._now: dict[str, Guess] = {}

    def look(
        self,
        scheduler: Scheduler,
        running: Mapping[str, Running],
        now_ms: int,
        go_on: Callable[[], bool],
        futures: int = FUTURES,
    ) -> None:
        """Looks ahead from the present state, and predicts for everybody who waits."""
        self.take(self.ahead(scheduler.copy(), running, now_ms, go_on, futures), now_ms)

    def ahead(
        self,
        scheduler: Scheduler,
        running: Mapping[str, Running],
        now_ms: int,
        go_on: Callable[[], bool],
        futures: int = FUTURES,
    ) -> "dict[str, Guess]":
        """What is to be expected, without taking note of it. Of all of this only `history` is read, so that it can be
        done beside the rest, for a copy of the scheduler, which is used up.
        """
        lines: dict[str, list[str]] = {}
        for hall in scheduler.halls.values():
            order = [*scheduler.order(hall.name, now_ms)]
            lines[hall.name] = [*_ids(order)]
            if len(order) > NOTED:  # the others will not start in what is followed
                hall.line = hall.line.only(order[:NOTED])
        seen: list[Future] = []
        while len(seen) < futures:
            self._salt += 1
            seen.append(follow(scheduler, running, self.history, now_ms, self._salt, go_on))
            if not go_on():
                break
        found: dict[str, Guess] = {}
        for hall in scheduler.halls.values():
            if not hall.rules.on_hold:
                found |= _guesses(hall.name, lines[hall.name], seen, now_ms)
        return found

    def take(self, found: "dict[str, Guess]", now_ms: int) -> None:
        """Takes note of what was found: from now on this is what is told, and what it missed by will be known."""
        self._now = found
        for place, (id, guess) in enumerate(found.items()):
            if place >= NOTED and id not in self._guesses:
                continue
            earlier = self._guesses.setdefault(id, [])
            # Few of each: when it was asked for, and whenever a third of the wait had passed since.
            if not earlier or now_ms - earlier[-1].at_ms > max(SLACK_MS, 0.33 * earlier[-1].middle_ms):
                earlier.append(guess)
        late: dict[Kind, list[float]] = {}
        for guesses in self._guesses.values():
            for guess in guesses:
                late.setdefault(guess.kind, []).append(_miss(guess, now_ms))
        self.misses.wait_for(late)

    def range(self, id: str, now_ms: int) -> Range | None:
        """When one who waits starts; None when nobody can say."""
        guess = self._now.get(id)
        if guess is None:
            return None
        low, high = self.misses.edges(guess.kind)
        edges = ((guess.middle_ms + SLACK_MS) * exp(edge) - SLACK_MS for edge in (low, high))
        earliest, latest = (guess.at_ms + max(0, int(edge)) for edge in edges)
        return Range(max(now_ms, earliest), max(now_ms + int(SLACK_MS), latest))

    def started(self, id: str, now_ms: int) -> None:
        """Somebody started: what was predicted has turned out."""
        self._now.pop(id, None)
        for guess in self._guesses.pop(id, ()):
            self.misses.add(guess.kind, _miss(guess, now_ms))

    def left(self, id: str) -> None:
        """Somebody does not wait any more and did not start."""
        self._now.pop(id, None)
        self._guesses.pop(id, None)


def _guesses(group: str, line: list[str], futures: list[Future], now_ms: int) -> dict[str, Guess]:
    """What is to be expected for each of a queue, next first."""
    place = {id: n for n, id in enumerate(line, 1)}
    # The last ones that were followed say how fast the queue moves for those behind them.
    pace = [
        (start - now_ms, place[id])
        for future in futures
        for id, start in future.starts.items()
        if id in place
    ]
    furthest = max((n for _, n in pace), default=0)
    slow = sorted(wait / n for wait, n in pace if n > furthest * 0.7)
    found = {}
    for id, n in place.items():
        starts = sorted(future.starts[id] - now_ms for future in futures if id in future.starts)
        far = 2 * len(starts) < len(futures)
        if not far:
            middle = float(starts[len(starts) // 2])
        elif slow:
            middle = n * slow[len(slow) // 2]
        else:
            continue
        found[id] = Guess(now_ms, middle, (group, far, min(6, int(log(1 + middle / 600_000)))))
    return found


def words(range: Range | None, now_ms: int) -> str:
    """A range in a sentence; "" where there is none. Coarse, so that it is not said anew with each second."""
    if range is None:
        return ""
    first, last = (_coarse((moment - now_ms) // 1000) for moment in (range.earliest_ms, range.latest_ms))
    if first == 0:
        return f"It starts within {duration_text(last)}, as far as can be told."
    return f"It starts in {duration_text(first)} to {duration_text(last)}, as far as can be told."


def _coarse(seconds: int) -> int:
    """The next step up: minutes, then five of them, then quarters of an hour, then hours."""
    step = next((step for most, step in ((600, 60), (3600, 300), (4 * 3600, 900)) if seconds <= most), 3600)
    return -(-max(0, seconds) // step) * step


def _miss(guess: Guess, at_ms: int) -> float:
    return log((at_ms - guess.at_ms + SLACK_MS) / (guess.middle_ms + SLACK_MS))
