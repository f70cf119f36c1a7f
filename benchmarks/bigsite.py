"""A service as it is served, over 2,000 machines of 8 devices, in a process of its own; what is missing is the Hub.

`BigSite` starts it and answers in the Hub's place who somebody is. The queue is filled before anybody is let in, by
requests for whole machines of which none is idle. Sessions are ended and their slices given back by the process
itself, as the reconcile loop does with the fence's proof, since no real session stands behind them.

As a program (`python -m benchmarks.bigsite`) it is the service's process.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket

from jupyterhub_bkai import policy
from jupyterhub_bkai.api import trusted
from jupyterhub_bkai.api.auth import hub_oauth
from jupyterhub_bkai.api.context import Context, Realised
from jupyterhub_bkai.app import PREFIX, application, spare_what_stays
from jupyterhub_bkai.clock import Clock
from jupyterhub_bkai.hub import Hub
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.lifecycle import Cause, State
from jupyterhub_bkai.leasing.queue import Discipline
from jupyterhub_bkai.leasing.reconcile import Reconciler
from jupyterhub_bkai.leasing.scheduler import Rules
from jupyterhub_bkai.model import Device, Node, Person, Request, Wish
from jupyterhub_bkai.options import ImageOffer
from jupyterhub_bkai.store.database import Database

NODES, DEVICES, PEOPLE = 2000, 8, 200
VERSION = "python/3.11"
SCOPES = ["access:services!service=bkai", "access:services"]


class NoFence:
    """No process stands behind the sessions of a benchmark."""

    def alive(self, lease_id: str) -> list[int]:
        return []

    def end(self, lease_id: str, grace_s: float, *, tidy: bool = True) -> bool:
        return True

    def tidy(self, lease_id: str) -> None:
        return

    def launched_is_dead(self, handle: Any) -> bool:
        return False

    def look(self, leases: Any) -> None:
        return

    def peak_kib(self, lease_id: str) -> int | None:
        return None


class OneImage:
    """One image version, always ready."""

    def offers(self) -> tuple[ImageOffer, ...]:
        return (ImageOffer(VERSION, "Python", "", "python", 100, 256, True),)

    def ready(self, version: str) -> Realised | None:
        return Realised("/usr/bin/python3", "/usr")

    async def realise(self, version: str, tell: Callable[[int | None, str], None]) -> Realised:
        return Realised("/usr/bin/python3", "/usr")


def nodes(count: int) -> list[Node]:
    def devices(node: str) -> tuple[Device, ...]:
        return tuple(Device(f"{node}-{i}", node, i, "cuda", "H200", 143_771, 132) for i in range(DEVICES))

    return [Node(f"n{n}", 192_000, 1_500_000, devices(f"n{n}")) for n in range(count)]


async def serve(folder: Path, port: int, hub_url: str, waiting: int, discipline: str, machines: int) -> None:
    """The service until standard input ends; each line of it is answered by what it has done and cost so far."""
    rules = Rules(discipline=Discipline(discipline))
    settings = policy.Settings(
        groups=(policy.Group("default", "Default", cpu_overcommit=Fraction(1), rules=rules),)
    )
    database, clock = Database(f"sqlite:///{folder / 'bkai.sqlite'}"), Clock()
    broker = Broker(database, settings, clock)
    await broker.load(nodes(machines))
    writing = asyncio.create_task(broker.run())
    await fill(broker, waiting, machines)
    spare_what_stays()
    fence = NoFence()
    hub = Hub(hub_url, "service")
    reconciler = Reconciler(broker, hub, fence, fence, clock.now_ms)
    context = Context(database, broker, reconciler, hub, OneImage(), clock.now_ms, "", folder)
    auth = hub_oauth(hub_url, "service", PREFIX, b"0" * 32)
    public = HTTPServer(application(context, auth, b"0" * 32))
    public.listen(port, "127.0.0.1")
    door = HTTPServer(trusted.application(context))
    door.add_socket(bind_unix_socket(str(folder / "hub.sock"), mode=0o600))
    ending = Ending(broker)
    tasks = [writing, asyncio.create_task(ending.run()), asyncio.create_task(context.forecast.run())]
    print(json.dumps({"waiting": len(broker.scheduler.halls["default"].line)}), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        times = os.times()
        print(
            json.dumps(
                {
                    "freed": ending.freed,
                    "cpu_s": times.user + times.system,
                    "waiting": len(broker.scheduler.halls["default"].line),
                }
            ),
            flush=True,
        )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    database.close()


async def fill(broker: Broker, waiting: int, machines: int) -> None:
    """Something small on every machine, which no other of its kind can share, and a queue for whole machines."""
    small = Wish("cuda", 1, Fraction(1, 10))
    first = Request(VERSION, "default", 100_000, 1024, 64, small, duration_s=360_000)
    asks = [(Person(f"holder{n % PEOPLE}"), f"h{n}", first) for n in range(machines)]
    chance = random.Random(1)
    for n in range(waiting):
        cores, hours = chance.randrange(1, 9), chance.randrange(1, 5)
        whole = Request(
            VERSION, "default", 1000 * cores, 1024, 64, Wish("cuda", DEVICES), duration_s=3600 * hours
        )
        asks.append((Person(f"waiter{n % PEOPLE}"), f"w{n}", whole))
    for begin in range(0, len(asks), 500):
        await asyncio.gather(*(broker.ask(*ask) for ask in asks[begin : begin + 500]))


class Ending:
    """Ends what was granted to the clients and gives it back, a little later, as the fence would let us."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.freed = 0

    async def run(self) -> None:
        broker = self._broker
        async with broker.watch() as watcher:
            while True:
                changed = await watcher.changes(1.0)
                watcher.ended.clear()
                found = (broker.records.get(id) for id in changed)
                granted = [
                    record.id
                    for record in found
                    if record is not None
                    and record.state == State.GRANTED
                    and record.user.startswith("client")
                ]
                ends = [broker.end(id, Cause.STOPPED, "hub", "Stopped.") for id in granted]
                frees = [broker.free(id, "fence", "nothing is alive") for id in granted]
                await asyncio.gather(*ends, *frees)
                self.freed += len(granted)


