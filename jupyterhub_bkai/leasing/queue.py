"""The waiting of one resource group, in the order that its discipline gives.

Pure. Owns disciplines: who is next. Where something fits, and who may pass a head that does not fit, is
`leasing.scheduler`'s business.

Every request has a priority (0–100; a higher one is always served first). Within a priority:

fifo    first come, first served
lifo    last come, first served
drf     dominant resource fairness: the person whose largest part of any resource of the group is smallest
        (Ghodsi et al., NSDI 2011); of one person's requests the first asked for
fair    fair share over time: the person who used least, older use counting half after each half-life; what is held
        now counts as if it were held for one half-life more
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from heapq import heapify, heappop, heappush
from math import log
from operator import itemgetter

from jupyterhub_bkai.leasing.caps import Amounts
from jupyterhub_bkai.model import Request, Wish

#: a place among requests that are served alike
Key = tuple[int, int, str]


class Discipline(StrEnum):
    """The order of a group's queue."""

    FIFO = "fifo"
    LIFO = "lifo"
    DRF = "drf"
    FAIR = "fair"

    @property
    def by_person(self) -> bool:
        """True when the order depends on who holds or used what."""
        return self in (Discipline.DRF, Discipline.FAIR)


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """What of a place a request needs. The same object for the same amounts, so that it is quickly looked up."""

    wish: Wish | None
    cpu_milli: int
    memory_mib: int


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """Requests alike for a decision: what they ask for, for how long, how many at once. One object for all of them."""

    size: Size
    duration_s: int | None
    together: int


