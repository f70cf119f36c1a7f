"""Who starts now, and where.

Pure, and kept in step with the records by small changes (`add`, `remove`, `hold`, `free`), so that a decision costs
what changed and not what there is. Owns when somebody may pass a head that does not fit:

Without backfill nobody passes. With it the head gets a reservation: the node on which it can start first if everything
held ends when it says it will, and that moment. Others start meanwhile where they do not put this off: on other nodes,
on that node if they end before, or beside the head (EASY backfilling; Lifka, JSSPP 1995). Where nothing says when it
ends, one node is kept free of newcomers until the head fits.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from math import inf
from typing import Generic, TypeVar

from jupyterhub_bkai.gpus.fit import Books, Choice, NodeBook, Placement, Shortage, has_room, pieces
from jupyterhub_bkai.leasing.caps import Amounts, Cap, Excess, excess, needs
from jupyterhub_bkai.leasing.queue import Account, Discipline, Line, Shape, Size, Waiting, dominant
from jupyterhub_bkai.leasing.switches import Key, Kind, shut
from jupyterhub_bkai.model import Request, Slice, Wish

#: a moment that never comes
NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Rules:
    """How one group's queue is served. `depth` is how many kinds of requests that do not fit are tried at a time."""

    discipline: Discipline = Discipline.FIFO
    placement: Placement = Placement.BALANCE
    backfill: bool = True
    #: after so many tries of a head that does not fit, others go on as if it were not there; None: never
    skip_after: int | None = None
    half_life_s: float = 7 * 86400.0
    depth: int = 200
    #: nothing starts while the administrator holds the group
    on_hold: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What somebody holds, until it is given back. `ends_ms` is None when nothing says when that will be."""

    id: str
    user: str
    group: str
    node: str
    cpu_milli: int
    memory_mib: int
    slices: tuple[Slice, ...]
    ends_ms: int | None = None
    #: as `Waiting.caps`
    caps: Mapping[str, tuple[str, Amounts]] = field(default_factory=dict)

    def amounts(self) -> dict[str, Fraction]:
        """What it counts for where so much may run at a time."""
        found = {
            "sessions": Fraction(1),
            "cpu": Fraction(self.cpu_milli, 1000),
            "memory": Fraction(self.memory_mib),
            "fgpu": sum((piece.share for piece in self.slices), Fraction(0)),
        }
        for piece in self.slices:
            found[piece.slot] = found.get(piece.slot, Fraction(0)) + piece.share
        return found


@dataclass(frozen=True, slots=True)
class Grant:
    """Somebody starts."""

    id: str
    choice: Choice


@dataclass(slots=True)
class Reservation:
    """Where and when the head starts at the latest: `nodes` as they will be then, with the head on them.

    `at_ms` is None when nothing says when there will be room; then no newcomer starts on these nodes.
    """

    id: str
    at_ms: int | None
    nodes: dict[str, NodeBook]
    #: what the head asks for
    request: Request

    def admits(self, request: Request, choice: Choice, ends_ms: int | None) -> bool:
        """True when a newcomer there does not put the head off; it counts from then on."""
        book = self.nodes.get(choice.node)
        if book is None:
            return True
        if self.at_ms is None:
            return request.wish is None and self._spares(book, request)
        if ends_ms is not None and ends_ms <= self.at_ms:
            return True
        if book.cpu_milli < request.cpu_milli or book.memory_mib < request.memory_mib:
            return False
        try:
            self.nodes[choice.node] = book.take(request.cpu_milli, request.memory_mib, choice.slices)
        except ValueError:
            return False
        return True

    def _spares(self, book: NodeBook, request: Request) -> bool:
        """Where nothing says when devices come free: the head's processors and memory stay, and no device is taken."""
        left = book.take(request.cpu_milli, request.memory_mib, ())
        if left.cpu_milli < self.request.cpu_milli or left.memory_mib < self.request.memory_mib:
            return False
        self.nodes[book.node] = left
        return True

    def beside(self, books: Books, request: Request) -> Choice | None:
        """A place on a node that is kept, of what is free both now and beside the head; it counts from then on."""
        if self.at_ms is None or request.wish is None:
            return None
        for name, then in self.nodes.items():
            now = books[name]
            if _alone(now, request) is None or _alone(then, request) is None:
                continue
            free_now = {book.device.id: book for book in now.devices}
            both = []
            for _, _, piece in pieces(then, request.wish):
                try:
                    free_now[piece.device].take(piece)
                except ValueError:
                    continue
                both.append(piece)
            if len(both) >= request.wish.count:
                choice = Choice(name, tuple(both[: request.wish.count]))
                self.nodes[name] = then.take(request.cpu_milli, request.memory_mib, choice.slices)
                return choice
        return None


K = TypeVar("K", int, tuple[int, Fraction, int])


