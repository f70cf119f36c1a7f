"""A broker over a real database and fake nodes: `async with a_broker() as b`."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fractions import Fraction
from pathlib import Path

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


@pytest.fixture
def a_broker(tmp_path: Path) -> OpenBroker:
    """Opens (again) the broker of one database; leaving the block is a clean end, `kill=True` is none."""
    numbers = itertools.count()

    @asynccontextmanager
    async def opened(
        *,
        settings: policy.Settings = SETTINGS,
        devices: tuple[Device, ...] = (CARD,),
        clock: Clock | None = None,
        url: str | None = None,
    ) -> AsyncIterator[Broker]:
        next(numbers)
        database = Database(url or f"sqlite:///{tmp_path / 'bkai.sqlite'}")
        broker = Broker(database, settings, clock or Clock())
        await broker.load([Node("local", 8000, 16_384, devices)])
        task = asyncio.create_task(broker.run())
        try:
            yield broker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            database.close()

    return opened
