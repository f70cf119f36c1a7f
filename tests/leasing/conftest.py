"""A broker over a real database and fake nodes: `async with a_broker() as b`."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import psycopg
import pytest

from jupyterhub_bkai import policy
from jupyterhub_bkai.clock import Clock, Stamp
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.model import Device, Node, Person, Request, Wish
from jupyterhub_bkai.store.database import Database

ADA = Person("ada")
CARD = Device("GPU-0", "local", 0, "cuda", "8 GB card", 8192, 20)
SETTINGS = policy.Settings(
    groups=(policy.Group("default", "Default", unit=Unit(Fraction(2), Fraction(1, 10))),)
)


class TestClock(Clock):
    """A clock that is told the time."""

    __test__ = False

    def __init__(self) -> None:
        self.wall_ms, self.boot_ns, self.boot = 1_700_000_000_000, 5_000_000_000, "boot-1"

    def now(self) -> Stamp:
        return Stamp(self.wall_ms, self.boot_ns, self.boot)

    def advance(self, ms: int, *, step_ms: int = 0) -> None:
        """Time passes; `step_ms` is what somebody sets the wall clock forward by meanwhile."""
        self.wall_ms += ms + step_ms
        self.boot_ns += ms * 1_000_000


def asked(share: str = "1/2", **changes: object) -> Request:
    raw = {"version": "sklearn/1.8", "group": "default", "cpu_milli": 1000, "memory_mib": 1024, "shm_mib": 64}
    return Request(**{**raw, "wish": Wish("cuda", 1, Fraction(share)) if share else None, **changes})  # type: ignore[arg-type]


OpenBroker = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    """A real PostgreSQL server on loopback; the address lacks the name of a database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        reason = "PostgreSQL is not installed (tests/install-system-packages.sh, as root)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="bkai-postgres-"))
    # The server refuses to run as root.
    who = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if who:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", free_port()
    run = partial(subprocess.run, check=True, capture_output=True, cwd="/")
    run([*who, programs[-1] / "initdb", "-D", data, "-U", "bkai", "-A", "trust", "-E", "UTF8", "--no-sync"])
    control = [*who, programs[-1] / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    run([*control, "-o", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1", "start"])
    yield f"postgresql://bkai@127.0.0.1:{port}/"
    run([*control, "-m", "immediate", "stop"])
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'bkai.sqlite'}"
    server = str(request.getfixturevalue("postgres"))
    name = f"test_{os.urandom(6).hex()}"
    with psycopg.connect(server + "postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server + name


@pytest.fixture
def a_broker(database_url: str) -> OpenBroker:
    """Opens (again) the broker of one database; leaving the block is a clean end, `kill=True` is none."""

    @asynccontextmanager
    async def opened(
        *,
        settings: policy.Settings = SETTINGS,
        devices: tuple[Device, ...] = (CARD,),
        clock: Clock | None = None,
        fresh: bool = False,
    ) -> AsyncIterator[Broker]:
        database = Database(database_url)
        broker = Broker(database, settings, clock or Clock())
        if fresh:  # as one that looked before the other wrote
            broker.set_nodes([Node("local", 8000, 16_384, devices)])
        else:
            await broker.load([Node("local", 8000, 16_384, devices)])
        task = asyncio.create_task(broker.run())
        try:
            yield broker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            database.close()

    return opened
