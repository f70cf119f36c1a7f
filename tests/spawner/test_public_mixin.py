"""`leased(AnySpawner)` gives a lease to the sessions of a spawner that knows nothing of us."""

import pytest

from jupyterhub_bkai.fences import proctable
from tests.spawner.fake_service import FakeService
from tests.spawner.hubs import RunningHub

pytestmark = [pytest.mark.hub, pytest.mark.asyncio(loop_scope="module")]

HUB = {
    "config": """
from jupyterhub.spawner import SimpleLocalProcessSpawner
from bkaispawner.leased import leased

c.JupyterHub.spawner_class = leased(SimpleLocalProcessSpawner)
c.SimpleLocalProcessSpawner.home_dir_template = os.path.dirname(__file__) + "/homes/{username}"
c.Spawner.env_keep = ["PATH"]
import sys
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
"""
}


async def test_it_asks_tells_and_gives_back(hub: RunningHub, service: FakeService, user: str) -> None:
    service.capacity = 0
    service.variables = {"OURS": "1"}
    await hub.ask(user, "", {"cpu": "1"})
    await hub.said("Number 1.", user)
    service.capacity = 1
    await service.tell_all()
    await hub.ready(user)
    await service.hears("ready")
    state = (await hub.server(user) or {})["state"]
    environment = proctable.read(f"/proc/{state['pid']}/environ").split(b"\0")
    assert b"OURS=1" in environment
    assert f"BKAI_LEASE_ID={service.lease_of(user)}".encode() in environment
    assert service.heard("started")[0]["handle"]["kind"] == "spawner"

    hub.kill()
    await hub.start()
    await hub.ready(user)
    await hub.drop(user)
    await hub.gone(user)
    assert (await service.hears("release"))["cause"] == "stopped"


async def test_a_cancelled_start_is_withdrawn(hub: RunningHub, service: FakeService, user: str) -> None:
    service.capacity = 0
    await hub.ask(user)
    await hub.said("Number 1.", user)
    await hub.drop(user)
    await hub.gone(user)
    await service.hears("withdraw")
