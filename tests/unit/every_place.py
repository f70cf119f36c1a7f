"""The choice of a place by looking at all of them: slow, and plain enough to be believed."""

from collections.abc import Iterable
from fractions import Fraction

from jupyterhub_bkai.gpus.fit import Choice, NodeBook, Placement
from jupyterhub_bkai.gpus.slices import Book
from jupyterhub_bkai.model import Slice, Wish


def room(book: Book, wish: Wish) -> Slice | None:
    if book.device.slot != wish.slot or (wish.models and book.device.model not in wish.models):
        return None
    return book.room_for_mig(wish.profile) if wish.profile else book.room_for(wish.share)


def choose(
    nodes: Iterable[NodeBook], wish: Wish | None, cpu_milli: int, memory_mib: int, placement: Placement
) -> Choice | None:
    sign = -1 if placement is Placement.SPREAD else 1
    found = []
    for node in nodes:
        if not node.open or node.cpu_milli < cpu_milli or node.memory_mib < memory_mib:
            continue
        rows = []
        for book in node.devices if wish is not None else ():
            piece = room(book, wish)  # type: ignore[arg-type]
            if piece is not None:
                rows.append((sign * (book.free_share - piece.share), book.device.index, piece))
        count = wish.count if wish is not None else 0
        if len(rows) < count:
            continue
        rows = sorted(rows, key=lambda row: row[:2])[:count]
        left = sum((row[0] for row in rows), Fraction(0))
        idle = sum(book.holders == 0 for book in node.devices)
        found.append((left, sign * idle, sign * node.cpu_milli, node.node, tuple(row[2] for row in rows)))
    if not found:
        return None
    best = min(found, key=lambda row: row[:3] + ((row[3],) if sign == 1 else ()))
    return Choice(best[3], best[4])


def worth(nodes: Iterable[NodeBook], choice: Choice | None) -> object:
    """What a choice is worth: two choices that are worth the same are both right."""
    if choice is None:
        return None
    node = next(node for node in nodes if node.node == choice.node)
    books = {book.device.id: book for book in node.devices}
    left = sum((books[piece.device].free_share - piece.share for piece in choice.slices), Fraction(0))
    return left, sum(book.holders == 0 for book in node.devices), node.cpu_milli
