"""Where a request goes: the choice of node and devices, or what is short.

Pure. Choice: on a device the smallest sufficient remainder, then the node with the fewest idle devices; nothing is
spread unless the wish says so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from jupyterhub_bkai.gpus.slices import Book
from jupyterhub_bkai.model import Node, Slice, Wish


@dataclass(frozen=True, slots=True)
class NodeBook:
    """What is left on one node."""

    node: str
    cpu_milli: int
    memory_mib: int
    devices: tuple[Book, ...] = ()
    open: bool = True

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


def pieces(book: NodeBook, wish: Wish) -> list[tuple[Fraction, int, Slice]]:
    """Every piece of the wish's size the node could give, one a device: (remainder, index, slice), best first."""
    found = []
    for device in book.devices:
        if device.device.slot != wish.slot:
            continue
        piece = device.room_for_mig(wish.profile) if wish.profile else device.room_for(wish.share)
        if piece is not None:
            found.append((device.free_share - piece.share, device.device.index, piece))
    found.sort(key=lambda row: (row[0], row[1]))
    return found


def choose(
    books: Sequence[NodeBook], wish: Wish | None, cpu_milli: int, memory_mib: int
) -> Choice | Shortage:
    """The best place for a request, or the constraint that keeps it waiting."""
    best: tuple[tuple[Fraction, int, int, str], Choice] | None = None
    for book in books:
        if not book.open or book.cpu_milli < cpu_milli or book.memory_mib < memory_mib:
            continue
        if wish is None:
            chosen: list[tuple[Fraction, int, Slice]] = []
        else:
            chosen = pieces(book, wish)[: wish.count]
            if len(chosen) < wish.count:
                continue
        idle = sum(device.idle for device in book.devices)
        key = (sum((row[0] for row in chosen), Fraction(0)), idle, book.cpu_milli - cpu_milli, book.node)
        if best is None or key < best[0]:
            best = (key, Choice(book.node, tuple(row[2] for row in chosen)))
    if best is not None:
        return best[1]
    return _shortage(books, wish, cpu_milli, memory_mib)


def _shortage(books: Sequence[NodeBook], wish: Wish | None, cpu_milli: int, memory_mib: int) -> Shortage:
    """What binds: the accelerator where no node has enough of it, else processors, else memory."""
    nodes = [book for book in books if book.open]
    if not nodes:
        return Shortage("node", Fraction(1), Fraction(0))
    if wish is not None:
        counts = {book.node: len(pieces(book, wish)) for book in nodes}
        if max(counts.values()) < wish.count:
            free = max(
                (
                    d.free_share
                    for b in nodes
                    for d in b.devices
                    if d.device.slot == wish.slot and d.device.healthy
                ),
                default=Fraction(0),
            )
            return Shortage("accelerator", wish.share, free, max(counts.values()), wish.count)
        nodes = [book for book in nodes if counts[book.node] >= wish.count]
    cpu = max(book.cpu_milli for book in nodes)
    if cpu < cpu_milli:
        return Shortage("cpu", Fraction(cpu_milli), Fraction(cpu))
    enough = [book for book in nodes if book.cpu_milli >= cpu_milli]
    return Shortage("memory", Fraction(memory_mib), Fraction(max(book.memory_mib for book in enough)))
