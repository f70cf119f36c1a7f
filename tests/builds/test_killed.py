"""The service is killed in the middle of making an environment: nothing goes on, nothing is left, the next makes it."""

import asyncio
import os
import pickle
import signal
import sys
from pathlib import Path

import psutil
import pytest

from jupyterhub_bkai.builds import catalog
from jupyterhub_bkai.builds.environment import Environments, Progress
from jupyterhub_bkai.builds.foundation import Foundation
from jupyterhub_bkai.errors import Unavailable
from tests.builds.conftest import ROOT, Define

pytestmark = pytest.mark.slow

MAKER = """
import asyncio, pickle, sys
from pathlib import Path
from jupyterhub_bkai.builds import catalog
from jupyterhub_bkai.builds.environment import Environments

async def main(data, images, foundation):
    environments = Environments(Path(data), foundation, shared=False)
    [image] = catalog.read([Path(images)], foundation.digest).images.values()
    async for progress in environments.realise(image):
        print(progress.message, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], pickle.load(sys.stdin.buffer)))
"""


async def killed_at(moment: str, data: Path, images: Path, foundation: Foundation) -> None:
    """A process that makes the only image, killed when it says so."""
    maker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MAKER, str(data), str(images)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert maker.stdin is not None
    assert maker.stdout is not None
    maker.stdin.write(pickle.dumps(foundation))
    maker.stdin.close()
    async with asyncio.timeout(120):
        while moment not in (line := await maker.stdout.readline()).decode():
            assert line, f"it ended without saying {moment}"
    os.kill(maker.pid, signal.SIGKILL)
    await maker.wait()


def at_work(data: Path) -> list[str]:
    """The programs that run in the data folder, or on it."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(data) in word for word in words):
            found.append(" ".join(words))
    return found


@pytest.mark.parametrize(
    "moment", ["Preparing the environment", "Looking up", "Installing", "quick start", "Checking"]
)
async def test_killed_and_made_anew(
    moment: str, own_data: Path, light: Foundation, define: Define, tmp_path: Path
) -> None:
    # Never made before, whatever the order of the tests, and most of it in the installer's cache.
    label = f"imports: six\nversion: 1.13.0\ndescription: killed at {moment}\n"
    image = define("six/1.13", "six==1.13.0\n", label)
    root = own_data / "envs"
    await killed_at(moment, own_data, image.path.parents[1], light)
    async with asyncio.timeout(15):
        while left := at_work(own_data):  # noqa: ASYNC110 - a kernel without its parent ends within seconds
            await asyncio.sleep(0.05)
    assert left == []
    assert len([path for path in root.iterdir() if path.name.startswith(".making-six-1.13")]) == 1

    environments = Environments(own_data, light, shared=False)
    assert not environments.is_ready(image)
    [removed] = environments.clean()
    assert removed.startswith(".making-six-1.13")
    assert not list(root.glob(".*"))
    async for progress in environments.realise(image):
        last = progress
    assert last.percent == 100
    assert environments.is_ready(image)
    assert catalog.read([image.path.parents[1]], light.digest).images[image.name].key == image.key


async def test_stopped_in_an_orderly_way(own_data: Path, light: Foundation, define: Define) -> None:
    image = define("six/1.12", "six==1.12.0\n", "imports: six\nversion: 1.12.0\n")
    environments = Environments(own_data, light, shared=False)
    listening = asyncio.create_task(collect(environments, image))
    async with asyncio.timeout(60):
        while not at_work(own_data):  # noqa: ASYNC110 - the installer does not set our events
            await asyncio.sleep(0.02)
    await environments.aclose()
    with pytest.raises(Unavailable, match="stopped meanwhile"):
        await listening
    assert at_work(own_data) == []
    assert not list((own_data / "envs").glob(".*"))
    assert not environments.is_ready(image)


async def collect(environments: Environments, image: catalog.ImageVersion) -> list[Progress]:
    return [progress async for progress in environments.realise(image)]


async def test_two_services_make_the_same(own_data: Path, light: Foundation, define: Define) -> None:
    """As after a restart that overlapped: one of them is first, the other finds it done."""
    image = define("six/1.11", "six==1.11.0\n", "imports: six\nversion: 1.11.0\n")
    both = [Environments(own_data, light, shared=False) for _ in range(2)]

    told = await asyncio.gather(*(collect(environments, image) for environments in both))
    assert [progress[-1].percent for progress in told] == [100, 100]
    assert both[0].is_ready(image)
    assert not list((own_data / "envs").glob(".*"))