@dataclass(slots=True)
class Ranked(Generic[K]):
    """For one size of requests the nodes that may ever do, in an order that is kept when one of them changes."""

    #: the change of the books up to which this is true
    change: int = -1
    of: dict[str, K] = field(default_factory=dict)
    order: list[tuple[K, str]] = field(default_factory=list)

    def copy(self) -> "Ranked[K]":
        """The same, to be changed by itself."""
        return replace(self, of=self.of.copy(), order=self.order.copy())

    def put(self, node: str, key: K | None) -> None:
        """A node in its place; out of it for None."""
        before = self.of.get(node)
        if before == key:
            return
        if before is not None:
            del self.order[bisect_left(self.order, (before, node))]
            del self.of[node]
        if key is not None:
            insort(self.order, (key, node))
            self.of[node] = key


@dataclass(slots=True)
class Hall:
    """One resource group: its rules, its queue, what is left on its nodes, and how the last decision ended."""

    name: str
    rules: Rules
    books: Books
    #: the nodes with nothing on them: what can never start is told by these
    empty: Books
    line: Line = field(default_factory=Line)
    accounts: dict[str, Account] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    #: the first who does not fit, since the last decision
    head: str | None = None
    reservation: Reservation | None = None
    #: shapes that fit nowhere, as long as nothing was given back
    failed: set[Shape] = field(default_factory=set)
    #: sizes that fitted on no node, and how often there had come to be more room by then
    nowhere: dict[Size, int] = field(default_factory=dict)
    gains: int = -1
    tries: dict[str, int] = field(default_factory=dict)
    #: for each size a moment before which a node will not do, and how near a node is to doing
    bounds: dict[Size, Ranked[int]] = field(default_factory=dict)
    promises: dict[Size, Ranked[tuple[int, Fraction, int]]] = field(default_factory=dict)
    #: what requests are short of, each with the version of the books in which that was found
    short: dict[tuple[Wish | None, int, int], tuple[int, Shortage | None]] = field(default_factory=dict)
    #: as `short`: which closed node would take them
    barred: dict[tuple[Wish | None, int, int], tuple[int, tuple[str, bool] | None]] = field(
        default_factory=dict
    )
    #: everybody's place, counted when first asked for after a change
    places: dict[str, int] | None = None


