"""The choice of a device among 2,000 nodes of 8 devices, half of them in use; beside it, looking at every place.

Each choice is taken and later given back, so that the books keep changing; only the choice is timed.
"""

import random
import statistics
import time
from collections import deque
from fractions import Fraction
from typing import Any

from jupyterhub_bkai.gpus.fit import Books, NodeBook, Placement, pieces
from jupyterhub_bkai.gpus.slices import cut
from jupyterhub_bkai.model import Device, Node, Wish

NODES, DEVICES, ROUNDS, LOOKS = 2000, 8, 5000, 20


def run() -> dict[str, Any]:
    chance = random.Random(1)
    books = Books(_some_node(chance, f"n{number}") for number in range(NODES))
    books.cpu_per_device = 12_000
    held: deque[tuple[str, int, tuple[Any, ...]]] = deque()
    times, changes = [], []
    for _ in range(ROUNDS):
        wish, cpu = _some_wish(chance), chance.choice((1000, 4000, 16_000))
        begun = time.perf_counter_ns()
        choice = books.choose(wish, cpu, 1000, Placement.BALANCE)
        chosen = time.perf_counter_ns()
        times.append((chosen - begun) / 1e6)
        if choice is not None:
            books.put(books[choice.node].take(cpu, 1000, choice.slices))
            held.append((choice.node, cpu, choice.slices))
        if len(held) > 500:
            node, cpu, slices = held.popleft()
            books.put(books[node].give_back(cpu, 1000, slices))
        changes.append((time.perf_counter_ns() - chosen) / 1e6)
    looked = []
    for _ in range(LOOKS):
        wish = _some_wish(chance)
        begun = time.perf_counter_ns()
        _look_at_all(books, wish)
        looked.append((time.perf_counter_ns() - begun) / 1e6)
    times.sort()
    return {
        "p50_ms": round(statistics.median(times), 4),
        "p99_ms": round(times[int(len(times) * 0.99)], 4),
        "take_and_give_back_ms": round(statistics.median(changes), 4),
        "every_place_p50_ms": round(statistics.median(looked), 2),
    }


def _some_node(chance: random.Random, name: str) -> NodeBook:
    devices = tuple(Device(f"{name}-{i}", name, i, "cuda", "H200", 143_771, 132) for i in range(DEVICES))
    book = NodeBook.empty(Node(name, 192_000, 1_500_000, devices))
    held = [cut(device, Fraction(chance.randrange(1, 11), 10)) for device in devices if chance.random() < 0.5]
    return book.take(1000, 1000, held)


def _some_wish(chance: random.Random) -> Wish:
    """Seven of ten a part of a device, the others one to eight whole ones."""
    if chance.random() < 0.7:
        return Wish("cuda", 1, Fraction(chance.randrange(1, 10), 10))
    return Wish("cuda", chance.choice((1, 2, 4, 8)))


def _look_at_all(books: Books, wish: Wish) -> Any:
    """What the choice would cost without an order."""
    best = None
    for book in books:
        rows = pieces(book, wish)[: wish.count]
        if len(rows) == wish.count:
            key = (sum(row[0] for row in rows), book.idle, book.cpu_milli, book.node)
            best = key if best is None or key < best else best
    return best