_size = lru_cache(65_536)(Size)
_shape = lru_cache(65_536)(Shape)


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry of a queue: a request, or several that start together or not at all (`ids` has all of them).

    `order` is its place in time, unique over all groups.
    """

    id: str
    order: int
    user: str
    request: Request
    priority: int = 10
    ids: tuple[str, ...] = ()
    #: it does not start before this moment, nor before these have ended
    not_before_ms: int = 0
    after: frozenset[str] = frozenset()
    #: what of it may run at a time: whom it counts for → the words for it, and the amounts
    caps: Mapping[str, tuple[str, Amounts]] = field(default_factory=dict)
    #: what makes it wait or start, whoever asks
    shape: Shape = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        request = self.request
        size = _size(request.wish, request.cpu_milli, request.memory_mib)
        object.__setattr__(self, "shape", _shape(size, request.duration_s, max(1, len(self.ids))))


@dataclass(slots=True)
class Line:
    """The queue of one group."""

    discipline: Discipline = Discipline.FIFO
    items: dict[str, Waiting] = field(default_factory=dict)
    _lanes: dict[tuple[str, Shape], list[Key]] = field(default_factory=dict)
    #: all keys in order, for disciplines that ask nothing but the request itself
    _keys: list[Key] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: Waiting) -> None:
        """Somebody new."""
        self.items[item.id] = item
        key = self.key(item)
        insort(self._lanes.setdefault(self._lane(item), []), key)
        insort(self._keys, key)

    def remove(self, id: str) -> Waiting:
        """Somebody who started or left. Raises KeyError for one who is not here."""
        item = self.items.pop(id)
        key = self.key(item)
        lane = self._lane(item)
        keys = self._lanes[lane]
        del keys[bisect_left(keys, key)]
        if not keys:
            del self._lanes[lane]
        del self._keys[bisect_left(self._keys, key)]
        return item

    def copy(self) -> "Line":
        """A queue of its own with the same in it."""
        lanes = {lane: [*keys] for lane, keys in self._lanes.items()}
        return Line(self.discipline, dict(self.items), lanes, [*self._keys])

    def only(self, items: Iterable[Waiting]) -> "Line":
        """A queue of its own with no others in it."""
        new = Line(self.discipline)
        for item in items:
            new.add(item)
        return new

    def shapes(self) -> int:
        """How many kinds of requests wait."""
        return len({lane[1] for lane in self._lanes})

    def slots(self) -> set[str]:
        """The kinds of accelerators that somebody waits for."""
        return {lane[1].size.wish.slot for lane in self._lanes if lane[1].size.wish is not None}

    def place(self, id: str) -> int:
        """How many are before it (not for disciplines by person, whose order is in `order`)."""
        return bisect_left(self._keys, self.key(self.items[id]))

    def first(self) -> int:
        """The place in time of the one whose turn it is, which decides between groups."""
        return self.items[self._keys[0][2]].order if self._keys else 0

    def round(self, score: Callable[[str], float]) -> "Round":
        """Goes through the queue once, from the head."""
        return Round(self, score)

    def order(self, score: Callable[[str], float], weigh: Callable[[Waiting], float]) -> Iterator[Waiting]:
        """Everybody in the order in which they start if nobody comes or goes; `weigh` is what a start adds to a
        person's score.
        """
        if not self.discipline.by_person:
            return (self.items[key[2]] for key in self._keys)
        # What one person waits for starts in the order of the keys, at scores that only grow: all of it is merged by
        # sorting.
        scores: dict[str, float] = {}
        added: dict[str, float] = {}
        rows = []
        for key in self._keys:
            item = self.items[key[2]]
            user = item.user
            if user not in scores:
                scores[user], added[user] = score(user), 0.0
            rows.append((key[0], scores[user] + added[user], key[1], item))
            added[user] += weigh(item)
        rows.sort(key=itemgetter(0, 1, 2))
        return (row[3] for row in rows)

    def key(self, item: Waiting) -> Key:
        """Where it stands among requests that are served alike; the smaller the sooner."""
        return -item.priority, -item.order if self.discipline is Discipline.LIFO else item.order, item.id

    def _lane(self, item: Waiting) -> tuple[str, Shape]:
        return item.user if self.discipline.by_person else "", item.shape


class Round:
    """One way through a queue. Requests alike stand in lanes, so that a whole lane can be passed at once."""

    def __init__(self, line: Line, score: Callable[[str], float]) -> None:
        self._line = line
        self._score = score if line.discipline.by_person else lambda user: 0.0
        # What starts is taken out of its lane meanwhile, so places are kept by key, and the lanes by themselves.
        self._lanes = dict(line._lanes)
        self._heap = [
            (keys[0][0], self._score(lane[0]), keys[0][1], keys[0], lane)
            for lane, keys in self._lanes.items()
        ]
        heapify(self._heap)
        self._passed: set[Shape] = set()

    def next(self) -> Waiting | None:
        """The next one, or None after the last."""
        while self._heap:
            priority, score, order, key, lane = heappop(self._heap)
            if self._passed and lane[1] in self._passed:
                continue
            now = self._score(lane[0])
            if now > score:  # its person got something in this round
                heappush(self._heap, (priority, now, order, key, lane))
                continue
            self._after(key, lane)
            return self._line.items[key[2]]
        return None

    def pass_by(self, shape: Shape) -> None:
        """Nobody of this shape is asked any more in this round."""
        self._passed.add(shape)

    def _after(self, key: Key, lane: tuple[str, Shape]) -> None:
        keys = self._lanes[lane]
        place = bisect_right(keys, key)
        if place < len(keys):
            following = keys[place]
            heappush(self._heap, (following[0], self._score(lane[0]), following[1], following, lane))


@dataclass(slots=True)
class Account:
    """What one person holds and used, in parts of the group (0 to 1): the score of `drf` and `fair`.

    `held` is their dominant share now; `used` the sum of share × seconds up to `at_ms`, older use decayed.
    """

    held: float = 0.0
    used: float = 0.0
    at_ms: int = 0

    def advance(self, now_ms: int, half_life_s: float) -> None:
        """Counts what was held since the last time. The decay is exact however often this is called."""
        passed = max(0, now_ms - self.at_ms) / 1000
        self.at_ms = max(now_ms, self.at_ms)
        decay = 0.5 ** (passed / half_life_s)
        self.used = self.used * decay + self.held * (1 - decay) * half_life_s / log(2)

    def add_past(self, held: float, period_ms: tuple[int, int], now_ms: int, half_life_s: float) -> None:
        """Counts what was held from one moment to another, before now."""
        self.advance(now_ms, half_life_s)
        begun, ended = (0.5 ** (max(0, now_ms - moment) / 1000 / half_life_s) for moment in period_ms)
        self.used += held * (ended - begun) * half_life_s / log(2)

    def fair_score(self, now_ms: int, half_life_s: float) -> float:
        """Use so far, and what is held now as if for one half-life more."""
        self.advance(now_ms, half_life_s)
        return self.used / half_life_s + self.held


def dominant(amounts: Mapping[str, float], totals: Mapping[str, float]) -> float:
    """The largest part of any resource: {"cuda": 2, "cpu": 8} of {"cuda": 4, "cpu": 64} is 0.5."""
    return max((amount / totals[name] for name, amount in amounts.items() if totals.get(name)), default=0.0)
