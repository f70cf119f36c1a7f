"""Fixtures of the spawner tests, by purpose.

Parts
    place            a short-named empty folder, for a hub and its sockets
    service          a fake service on `hub.sock` in that folder
    hub              a real hub and proxy, with the user ada; named options by `@pytest.mark.parametrize(..., indirect)`
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jupyterhub_bkai.fences.process import ProcessFence
from tests.spawner.fake_service import FakeService
from tests.spawner.hubs import RunningHub, temp_hub


@pytest.fixture
def place() -> Iterator[Path]:
    # Not tmp_path: its names are longer than a Unix socket's may be.
    folder = Path(tempfile.mkdtemp(prefix="bkai-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def service(place: Path) -> AsyncIterator[FakeService]:
    service = FakeService(place / "hub.sock")
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
async def hub(request: pytest.FixtureRequest, place: Path, service: FakeService) -> AsyncIterator[RunningHub]:
    async with temp_hub(place, **getattr(request, "param", {})) as hub:
        await hub.add("ada")
        yield hub
        print(hub.log())  # shown by pytest where a test failed
    fence = ProcessFence.of_this_machine()
    logs = place / "log"
    for lease_id in [file.stem for file in logs.glob("*.log")] if logs.exists() else []:
        assert await asyncio.to_thread(fence.end, lease_id, 0)
