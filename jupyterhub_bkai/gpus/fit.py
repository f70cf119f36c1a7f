"""Where a request goes: the choice of node and devices, or what is short.

Pure. Packing chooses on a device the smallest sufficient remainder, then the node with the fewest idle devices, then
the one with the fewest processors left. Spreading chooses the other way round. Balancing, the default, first of all
leaves no device without the processors that its sessions will need: of ten seeds of a published trace it gave away
95.9 % of the devices, packing 93.8 % (`python -m benchmarks openb`). `Books` keeps what is left on every node
in the order in which a choice looks for it, so that a choice looks at a few devices and not at all of them.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction

from jupyterhub_bkai.gpus.slices import Book
from jupyterhub_bkai.model import Device, Node, Slice, Wish


@dataclass(frozen=True, slots=True)
class NodeBook:
    """What is left on one node."""

    node: str
    cpu_milli: int
    memory_mib: int
    devices: tuple[Book, ...] = ()
    open: bool = True

    @property
    def idle(self) -> int:
        """How many devices nobody holds a part of."""
        return sum(device.holders == 0 for device in self.devices)

    @classmethod
    def empty(cls, node: Node, cpu_overcommit: Fraction = Fraction(1)) -> "NodeBook":
        """A node nobody uses; processors may be booked `cpu_overcommit` times over, nothing else may."""
        return cls(
            node.name,
            int(node.cpu_milli * cpu_overcommit),
            node.memory_mib,
            tuple(Book.empty(device) for device in node.devices),
        )

    def take(self, cpu_milli: int, memory_mib: int, slices: Iterable[Slice]) -> "NodeBook":
        """The node after this much is given. Raises ValueError when a slice does not fit."""
        return self._moved(-cpu_milli, -memory_mib, slices, Book.take)

    def hold(self, cpu_milli: int, memory_mib: int, slices: Iterable[Slice]) -> "NodeBook":
        """The node with what was given earlier, whatever its devices have become since."""
        return self._moved(-cpu_milli, -memory_mib, slices, Book.hold)

    def give_back(self, cpu_milli: int, memory_mib: int, slices: Iterable[Slice]) -> "NodeBook":
        """The node after this much is returned."""
        return self._moved(cpu_milli, memory_mib, slices, Book.give_back)

    def opened(self, open: bool) -> "NodeBook":
        """The node taking new leases, or none."""
        return replace(self, open=open)

    def _moved(
        self, cpu_milli: int, memory_mib: int, slices: Iterable[Slice], how: Callable[[Book, Slice], Book]
    ) -> "NodeBook":
        pieces = {piece.device: piece for piece in slices}
        return replace(
            self,
            cpu_milli=self.cpu_milli + cpu_milli,
            memory_mib=self.memory_mib + memory_mib,
            devices=tuple(
                how(book, pieces[book.device.id]) if book.device.id in pieces else book
                for book in self.devices
            ),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a request is put."""

    node: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Shortage:
    """The one constraint that binds: `what` is short, so much is asked, at most so much is free in one place.

    `what` is "accelerator", "cpu", "memory" or "node" (no node is open). Amounts of an accelerator are devices
    (fractions of one), of MIG instances; of cpu thousandths of a core; of memory MiB. `free_pieces` is how many
    pieces of the wished size are free on the best node.
    """

    what: str
    asked: Fraction
    free: Fraction
    free_pieces: int = 0
    pieces: int = 1


#: what a device's remainder counts beside the devices left without processors; from 0.01 to 0.6 it makes no difference
REMAINDER_WEIGHT = 0.2


class Placement(StrEnum):
    """Which of the places that would do is taken."""

    #: no device without processors: nodes keep as many of them as the free parts of their devices will need
    BALANCE = "balance"
    #: the smallest sufficient remainder
    PACK = "pack"
    #: the largest remainder, on the node with the most idle devices
    SPREAD = "spread"


#: one device or node in the order of choice: idle devices of its node, processors left, node, position on the node
Entry = tuple[int, int, str, int]
#: what makes devices alike for a choice: what is free of the device (to order by; a fraction would be slow), its model,
#: the MIG slots taken, free MiB and thousandths of SMs, how many MIG profiles it has, whether it can be divided
Kind = tuple[float, str, int, int, int, int, bool]


