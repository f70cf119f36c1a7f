"""Acquire → grant over HTTP: 50 clients on kept connections, 10,000 requests waiting, 2,000 machines of 8 devices.

Each reply comes after the commit of its grant is on the disk (SQLite, synchronous=FULL), and everything granted is
ended and given back meanwhile. Asked three ways, turn about: one session a call at the public door (as people do), ten
a call (`count`), and the Hub's own door, which streams until the lease is there. Beside it the disk's floor: commits of
one small row with the same settings, and bare writes with fsync. The rates of others are published ones, not measured
here: kube-scheduler 180–810 pods/s, Kueue about 43/s.
"""

import asyncio
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bigsite import VERSION, BigSite, Client, bigsite

CLIENTS, ROUNDS, SECONDS, WAITING = 50, 5, 2.0, 10_000
PUBLISHED = {"kube-scheduler": "180-810 pods/s", "Kueue": "about 43/s"}
WISH = {"version": VERSION, "cpu": "1", "memory": "1g", "gpu": "0.1", "duration": "1h"}
Call = Callable[[Client, str], Any]


def run() -> dict[str, Any]:
    return asyncio.run(_run())


async def _run() -> dict[str, Any]:
    figures: dict[str, list[float]] = {}
    async with bigsite(WAITING) as site:
        public = [await Client.tcp(site.port) for _ in range(CLIENTS)]
        inside = [await Client.unix(site.folder / "hub.sock") for _ in range(CLIENTS)]
        await load(site, public, one)
        for _ in range(ROUNDS):
            for name, clients, call in (
                ("rest", public, one),
                ("rest_of_ten", public, ten),
                ("hub", inside, acquire),
            ):
                rate, cpu_ms = await load(site, clients, call)
                figures.setdefault(f"{name}_per_s", []).append(rate)
                figures.setdefault(f"{name}_cpu_ms", []).append(cpu_ms)
            figures.setdefault("disk_sqlite_per_s", []).append(commits(site.folder))
            figures.setdefault("disk_bare_per_s", []).append(writes(site.folder))
        waiting = (await site.ask())["waiting"]
    found = {name: round(statistics.median(values), 2) for name, values in figures.items()}
    ratios = [a / b for a, b in zip(figures["rest_per_s"], figures["disk_sqlite_per_s"], strict=True)]
    return {
        **found,
        "rest_to_disk": round(statistics.median(ratios), 3),
        "waiting": waiting,
        "published": PUBLISHED,
    }


async def load(site: BigSite, clients: list[Client], call: Call) -> tuple[float, float]:
    """Grants a second that clients were told of, and the service's processor time for each, in ms."""
    before, begun = await site.ask(), time.perf_counter()
    granted = 0

    async def work(number: int, client: Client) -> None:
        nonlocal granted
        while time.perf_counter() < begun + SECONDS:
            more = await call(client, f"client{number}")
            granted += more

    await asyncio.gather(*(work(*pair) for pair in enumerate(clients)))
    took, after = time.perf_counter() - begun, await site.ask()
    return granted / took, 1000 * (after["cpu_s"] - before["cpu_s"]) / granted


async def one(client: Client, user: str, **more: str) -> int:
    body = json.dumps({"options": {**WISH, **more}}).encode()
    status, answer = await client.call("POST", "/services/bkai/api/v1/sessions", user, body)
    states = [session["state"] for session in json.loads(answer)["sessions"]]
    if status != 201 or set(states) != {"PREPARING"}:
        raise RuntimeError(f"not granted at once: {status} {states}")
    return len(states)


async def ten(client: Client, user: str) -> int:
    return await one(client, user, count="10")


async def acquire(client: Client, user: str) -> int:
    client.calls += 1
    asked = {"user": user, "server": f"s{client.calls}", "options": WISH}
    _, answer = await client.call("POST", "/trusted/v1/acquire", user, json.dumps(asked).encode())
    if b'"event":"granted"' not in answer:
        raise RuntimeError(f"not granted: {answer[:200]!r}")
    return 1


def commits(folder: Path, count: int = 200) -> float:
    """Commits a second of one row, with the settings of the store, beside it on the same disk."""
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        connection = sqlite3.connect(Path(beside) / "floor.sqlite", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE rows (a, b)")
        begun = time.perf_counter()
        for number in range(count):
            connection.execute("INSERT INTO rows VALUES (?, ?)", (number, "x" * 300))
        took = time.perf_counter() - begun
        connection.close()
    return count / took


def writes(folder: Path, count: int = 200) -> float:
    """Writes of 4 KiB a second, each synced."""
    with tempfile.TemporaryFile(dir=folder) as file:
        begun = time.perf_counter()
        for _ in range(count):
            os.write(file.fileno(), b"x" * 4096)
            os.fsync(file.fileno())
        return count / (time.perf_counter() - begun)
