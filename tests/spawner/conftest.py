"""Fixtures of the spawner tests, by purpose. One hub serves the tests of one module, each with a user of its own.

Parts
    place            a short-named empty folder, for a hub and its sockets
    service          a fake service on `hub.sock` in that folder, forgiving and roomy at the start of each test
    hub              a real hub and proxy; a module's `HUB` gives other options
    user             a Hub user whom no other test has
    fence            proof about what is alive on this machine
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from jupyterhub_bkai.fences.process import ProcessFence
from tests.spawner.fake_service import FakeService
from tests.spawner.hubs import RunningHub, temp_hub

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    # Not tmp_path: its names are longer than a Unix socket's may be.
    folder = Path(tempfile.mkdtemp(prefix="bkai-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def fence() -> ProcessFence:
    return ProcessFence.of_this_machine()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_service(place: Path) -> AsyncIterator[FakeService]:
    service = FakeService(place / "hub.sock")
    await service.start()
    yield service
    await service.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_hub(
    request: pytest.FixtureRequest, place: Path, one_service: FakeService, fence: ProcessFence
) -> AsyncIterator[RunningHub]:
    async with temp_hub(place, **getattr(request.module, "HUB", {})) as hub:
        yield hub
    logs = place / "log"
    for lease_id in [file.stem for file in logs.glob("*.log")] if logs.exists() else []:
        assert await asyncio.to_thread(fence.end, lease_id, 0)


@pytest_asyncio.fixture(loop_scope="module")
async def service(one_service: FakeService) -> FakeService:
    await one_service.forget()
    return one_service


@pytest_asyncio.fixture(loop_scope="module")
async def hub(one_hub: RunningHub) -> AsyncIterator[RunningHub]:
    yield one_hub
    print(one_hub.log())  # shown by pytest where a test failed


@pytest_asyncio.fixture(loop_scope="module")
async def user(hub: RunningHub, service: FakeService) -> AsyncIterator[str]:
    name = f"ada{next(NUMBERS)}"
    await hub.add(name)
    yield name
    if not service.running:
        await service.start()
    if not hub.running:
        await hub.start()
    await hub.clear(name)