@dataclass(slots=True)
class _Kinds:
    """The devices of one slot by kind; `kinds` has the kinds in order of what is free."""

    kinds: list[Kind] = field(default_factory=list)
    entries: dict[Kind, list[Entry]] = field(default_factory=dict)
    #: an example of the devices of a kind, which are alike in what they have room for
    books: dict[Kind, Book] = field(default_factory=dict)

    def add(self, kind: Kind, entry: Entry, book: Book) -> list[Entry]:
        """Returns the list that the entry is in."""
        found = self.entries.get(kind)
        if found is None:
            insort(self.kinds, kind)
            found = self.entries[kind] = []
            self.books[kind] = book
        insort(found, entry)
        return found

    def forget(self, kind: Kind) -> None:
        """A kind of which there is no device any more."""
        del self.entries[kind], self.books[kind], self.kinds[bisect_left(self.kinds, kind)]


#: where one device stands in the order: the devices of its slot, its kind, the list of that kind, its entry there
Spot = tuple[_Kinds, Kind, list[Entry], Entry]


class Books:
    """What is left on a set of nodes. Changed by `put` and `drop` only; `rehearse` undoes, for a look ahead."""

    def __init__(self, nodes: Iterable[NodeBook] = ()) -> None:
        self._nodes: dict[str, NodeBook] = {}
        self._slots: dict[str, _Kinds] = {}
        self._order: list[Entry] = []
        self._spots: dict[str, dict[int, Spot]] = {}
        #: devices free on each node, in parts of devices; only an estimate is made of it
        self._free: dict[str, float] = {}
        #: thousandths of a core that sessions ask for per device: what balance is measured by
        self.cpu_per_device = 0.0
        #: how often there came to be more room, and how often anything changed
        self.gains = self.version = 0
        #: nodes on which there came to be more room, the last one last, and how often there had by then
        self.gained: dict[str, int] = {}
        self._undo: list[tuple[str, NodeBook | None]] | None = None
        for book in nodes:
            self.put(book)

    # -- what is left ------------------------------------------------------------------------

    def __getitem__(self, node: str) -> NodeBook:
        return self._nodes[node]

    def __contains__(self, node: object) -> bool:
        return node in self._nodes

    def __iter__(self) -> Iterator[NodeBook]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def put(self, book: NodeBook) -> None:
        """A node's new state, or a new node."""
        old = self._nodes.get(book.node)
        if self._undo is not None:
            self._undo.append((book.node, old))
        self.version += 1
        if old is None or _has_more(old, book):
            self.gains += 1
            self.gained.pop(book.node, None)
            self.gained[book.node] = self.gains
        self._index(old, book)
        self._nodes[book.node] = book
        self._free[book.node] = sum(float(device.free_share) for device in book.devices)

    def copy(self) -> "Books":
        """Books of their own that say the same."""
        new = Books()
        new._nodes, new._order, new._free = dict(self._nodes), [*self._order], dict(self._free)
        new.gained, new.cpu_per_device = dict(self.gained), self.cpu_per_device
        new.gains, new.version = self.gains, self.version
        lists: dict[int, list[Entry]] = {}
        kinds: dict[int, _Kinds] = {}
        for slot, old in self._slots.items():
            entries = {kind: [*found] for kind, found in old.entries.items()}
            new._slots[slot] = kinds[id(old)] = _Kinds([*old.kinds], entries, dict(old.books))
            lists |= {id(found): entries[kind] for kind, found in old.entries.items()}
        new._spots = {
            node: {
                place: (kinds[id(spot[0])], spot[1], lists[id(spot[2])], spot[3])
                for place, spot in spots.items()
            }
            for node, spots in self._spots.items()
        }
        return new

    def drop(self, node: str) -> None:
        """A node that is not one of these any more."""
        old = self._nodes.pop(node)
        if self._undo is not None:
            self._undo.append((node, old))
        self._index(old, None)

    def rehearse(self) -> "Rehearsal":
        """`with books.rehearse():` undoes at the end what was put meanwhile. May be nested."""
        return Rehearsal(self)

    def _index(self, old: NodeBook | None, new: NodeBook | None) -> None:
        """Moves what changed from one place of the order to another."""
        name = old.node if old is not None else new.node if new is not None else ""
        before, after = self._spots.pop(name, {}), {}
        if new is not None and new.open:
            idle, cpu = new.idle, new.cpu_milli
            same = old.devices if old is not None else ()
            for place, book in enumerate(new.devices):
                if not book.device.healthy:
                    continue
                entry, spot = (idle, cpu, name, place), before.get(place)
                if spot is None or place >= len(same) or same[place] is not book:
                    kinds, kind = self._slots.setdefault(book.device.slot, _Kinds()), _kind(book)
                    after[place] = kinds, kind, kinds.add(kind, entry, book), entry
                elif spot[3] == entry:  # nothing about it changed
                    after[place] = before.pop(place)
                else:  # only its node did, and it stays of its kind
                    insort(spot[2], entry)
                    after[place] = (*spot[:3], entry)
            self._spots[name] = after
        for kinds, kind, entries, entry in before.values():
            del entries[bisect_left(entries, entry)]
            if not entries:
                kinds.forget(kind)
        was_entry, now_entry = _node_entry(old), _node_entry(new)
        if was_entry != now_entry:
            if was_entry is not None:
                del self._order[bisect_left(self._order, was_entry)]
            if now_entry is not None:
                insort(self._order, now_entry)

    def largest(self, slot: str) -> Fraction:
        """The largest part of one device that is free, among those that take something new."""
        found = self._slots.get(slot)
        return found.books[found.kinds[-1]].free_share if found is not None and found.kinds else Fraction(0)

    # -- choosing ----------------------------------------------------------------------------

    def choose(
        self,
        wish: Wish | None,
        cpu_milli: int,
        memory_mib: int,
        placement: Placement = Placement.PACK,
        allowed: Callable[[str], bool] | None = None,
    ) -> Choice | None:
        """The best place for a request among the nodes that `allowed` lets through, or None."""
        fits = _Fits(self._nodes, cpu_milli, memory_mib, allowed)
        plain = wish is None or (not wish.profile and (wish.count == 1 or wish.share == 1))
        if placement is Placement.BALANCE and self.cpu_per_device and plain:
            return self._balanced(wish, fits)
        if wish is None:
            for entry in _walk(self._order, fits, 0, placement):
                return Choice(entry[2], ())
            return None
        found = self._slots.get(wish.slot)
        if found is None:
            return None
        if wish.count > 1 and (wish.share != 1 or wish.profile):
            return self._several(found, wish, fits, placement)
        return self._single(found, wish, fits, placement)

    def _single(self, found: _Kinds, wish: Wish, fits: "_Fits", placement: Placement) -> Choice | None:
        """One piece, or several whole devices: the first entry of the first kind that has room for it."""
        best: tuple[Entry, float, Choice] | None = None
        for kind in _ranked(found, wish, placement):
            if best is not None and kind[0] != best[1]:
                break
            for entry in _walk(found.entries[kind], fits, wish.count if wish.count > 1 else 0, placement):
                if best is not None and (entry >= best[0]) != (placement is Placement.SPREAD):
                    break
                choice = self._at(entry, wish, placement)
                if choice is not None:
                    best = (entry, kind[0], choice)
                    break
        return best[2] if best is not None else None

    def _at(self, entry: Entry, wish: Wish, placement: Placement) -> Choice | None:
        """What the wish gets at an entry: its device, or as many of its node."""
        book = self._nodes[entry[2]]
        if wish.count == 1:
            piece = _room(book.devices[entry[3]], wish)
            return Choice(book.node, (piece,)) if piece is not None else None
        rows = pieces(book, wish, placement)[: wish.count]
        return Choice(book.node, tuple(row[2] for row in rows)) if len(rows) == wish.count else None

    def _balanced(self, wish: Wish | None, fits: "_Fits") -> Choice | None:
        """The place that leaves the fewest devices without processors, then the smallest remainder.

        A node's surplus is its free processors, counted in devices they are enough for, less its free devices. A
        request with more processors than usual wants a node with a surplus, one with fewer a node that lacks them.
        Looked at are, of devices alike on nodes with as many idle ones, the one with the fewest processors that are
        enough and the one with the most.
        """
        need = float(wish.share) * wish.count if wish is not None else 0.0
        over = fits.cpu_milli / self.cpu_per_device - need
        enough = min(0.0, over)
        best: tuple[tuple[float, int], Entry, Choice] | None = None
        found: _Kinds | None = None
        kinds: Iterable[Kind | None] = (None,)
        if wish is not None:
            found = self._slots.get(wish.slot)
            kinds = _ranked(found, wish, Placement.PACK) if found is not None else ()
        for kind in kinds:
            rest = (
                REMAINDER_WEIGHT * (kind[0] - float(wish.share))
                if kind is not None and wish is not None
                else 0.0
            )
            if best is not None and best[0][0] <= enough + rest:
                break
            entries = self._order if kind is None else found.entries[kind]  # type: ignore[union-attr]
            for entry in _outermost(entries, fits, wish.count if wish is not None and wish.count > 1 else 0):
                surplus = entry[1] / self.cpu_per_device - self._free[entry[2]]
                cost = max(0.0, over - surplus) - max(0.0, -surplus)
                key = (cost + rest, entry[1])
                if best is None or key < best[0]:
                    choice = Choice(entry[2], ()) if wish is None else self._at(entry, wish, Placement.PACK)
                    if choice is not None:
                        best = (key, entry, choice)
        if best is None and wish is not None and wish.count > 1 and found is not None:
            return self._single(
                found, wish, fits, Placement.PACK
            )  # those looked at may be the ones that will not do
        return best[2] if best is not None else None

    def _several(self, found: _Kinds, wish: Wish, fits: "_Fits", placement: Placement) -> Choice | None:
        """Several equal parts, each of another device of one node: the node where they leave least (or most)."""
        best: tuple[tuple[Fraction, int, int, str], Choice] | None = None
        seen: dict[str, int] = {}
        sign = -1 if placement is Placement.SPREAD else 1
        first: Fraction | None = None
        for kind in _ranked(found, wish, placement):
            rest = sign * (found.books[kind].free_share - wish.share)
            first = rest if first is None else first
            # No later node leaves less. (A MIG instance's share of a device is known only at the device.)
            if best is not None and not wish.profile and (wish.count - 1) * first + rest > best[0][0]:
                break
            for entry in _walk(found.entries[kind], fits, 0, placement):
                node = entry[2]
                seen[node] = seen.get(node, 0) + 1
                if seen[node] != wish.count:
                    continue
                rows = pieces(self._nodes[node], wish, placement)[: wish.count]
                left = sum((row[0] for row in rows), Fraction(0))
                key = (sign * left, sign * entry[0], sign * entry[1], node)
                if len(rows) == wish.count and (best is None or key < best[0]):
                    best = (key, Choice(node, tuple(row[2] for row in rows)))
        return best[1] if best is not None else None

    def shortage(self, wish: Wish | None, cpu_milli: int, memory_mib: int) -> Shortage:
        """What binds a request that finds no place: the accelerator where no node has enough of it, else processors,
        else memory.
        """
        nodes = [self._nodes[entry[2]] for entry in self._order]
        if not nodes:
            return Shortage("node", Fraction(1), Fraction(0))
        if wish is not None:
            found = self._slots.get(wish.slot, _Kinds())
            counts = Counter(entry[2] for kind in _ranked(found, wish) for entry in found.entries[kind])
            most = max(counts.values(), default=0)
            if most < wish.count:
                mine = (kind for kind in reversed(found.kinds) if not wish.models or kind[1] in wish.models)
                free = next((found.books[kind].free_share for kind in mine), Fraction(0))
                return Shortage("accelerator", wish.share, free, most, wish.count)
            nodes = [book for book in nodes if counts[book.node] >= wish.count]
        cpu = max(book.cpu_milli for book in nodes)
        if cpu < cpu_milli:
            return Shortage("cpu", Fraction(cpu_milli), Fraction(cpu))
        enough = [book for book in nodes if book.cpu_milli >= cpu_milli]
        return Shortage("memory", Fraction(memory_mib), Fraction(max(book.memory_mib for book in enough)))


