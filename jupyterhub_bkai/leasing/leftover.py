"""What is free and helps nobody: fragmentation, and devices that stood free while somebody waited.

Pure. Fragmentation is that of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023): of the free parts of devices,
the share that a usual request could not be given where it lies. Usual are the requests that wait or hold something at
the moment, each as often as it occurs; those that ask for no device say nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jupyterhub_bkai.gpus.fit import NodeBook, pieces
from jupyterhub_bkai.leasing.scheduler import Hall
from jupyterhub_bkai.model import Request, Wish

#: a request as far as it says where it fits: the accelerator, thousandths of cores, MiB
Want = tuple[Wish, int, int]
#: so many kinds of requests are looked at, the most frequent ones
MOST_WANTS = 12


def usual(requests: Iterable[Request]) -> Counter[Want]:
    """The most frequent kinds of requests for an accelerator, with how often they occur."""
    found = Counter((r.wish, r.cpu_milli, r.memory_mib) for r in requests if r.wish is not None)
    return Counter(dict(found.most_common(MOST_WANTS)))


@dataclass(slots=True)
class Fragmentation:
    """Remembers what it found of each node until the node changes."""

    _known: dict[tuple[str, Want], tuple[NodeBook, float, float]] = field(default_factory=dict)

    def of(self, books: Iterable[NodeBook], wants: Mapping[Want, int]) -> float | None:
        """The unusable share of what is free (0 to 1); None when nothing is free or nothing is asked for."""
        unusable = free = 0.0
        for book in books:
            for want, times in wants.items():
                lost, all_free = self._at(book, want)
                unusable, free = unusable + times * lost, free + times * all_free
        return unusable / free if free else None

    def _at(self, book: NodeBook, want: Want) -> tuple[float, float]:
        found = self._known.get((book.node, want))
        if found is None or found[0] is not book:
            if len(self._known) > 50_000:
                self._known.clear()
            found = self._known[book.node, want] = book, *unusable_on(book, want)
        return found[1], found[2]


def unusable_on(book: NodeBook, want: Want) -> tuple[float, float]:
    """Devices free on a node of which a request could be given nothing, and devices free, in parts of devices."""
    wish, cpu_milli, memory_mib = want
    mine = [one for one in book.devices if one.device.slot == wish.slot and one.device.healthy]
    free = sum(float(one.free_share) for one in mine) if book.open else 0.0
    if not free:
        return 0.0, 0.0
    rows = pieces(book, wish) if book.cpu_milli >= cpu_milli and book.memory_mib >= memory_mib else []
    if len(rows) < wish.count:
        return free, free
    usable = {row[2].device for row in rows}
    return sum(float(one.free_share) for one in mine if one.device.id not in usable), free


def free_while_waiting(hall: Hall) -> float:
    """How many devices are free that could be given, while somebody waits for one of their kind; else 0."""
    slots = hall.line.slots()
    return sum(
        float(one.free_share)
        for book in (hall.books if slots else ())
        if book.open
        for one in book.devices
        if one.device.slot in slots and one.device.healthy
    )


@dataclass(slots=True)
class IdleMeter:
    """Adds up, for each group, how long how many devices stood free while somebody waited: device-seconds."""

    at_s: float
    seconds: dict[str, float] = field(default_factory=dict)
    _rates: dict[str, float] = field(default_factory=dict)

    def advance(self, now_s: float, rates: Mapping[str, float]) -> None:
        """Counts what was free since the last time; from now on it is `rates`, devices by group."""
        passed = max(0.0, now_s - self.at_s)
        self.at_s = now_s
        for group in rates.keys() | self._rates.keys():
            self.seconds[group] = self.seconds.get(group, 0.0) + passed * self._rates.get(group, 0.0)
        self._rates = dict(rates)
