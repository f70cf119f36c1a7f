"""The choice of a device among 2,000 nodes of 8 devices, half of them in use."""

import random
import statistics
import time
from fractions import Fraction
from typing import Any

from jupyterhub_bkai.gpus.fit import NodeBook, choose
from jupyterhub_bkai.gpus.slices import cut
from jupyterhub_bkai.model import Device, Node, Wish

NODES, DEVICES, ROUNDS = 2000, 8, 40


def run() -> dict[str, Any]:
    chance = random.Random(1)
    books = []
    for number in range(NODES):
        name = f"n{number}"
        devices = tuple(Device(f"{name}-{i}", name, i, "cuda", "H200", 143_771, 132) for i in range(DEVICES))
        book = NodeBook.empty(Node(name, 192_000, 1_500_000, devices))
        held = [
            cut(device, Fraction(chance.randrange(1, 11), 10)) for device in devices if chance.random() < 0.5
        ]
        books.append(book.take(1000, 1000, held))
    times = []
    for _ in range(ROUNDS):
        wish = Wish("cuda", 1, Fraction(chance.randrange(1, 11), 10))
        begun = time.perf_counter()
        choose(books, wish, 1000, 1000)
        times.append((time.perf_counter() - begun) * 1000)
    times.sort()
    return {"p50_ms": round(statistics.median(times), 3), "p99_ms": round(times[int(len(times) * 0.99)], 3)}