class Rehearsal:
    """What is put into the books while it is entered is undone at its end."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._mark = 0
        self._outer = False
        self._counts = (0, 0)
        self._gained: dict[str, int] = {}

    def __enter__(self) -> Books:
        undo = self._books._undo
        self._outer = undo is None
        if undo is None:
            undo = self._books._undo = []
        self._mark = len(undo)
        self._counts = (self._books.gains, self._books.version)
        self._gained, self._books.gained = self._books.gained, {}
        return self._books

    def __exit__(self, *_: object) -> None:
        undo = self._books._undo
        assert undo is not None
        steps, undo[self._mark :] = undo[self._mark :], []
        self._books._undo = None
        for node, old in reversed(steps):
            if old is None:
                self._books.drop(node)
            else:
                self._books.put(old)
        self._books._undo = None if self._outer else undo
        self._books.gains, self._books.version = self._counts
        self._books.gained = self._gained


def pieces(
    book: NodeBook, wish: Wish, placement: Placement = Placement.PACK
) -> list[tuple[Fraction, int, Slice]]:
    """Every piece of the wish's size the node could give, one a device: (remainder, index, slice), best first."""
    found = []
    for device in book.devices:
        if not _of(device.device, wish):
            continue
        piece = _room(device, wish)
        if piece is not None:
            found.append((device.free_share - piece.share, device.device.index, piece))
    sign = -1 if placement is Placement.SPREAD else 1
    found.sort(key=lambda row: (sign * row[0], row[1]))
    return found