class Scheduler:
    """The live queues and books. Not thread-safe; time comes in with each call, in milliseconds since the epoch."""

    def __init__(self, start_limit_ms: int = 0) -> None:
        #: how long something may take from its grant until its duration begins to count
        self.start_limit_ms = start_limit_ms
        self.halls: dict[str, Hall] = {}
        self.held: dict[str, Held] = {}
        self._shared: list[Books] = []
        self._of_node: dict[str, dict[str, Held]] = {}
        #: nodes on which something changed, the last to change last, and how many changes there were by then
        self._changed: dict[str, int] = {}
        self._changes = 0
        #: everybody who waits, also each of several that start together
        self._entries: dict[str, Waiting] = {}
        self._gangs: dict[str, Waiting] = {}
        #: those who may not start yet, whatever is free: their time has not come, or so much of theirs runs
        self._parked: dict[str, Waiting] = {}
        self._capped: dict[str, tuple[Waiting, str, Excess]] = {}
        self.caps: dict[str, Cap] = {}
        #: what takes nothing new at present
        self._closed: frozenset[Key] = frozenset()
        #: nodes some of which is closed, as they would be with nothing on them
        self._shut: dict[str, NodeBook] = {}
        #: thousandths of cores and devices asked for with devices, decayed: what `balance` goes by
        self._asked = [0.0, 0.0]

    # -- what there is -----------------------------------------------------------------------

    def lay_out(self, groups: Mapping[str, tuple[Rules, Iterable[str]]], nodes: Iterable[NodeBook]) -> None:
        """The groups with their nodes, and the nodes with nothing on them; once, before anybody comes."""
        empty = {book.node: book for book in nodes}
        shared: dict[frozenset[str], tuple[Books, Books]] = {}
        for name, (rules, members) in groups.items():
            inside = frozenset(empty.keys() & set(members))
            if inside not in shared:
                mine = [book for book in empty.values() if book.node in inside]
                shared[inside] = Books(mine), Books(mine)
            hall = self.halls[name] = Hall(name, rules, *shared[inside], totals=_totals(shared[inside][1]))
            hall.line.discipline = rules.discipline
        self._shared = [books for books, _ in shared.values()]

    def copy(self) -> "Scheduler":
        """A scheduler of its own that stands where this one does, to see what it would do."""
        new = Scheduler(self.start_limit_ms)
        books = {id(one): one.copy() for one in self._shared}
        new._shared = [*books.values()]
        new.held, new._of_node = dict(self.held), {node: dict(held) for node, held in self._of_node.items()}
        new._changed, new._changes = dict(self._changed), self._changes
        new._entries, new._gangs = dict(self._entries), dict(self._gangs)
        new._parked, new._capped = dict(self._parked), dict(self._capped)
        new.caps = {key: Cap(cap.most, cap.title, dict(cap.taken)) for key, cap in self.caps.items()}
        new._closed, new._shut, new._asked = self._closed, self._shut, [*self._asked]
        for name, hall in self.halls.items():
            kept = hall.reservation
            new.halls[name] = Hall(
                name,
                hall.rules,
                books[id(hall.books)],
                hall.empty,
                hall.line.copy(),
                {user: replace(account) for user, account in hall.accounts.items()},
                hall.totals,
                hall.head,
                replace(kept, nodes=dict(kept.nodes)) if kept is not None else None,
                set(hall.failed),
                dict(hall.nowhere),
                hall.gains,
                dict(hall.tries),
                {size: known.copy() for size, known in hall.bounds.items()},
                {size: known.copy() for size, known in hall.promises.items()},
            )
        return new

    def close(self, closed: Collection[Key]) -> None:
        """What takes nothing new from now on; whatever else was closed is open again."""
        before, self._closed = self._closed, frozenset(closed)
        moved = before ^ self._closed
        for hall in self.halls.values():
            if (Kind.GROUP, hall.name) in moved:
                hall.rules = replace(hall.rules, on_hold=(Kind.GROUP, hall.name) in self._closed)
        empty = {book.node: book for hall in self.halls.values() for book in hall.empty}
        self._shut = {}
        for name, book in empty.items():
            keys = {(Kind.NODE, name), *((Kind.DEVICE, device.device.id) for device in book.devices)}
            if keys & moved:
                self._change(name, partial(shut, empty=book, closed=self._closed))
            if keys & self._closed:
                self._shut[name] = shut(book, book, self._closed)

    def barred(self, id: str) -> tuple[str, bool] | None:
        """The node that is closed by hand and would take one who waits: now (True), or as the only one large enough
        for it (False).
        """
        hall, request = self.hall_of(id), self.waiting(id).request
        want = (request.wish, request.cpu_milli, request.memory_mib)
        known = hall.barred.get(want)
        if known is None or known[0] != hall.books.version:
            if len(hall.barred) > 1000:
                hall.barred.clear()
            known = hall.barred[want] = hall.books.version, self._barred(hall, request)
        return known[1]

    def _barred(self, hall: Hall, request: Request) -> tuple[str, bool] | None:
        concerned = [hall.empty[name] for name in self._shut if name in hall.empty]
        for empty in concerned:
            if _alone(shut(hall.books[empty.node], empty, ()), request) is not None:
                return empty.node, True
        if any(_alone(self._shut.get(book.node, book), request) is not None for book in hall.empty):
            return None
        return next(((book.node, False) for book in concerned if _alone(book, request) is not None), None)

    def _change(self, node: str, change: Callable[[NodeBook], NodeBook]) -> None:
        new: NodeBook | None = None
        for books in self._shared:
            if node in books:
                new = change(books[node]) if new is None else new
                books.put(new)
        self._note_change(node)

    def _note_change(self, node: str) -> None:
        self._changes += 1
        self._changed.pop(node, None)
        self._changed[node] = self._changes

    def node(self, name: str) -> NodeBook | None:
        """What is left on a node of any group."""
        return next((books[name] for books in self._shared if name in books), None)

    def held_on(self, node: str) -> Collection[Held]:
        """What is held on a node."""
        return self._of_node.get(node, {}).values()

    def inherit(self, former: "Scheduler", now_ms: int) -> None:
        """What people used and asked for, which no record tells; after those who wait and hold have come again."""
        if former._asked[1]:
            self._asked = former._asked
            self._tell_balance()
        for name, hall in former.halls.items():
            for user, account in hall.accounts.items() if name in self.halls else ():
                account.advance(now_ms, hall.rules.half_life_s)
                self.halls[name].accounts.setdefault(user, Account(at_ms=now_ms)).used += account.used

    # -- who waits and who holds -------------------------------------------------------------

    def add(self, item: Waiting) -> None:
        """Somebody asks. Raises KeyError for an unknown group."""
        if (gang := self._gangs.get(item.request.gang)) is not None:
            self._drop(gang)
            item = replace(gang, ids=(*(gang.ids or (gang.id,)), *(item.ids or (item.id,))))
        self._put(item)
        wish = item.request.wish
        if wish is not None and not wish.profile:
            devices = float(wish.share) * wish.count
            self._asked = [0.999 * self._asked[0] + item.request.cpu_milli, 0.999 * self._asked[1] + devices]
            self._tell_balance()

    def _put(self, item: Waiting) -> None:
        hall = self.halls[item.request.group]
        for id in item.ids or (item.id,):
            self._entries[id] = item
        if item.request.gang:
            self._gangs[item.request.gang] = item
        for key, (title, most) in item.caps.items():
            self.caps.setdefault(key, Cap(most, title))
        if item.not_before_ms or item.after:
            self._parked[item.id] = item
        else:
            hall.line.add(item)
        hall.places = None

    def remove(self, id: str) -> None:
        """Somebody leaves without having started; nothing happens when nobody of that id waits. Those they were to
        start with stay, together.
        """
        if (item := self._entries.get(id)) is not None:
            self._drop(item)
            if rest := tuple(one for one in item.ids if one != id):
                self._put(replace(item, id=rest[0], ids=rest))

    def _drop(self, item: Waiting) -> None:
        """Takes an entry, with all that start together, out of wherever it waits."""
        for id in item.ids or (item.id,):
            del self._entries[id]
        self._gangs.pop(item.request.gang, None)
        hall = self.halls[item.request.group]
        hall.places = None
        if self._parked.pop(item.id, None) is None and self._capped.pop(item.id, None) is None:
            hall.line.remove(item.id)
        hall.tries.pop(item.id, None)
        if hall.head == item.id:
            hall.head, hall.reservation = None, None

    def hold(self, held: Held, now_ms: int) -> None:
        """Somebody holds something, as the records say; also again with another end."""
        if (before := self.held.get(held.id)) is not None:
            self.held[held.id] = self._of_node[held.node][held.id] = held
            if before.ends_ms != held.ends_ms:
                self._note_change(held.node)
            return
        self.held[held.id] = self._of_node.setdefault(held.node, {})[held.id] = held
        self._change(held.node, lambda book: book.hold(held.cpu_milli, held.memory_mib, held.slices))
        self._count(held, 1, now_ms)
        self._count_caps(held, 1)

    def free(self, id: str, now_ms: int) -> None:
        """Somebody gives back; nothing happens when nobody of that id holds anything."""
        held = self.held.pop(id, None)
        if held is None:
            return
        del self._of_node[held.node][id]
        self._change(held.node, lambda book: book.give_back(held.cpu_milli, held.memory_mib, held.slices))
        self._count(held, -1, now_ms)
        self._count_caps(held, -1)

    def _count_caps(self, held: Held, sign: int) -> None:
        """What may run at a time changed; who waited for that is looked at again."""
        if not held.caps:
            return
        amounts = held.amounts()
        for key, (title, most) in held.caps.items():
            self.caps.setdefault(key, Cap(most, title)).count(amounts, sign)
            if sign < 0:
                for item, blocked, _ in [*self._capped.values()]:
                    if blocked == key:
                        del self._capped[item.id]
                        self.halls[item.request.group].line.add(item)

    def _over(self, item: Waiting) -> tuple[str, Excess] | None:
        """The first of its caps that does not let it start now."""
        asked = needs(item.request)
        for key in item.caps:
            cap = self.caps[key]
            if (over := excess(cap.most, cap.taken, asked, max(1, len(item.ids)))) is not None:
                return key, over
        return None

    def charge(
        self, group: str, user: str, held: tuple[int, int, float], period_ms: tuple[int, int], now_ms: int
    ) -> None:
        """Use from before this process: thousandths of cores, MiB and devices, from one moment to another."""
        hall = self.halls[group]
        cpu_milli, memory_mib, devices = held
        slot = next((name for name in hall.totals if name not in ("cpu", "memory")), "")
        part = self.share(group, cpu_milli, memory_mib, {slot: devices})
        account = hall.accounts.setdefault(user, Account(at_ms=now_ms))
        account.add_past(part, period_ms, now_ms, hall.rules.half_life_s)

    def share(self, group: str, cpu_milli: int, memory_mib: int, devices: Mapping[str, float]) -> float:
        """The largest part of any resource of the group that this is (0 to 1)."""
        amounts = {"cpu": float(cpu_milli), "memory": float(memory_mib), **devices}
        return dominant(amounts, self.halls[group].totals)

    def _count(self, held: Held, sign: int, now_ms: int) -> None:
        hall = self.halls.get(held.group)
        if hall is None or not hall.rules.discipline.by_person:
            return
        devices: dict[str, float] = {}
        for piece in held.slices:
            devices[piece.slot] = devices.get(piece.slot, 0.0) + float(piece.share)
        account = hall.accounts.setdefault(held.user, Account(at_ms=now_ms))
        account.advance(now_ms, hall.rules.half_life_s)
        part = self.share(held.group, held.cpu_milli, held.memory_mib, devices)
        account.held = max(0.0, account.held + sign * part)

    def _tell_balance(self) -> None:
        cpu, devices = self._asked
        for books in self._shared:
            books.cpu_per_device = cpu / devices if devices else 0.0

    # -- deciding ----------------------------------------------------------------------------

    def decide(self, now_ms: int) -> list[Grant]:
        """Everybody who starts now; they are taken out of the queues, and hold what they are given."""
        self._admit(now_ms)
        for hall in self.halls.values():
            hall.places = None
        grants: list[Grant] = []
        for hall in sorted(self.halls.values(), key=lambda hall: hall.line.first()):
            if len(hall.line):
                grants += self._serve(hall, now_ms)
        return grants

    def _admit(self, now_ms: int) -> None:
        """Lets those into their queues whose time has come."""
        for item in [*self._parked.values()]:
            if item.not_before_ms <= now_ms and not any(self.lives(id) for id in item.after):
                del self._parked[item.id]
                self.halls[item.request.group].line.add(item)

    def lives(self, id: str) -> bool:
        """True for what waits or holds something."""
        return id in self.held or id in self._entries

    def due(self, now_ms: int) -> bool:
        """True when somebody's time has come, which nothing else would tell."""
        return any(item.not_before_ms <= now_ms for item in self._parked.values() if item.not_before_ms)

    def _serve(self, hall: Hall, now_ms: int) -> list[Grant]:
        more_room = hall.gains != hall.books.gains
        if more_room:
            hall.failed.clear()
        grants, passed = self._go_round(hall, now_ms, more_room)
        # Where the order is by person, who passed the head may have put somebody else before it by that.
        while passed and hall.rules.discipline.by_person:
            more, passed = self._go_round(hall, now_ms, False)
            grants += more
        hall.places = None
        hall.gains = hall.books.gains
        return grants

    def _go_round(self, hall: Hall, now_ms: int, more_room: bool) -> tuple[list[Grant], bool]:
        """Asks everybody once, from the first on; tells who starts, and whether somebody passed the head."""
        rules, grants, passed = hall.rules, [], False
        head: Waiting | None = None
        reservation: Reservation | None = None
        tried = 0
        going = hall.line.round(self.score(hall, now_ms))
        while not rules.on_hold and (item := going.next()) is not None:
            if item.caps and (over := self._over(item)) is not None:
                hall.line.remove(item.id)
                self._capped[item.id] = item, *over
                continue
            choices = self._place(hall, item, reservation, now_ms)
            if choices:
                grants += self._start(hall, item, choices, now_ms)
                passed = passed or head is not None
                continue
            going.pass_by(item.shape)
            tried += 1
            if head is None:
                if more_room:
                    hall.tries[item.id] = hall.tries.get(item.id, 0) + 1
                if rules.skip_after is not None and hall.tries.get(item.id, 0) > rules.skip_after:
                    continue
                head = item
                if not rules.backfill:
                    break
                reservation = self._reserve(hall, item, now_ms)
            if tried >= rules.depth:
                break
        hall.head = head.id if head is not None else None
        hall.reservation = reservation
        return grants, passed

    def score(self, hall: Hall, now_ms: int) -> Callable[[str], float]:
        """How much a person has had, by the group's discipline; who has had least is next."""
        if hall.rules.discipline is Discipline.DRF:
            return lambda user: round(hall.accounts[user].held, 9) if user in hall.accounts else 0.0
        half_life_s = hall.rules.half_life_s

        def used(user: str) -> float:
            account = hall.accounts.get(user)
            return round(account.fair_score(now_ms, half_life_s), 9) if account is not None else 0.0

        return used

    def _place(
        self, hall: Hall, item: Waiting, reservation: Reservation | None, now_ms: int
    ) -> list[Choice] | None:
        """Where all of an entry goes now, or None; what fits nowhere is remembered."""
        shape = item.shape
        if shape in hall.failed or (not item.ids and self._nowhere(hall, item)):
            return None
        ends_ms = self._end(item, now_ms)
        choices: list[Choice] = []
        with ExitStack() as looks:
            together = max(1, len(item.ids))
            if together > 1:
                looks.enter_context(hall.books.rehearse())
            for _ in range(together):
                choice = self._one(hall, item, reservation, ends_ms)
                if choice is None:
                    if reservation is None:
                        hall.failed.add(shape)
                    return None
                choices.append(choice)
                if together > 1:
                    hall.books.put(_taken(hall.books[choice.node], item.request, choice))
        return choices

    def _nowhere(self, hall: Hall, item: Waiting) -> bool:
        """Whether a size is known to fit on no node: it did not, nor does it where there came to be more room since."""
        books, request, size = hall.books, item.request, item.shape.size
        since = hall.nowhere.get(size)
        if since is None:
            return False
        for node, gains in reversed(books.gained.items()):
            if gains <= since:
                break
            if has_room(books[node], request.wish, request.cpu_milli, request.memory_mib):
                del hall.nowhere[size]
                return False
        hall.nowhere[size] = books.gains
        return True

    def _end(self, item: Waiting, now_ms: int) -> int | None:
        """When something that starts now is over at the latest."""
        seconds = item.request.duration_s
        return now_ms + self.start_limit_ms + seconds * 1000 if seconds is not None else None

    def _one(
        self, hall: Hall, item: Waiting, reservation: Reservation | None, ends_ms: int | None
    ) -> Choice | None:
        request = item.request

        def choose(allowed: Callable[[str], bool] | None = None) -> Choice | None:
            return hall.books.choose(
                request.wish, request.cpu_milli, request.memory_mib, hall.rules.placement, allowed
            )

        choice = choose()
        if choice is None and not item.ids:
            if len(hall.nowhere) > 10_000:
                hall.nowhere.clear()
            hall.nowhere[item.shape.size] = hall.books.gains
        if choice is None or reservation is None or reservation.admits(request, choice, ends_ms):
            return choice
        return choose(lambda node: node not in reservation.nodes) or reservation.beside(hall.books, request)

    def _start(self, hall: Hall, item: Waiting, choices: list[Choice], now_ms: int) -> list[Grant]:
        request = item.request
        ends_ms = self._end(item, now_ms)
        self._drop(item)
        grants = []
        for id, choice in zip(item.ids or (item.id,), choices, strict=True):
            held = Held(
                id,
                item.user,
                hall.name,
                choice.node,
                request.cpu_milli,
                request.memory_mib,
                choice.slices,
                ends_ms,
                item.caps,
            )
            self.hold(held, now_ms)
            grants.append(Grant(id, choice))
        return grants

    # -- reserving ---------------------------------------------------------------------------

    def _reserve(self, hall: Hall, item: Waiting, now_ms: int) -> Reservation | None:
        """The head's reservation; None when it could never fit, whatever ends."""
        if len(item.ids) > 1:
            return self._reserve_together(hall, item, now_ms)
        best: tuple[int, str] | None = None
        for bound, name in self._bounds(hall, item):
            if best is not None and max(bound, now_ms) >= best[0]:
                break
            at = self.ready(hall.books[name], item.request, now_ms)
            if at is not None and (best is None or (at, name) < best):
                best = at, name
        if best is not None:
            book = self.at(hall.books[best[1]], best[0])
            choice = _alone(book, item.request)
            assert choice is not None
            return Reservation(item.id, best[0], {best[1]: _taken(book, item.request, choice)}, item.request)
        node = self._most_promising(hall, item)
        return (
            Reservation(item.id, None, {node: hall.books[node]}, item.request) if node is not None else None
        )

    def _bounds(self, hall: Hall, item: Waiting) -> list[tuple[int, str]]:
        """For each node that may ever do, a moment before which it will not, earliest first."""

        def bound(book: NodeBook) -> int | None:
            found = self._bound(book, item.request)
            return found if found < NEVER else None

        return self._ranked(hall, hall.bounds, item, bound).order

    def _ranked(
        self, hall: Hall, of_sizes: dict[Size, Ranked[K]], item: Waiting, rank: Callable[[NodeBook], K | None]
    ) -> Ranked[K]:
        """A hall's nodes for the size of a request, brought up to the books: only what changed is looked at again."""
        if len(of_sizes) > 200:
            of_sizes.clear()
        known = of_sizes.setdefault(item.shape.size, Ranked())
        changed = [book.node for book in hall.books]
        if known.change >= 0:
            changed = []
            for node, change in reversed(self._changed.items()):
                if change <= known.change:
                    break
                changed.append(node)
        for node in changed:
            if node in hall.books:
                known.put(node, rank(hall.books[node]))
        known.change = self._changes
        return known

    def _bound(self, book: NodeBook, request: Request) -> int:
        """A moment before which the node has not enough of everything; 0 for now, `NEVER` for never."""
        if not book.open:
            return NEVER
        wish, begin = request.wish, self._enough(book, request)
        if wish is None or begin == NEVER:
            return begin
        whole = not wish.profile and wish.share == 1
        ends: dict[str, list[tuple[int, Fraction]]] = {}
        for held in self._of_node.get(book.node, {}).values():
            for piece in held.slices:
                end = held.ends_ms if held.ends_ms is not None else NEVER
                ends.setdefault(piece.device, []).append((end, piece.share))
        moments = []
        for device in book.devices:
            facts = device.device
            if (
                facts.slot != wish.slot
                or not facts.healthy
                or (wish.models and facts.model not in wish.models)
            ):
                continue
            if wish.profile:
                moments.append(0 if any(p.name == wish.profile for p in facts.mig) else NEVER)
                continue
            if whole:  # all that is held of it has to end
                last = max((end for end, _ in ends.get(facts.id, ())), default=0)
                moments.append(last if not facts.mig else NEVER)
                continue
            free, moment = device.free_share, 0
            for end, share in sorted(ends.get(facts.id, ())):
                if free >= wish.share:
                    break
                free, moment = free + share, end
            moments.append(moment if free >= wish.share and not facts.mig else NEVER)
        moments.sort()
        return max(begin, moments[wish.count - 1]) if len(moments) >= wish.count else NEVER

    def _enough(self, book: NodeBook, request: Request) -> int:
        """When a node has enough processors and memory, as `_bound`."""
        cpu_milli, memory_mib = book.cpu_milli, book.memory_mib
        if cpu_milli >= request.cpu_milli and memory_mib >= request.memory_mib:
            return 0
        for held in self._ending(book.node):
            cpu_milli, memory_mib = cpu_milli + held.cpu_milli, memory_mib + held.memory_mib
            if cpu_milli >= request.cpu_milli and memory_mib >= request.memory_mib:
                return held.ends_ms or 0
        return NEVER

    def _ending(self, node: str) -> list[Held]:
        """What is held on a node and says when it ends, first to end first."""
        found = [held for held in self._of_node.get(node, {}).values() if held.ends_ms is not None]
        return sorted(found, key=lambda held: (held.ends_ms, held.id))

    def ready(self, book: NodeBook, request: Request, now_ms: int) -> int | None:
        """When a request first fits on a node, if everything ends when it says it will; None for never."""
        wish, cpu_milli, memory_mib = request.wish, request.cpu_milli, request.memory_mib
        if has_room(book, wish, cpu_milli, memory_mib):
            return now_ms
        ending = self._ending(book.node)
        for place, held in enumerate(ending):
            book = book.give_back(held.cpu_milli, held.memory_mib, held.slices)
            later = ending[place + 1].ends_ms if place + 1 < len(ending) else None
            if later != held.ends_ms and has_room(book, wish, cpu_milli, memory_mib):
                return max(now_ms, held.ends_ms or 0)
        return None

    def at(self, book: NodeBook, moment_ms: int) -> NodeBook:
        """A node as it will be, if everything ends when it says it will and nothing new comes."""
        for held in self._ending(book.node):
            if held.ends_ms is not None and held.ends_ms <= moment_ms:
                book = book.give_back(held.cpu_milli, held.memory_mib, held.slices)
        return book

    def alone(self, book: NodeBook, request: Request) -> Choice | None:
        """What a request gets on a node as it is, or None."""
        return _alone(book, request)

    def awaited(self, held: Held) -> list[str]:
        """For which of what it counts for somebody else waits, because so much of that runs."""
        blocked = {key for item, key, _ in self._capped.values() if item.user != held.user}
        return [key for key in held.caps if key in blocked]

    def _most_promising(self, hall: Hall, item: Waiting) -> str | None:
        """Of the nodes that would do if they were empty, the one that has most of what is asked for already.

        Of several the one that is kept for it now: each would go on losing to newcomers what the others gain.
        """

        def promise(book: NodeBook) -> tuple[int, Fraction, int] | None:
            empty = book
            for held in self._of_node.get(book.node, {}).values():
                empty = empty.give_back(held.cpu_milli, held.memory_mib, held.slices)
            if not book.open or _alone(empty, item.request) is None:
                return None
            have = len(pieces(book, item.request.wish)) if item.request.wish is not None else 0
            free = sum((device.free_share for device in book.devices), Fraction(0))
            return -have, -free, -book.cpu_milli

        ranked = self._ranked(hall, hall.promises, item, promise)
        if not ranked.order:
            return None
        most = ranked.order[0][0][0]
        kept = (
            hall.reservation.nodes if hall.reservation is not None and hall.reservation.id == item.id else {}
        )
        kept_too = [
            (ranked.of[node], node) for node in kept if node in ranked.of and ranked.of[node][0] == most
        ]
        return min(kept_too, default=ranked.order[0])[1]

    def _reserve_together(self, hall: Hall, item: Waiting, now_ms: int) -> Reservation | None:
        """For several that start together: all nodes they will be on, once enough of everything has ended. None when
        not even all nodes have room for them: they would keep everybody else waiting for what never comes.
        """
        if not self.could(item):
            return None
        inside = [held for held in self.held.values() if held.node in hall.books and held.ends_ms is not None]
        inside.sort(key=lambda held: (held.ends_ms, held.id))
        with hall.books.rehearse() as books:
            for place, held in enumerate(inside):
                books.put(books[held.node].give_back(held.cpu_milli, held.memory_mib, held.slices))
                later = inside[place + 1].ends_ms if place + 1 < len(inside) else None
                if later == held.ends_ms:
                    continue
                with books.rehearse():
                    hall.failed.discard(item.shape)
                    choices = self._place(hall, item, None, now_ms)
                    if choices is None:
                        continue
                    for choice in choices:
                        books.put(_taken(books[choice.node], item.request, choice))
                    at = max(now_ms, held.ends_ms or 0)
                    return Reservation(item.id, at, {c.node: books[c.node] for c in choices}, item.request)
        # Nothing says when: all nodes are kept free of newcomers.
        return Reservation(item.id, None, {book.node: book for book in hall.books}, item.request)

    # -- telling -----------------------------------------------------------------------------

    def place(self, id: str, now_ms: int) -> int:
        """1 for the next of its group, 0 for one whose time has not come. Raises KeyError for one who does not wait."""
        id, hall = self._entries[id].id, self.hall_of(id)
        if id in self._parked or id in self._capped:
            return 0
        if not hall.rules.discipline.by_person:
            return hall.line.place(id) + 1
        if hall.places is None:
            hall.places = {item.id: n for n, item in enumerate(self.order(hall.name, now_ms), 1)}
        return hall.places[id]

    def order(self, group: str, now_ms: int) -> Iterator[Waiting]:
        """A group's queue, next first."""
        hall = self.halls[group]

        cpu, memory = hall.totals.get("cpu") or inf, hall.totals.get("memory") or inf

        def weigh(item: Waiting) -> float:
            request = item.request
            part = max(request.cpu_milli / cpu, request.memory_mib / memory)
            if (wish := request.wish) is not None and (there := hall.totals.get(wish.slot)):
                part = max(part, wish.share.numerator / wish.share.denominator * wish.count / there)
            return part

        return hall.line.order(self.score(hall, now_ms), weigh)

    def hall_of(self, id: str) -> Hall:
        """Where somebody waits. Raises KeyError for one who does not."""
        return self.halls[self._entries[id].request.group]

    def waiting(self, id: str) -> Waiting:
        """The entry of one who waits. Raises KeyError for one who does not."""
        return self._entries[id]

    def capped(self, id: str) -> tuple[str, Excess] | None:
        """Of what more runs already than lets this one start: the words for whose that is, and how much; None else."""
        found = self._capped.get(self._entries[id].id)
        return (self.caps[found[1]].title, found[2]) if found is not None else None

    def starts_now(self, item: Waiting, now_ms: int) -> bool:
        """Whether a request would start at once: a new one after everybody who waits, or one of those who wait, at its
        place, asking for what `item` says. Changes nothing.
        """
        hall = self.halls[item.request.group]
        if hall.rules.on_hold or item.not_before_ms > now_ms or any(self.lives(id) for id in item.after):
            return False
        for key, (title, most) in item.caps.items():
            self.caps.setdefault(key, Cap(most, title))
        if self._over(item) is not None:
            return False
        first = self._before_head(hall, item, now_ms)
        if not first and (not hall.rules.backfill or hall.line.shapes() >= hall.rules.depth):
            return False
        kept = hall.reservation if not first else None
        if kept is not None:
            kept = Reservation(kept.id, kept.at_ms, dict(kept.nodes), kept.request)
        failed = item.shape in hall.failed
        found = self._place(hall, item, kept, now_ms) is not None
        if not failed:
            hall.failed.discard(item.shape)
        return found

    def could(self, item: Waiting) -> bool:
        """Whether there is room for all that start together where nothing else is held."""
        hall = self.halls[item.request.group]
        wants = (item.request.wish, item.request.cpu_milli, item.request.memory_mib)
        with hall.empty.rehearse() as books:
            for _ in range(max(1, len(item.ids))):
                choice = books.choose(*wants, hall.rules.placement)
                if choice is None:
                    return False
                books.put(_taken(books[choice.node], item.request, choice))
        return True

    def _before_head(self, hall: Hall, item: Waiting, now_ms: int) -> bool:
        """Whether it is its turn before the one that keeps the others waiting; True for that one itself."""
        if hall.head is None or hall.head == item.id:
            return True
        head = hall.line.items[hall.head]
        if not hall.rules.discipline.by_person:
            return hall.line.key(item) < hall.line.key(head)
        score = self.score(hall, now_ms)
        mine, first = ((-one.priority, score(one.user), one.order) for one in (item, head))
        return mine < first

    def shortage(self, id: str) -> Shortage | None:
        """What one who waits is short of; None when it would fit and waits only because of others."""
        hall, request = self.hall_of(id), self.waiting(id).request
        want = (request.wish, request.cpu_milli, request.memory_mib)
        known = hall.short.get(want)
        if known is None or known[0] != hall.books.version:
            if len(hall.short) > 1000:
                hall.short.clear()
            fits = hall.books.choose(*want) is not None
            known = hall.short[want] = hall.books.version, None if fits else hall.books.shortage(*want)
        return known[1]


def _totals(nodes: Iterable[NodeBook]) -> dict[str, float]:
    """Everything there is of each resource."""
    totals: dict[str, float] = {}
    for book in nodes:
        totals["cpu"] = totals.get("cpu", 0.0) + book.cpu_milli
        totals["memory"] = totals.get("memory", 0.0) + book.memory_mib
        for device in book.devices:
            totals[device.device.slot] = totals.get(device.device.slot, 0.0) + 1.0
    return totals


def _alone(book: NodeBook, request: Request) -> Choice | None:
    """What a request gets on one node, or None."""
    if not book.open or book.cpu_milli < request.cpu_milli or book.memory_mib < request.memory_mib:
        return None
    if request.wish is None:
        return Choice(book.node, ())
    rows = pieces(book, request.wish)[: request.wish.count]
    return Choice(book.node, tuple(row[2] for row in rows)) if len(rows) == request.wish.count else None


def _taken(book: NodeBook, request: Request, choice: Choice) -> NodeBook:
    return book.take(request.cpu_milli, request.memory_mib, choice.slices)