# -- the other side ----------------------------------------------------------------------------


class _User(web.RequestHandler):
    """Who somebody is, in the Hub's words; a token is "token-NAME"."""

    def get(self, name: str = "") -> None:
        name = name or self.request.headers.get("Authorization", "").rpartition("token-")[2]
        self.write(
            {"kind": "user", "name": name, "admin": False, "groups": [], "scopes": SCOPES, "servers": {}}
        )


@dataclass
class BigSite:
    """The running service, seen from outside; `folder` has its database and the Hub's socket."""

    port: int
    folder: Path
    process: asyncio.subprocess.Process

    async def ask(self) -> dict[str, Any]:
        """What the service says of itself: processor seconds, how many wait, how many were given back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        return cast(dict[str, Any], json.loads(await self.process.stdout.readline()))


@contextlib.asynccontextmanager
async def bigsite(
    waiting: int = 10_000, discipline: str = "fifo", count: int = NODES
) -> AsyncIterator[BigSite]:
    """Starts the service with its stand-in for the Hub; ends both."""
    hub = HTTPServer(web.Application([("/hub/api/user", _User), ("/hub/api/users/(.*)", _User)]))
    hub.listen(hub_port := free_port(), "127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="bkai-bench-", dir=os.environ.get("BKAI_BENCH_DISK")) as folder:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.bigsite", folder, str(port), f"http://127.0.0.1:{hub_port}/hub/api",
            str(waiting), discipline, str(count),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            json.loads(await process.stdout.readline())
            yield BigSite(port, Path(folder), process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()
            hub.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


class Client:
    """One kept connection. Plain sockets: the load must cost less than what it measures."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.calls = 0

    @classmethod
    async def tcp(cls, port: int) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def unix(cls, path: Path) -> "Client":
        return cls(*await asyncio.open_unix_connection(path))

    async def call(self, method: str, path: str, user: str, body: bytes = b"") -> tuple[int, bytes]:
        """The status and the body of the answer."""
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: token token-{user}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"\r\ntransfer-encoding: chunked" in head:
            return int(head[9:12]), await self._reader.readuntil(b"\r\n0\r\n\r\n")
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        return int(head[9:12]), await self._reader.readexactly(int(length))


if __name__ == "__main__":
    folder, port, hub_url, waiting, discipline, count = sys.argv[1:]
    asyncio.run(serve(Path(folder), int(port), hub_url, int(waiting), discipline, int(count)))