def _of(device: Device, wish: Wish) -> bool:
    """True for a device of the kind that is wished for."""
    return device.slot == wish.slot and device.healthy and (not wish.models or device.model in wish.models)


def _room(book: Book, wish: Wish) -> Slice | None:
    return book.room_for_mig(wish.profile) if wish.profile else book.room_for(wish.share)


def _has_room(book: Book, wish: Wish) -> bool:
    return book.has_room_for_mig(wish.profile) if wish.profile else book.has_room(wish.share)


def has_room(book: NodeBook, wish: Wish | None, cpu_milli: int, memory_mib: int) -> bool:
    """True when a request fits on a node as it is."""
    if not book.open or book.cpu_milli < cpu_milli or book.memory_mib < memory_mib:
        return False
    if wish is None:
        return True
    left = wish.count
    for device in book.devices:
        if _of(device.device, wish) and _has_room(device, wish):
            left -= 1
            if not left:
                return True
    return False


def _ranked(found: _Kinds, wish: Wish, placement: Placement = Placement.PACK) -> Iterable[Kind]:
    """The kinds with room for the wish, those that leave least first (or last)."""
    # Of one MIG profile every device has as much less afterwards.
    kinds = found.kinds[0 if wish.profile else bisect_left(found.kinds, (float(wish.share),)) :]
    if placement is Placement.SPREAD:
        kinds.reverse()
    return (
        kind
        for kind in kinds
        if (not wish.models or kind[1] in wish.models) and _has_room(found.books[kind], wish)
    )


@dataclass(frozen=True, slots=True)
class _Fits:
    """Whether a node has the processors and the memory, and is allowed."""

    nodes: dict[str, NodeBook]
    cpu_milli: int
    memory_mib: int
    allowed: Callable[[str], bool] | None

    def node(self, name: str) -> bool:
        return self.nodes[name].memory_mib >= self.memory_mib and (self.allowed is None or self.allowed(name))


def _walk(entries: list[Entry], fits: _Fits, idle: int, placement: Placement) -> Iterator[Entry]:
    """The entries that fit, best first; those with too few processors are jumped over."""
    if placement is Placement.SPREAD:
        for entry in reversed(entries):
            if entry[0] < idle:
                return
            if entry[1] >= fits.cpu_milli and fits.node(entry[2]):
                yield entry
        return
    place = bisect_left(entries, (idle, fits.cpu_milli))
    while place < len(entries):
        entry = entries[place]
        if entry[1] < fits.cpu_milli:
            place = bisect_left(entries, (entry[0], fits.cpu_milli), place + 1)
            continue
        if fits.node(entry[2]):
            yield entry
        place += 1


def _has_more(old: NodeBook, new: NodeBook) -> bool:
    """True when something may fit that did not before."""
    return (
        new.cpu_milli > old.cpu_milli
        or new.memory_mib > old.memory_mib
        or (new.open and not old.open)
        or len(new.devices) != len(old.devices)
        or any(
            now is not was and (now.free_share > was.free_share or now.device != was.device)
            for was, now in zip(old.devices, new.devices, strict=True)
        )
    )


def _outermost(entries: list[Entry], fits: _Fits, idle: int) -> Iterator[Entry]:
    """Of each number of idle devices the entries with the fewest sufficient processors and with the most."""
    start = bisect_left(entries, (idle,))
    while start < len(entries):
        end = bisect_left(entries, (entries[start][0] + 1,), start)
        first = bisect_left(entries, (entries[start][0], fits.cpu_milli), start, end)
        while first < end and not fits.node(entries[first][2]):
            first += 1
        if first < end:
            yield entries[first]
            last = end - 1
            while last > first and not fits.node(entries[last][2]):
                last -= 1
            if last > first:
                yield entries[last]
        start = end


def _node_entry(book: NodeBook | None) -> Entry | None:
    if book is None or not book.open:
        return None
    return (book.idle, book.cpu_milli, book.node, 0)


def _kind(book: Book) -> Kind:
    device = book.device
    free = (float(book.free_share), device.model, book.mask, book.free_mib, book.free_sm_milli)
    return (*free, len(device.mig), device.divisible)
