"""A hub that waits for the answer of a start, and has no luck with ports: what programs read, what is tried again."""

import pytest

from jupyterhub_bkai.fences.process import ProcessFence
from tests.spawner.fake_service import FakeService
from tests.spawner.hubs import RunningHub

pytestmark = [pytest.mark.hub, pytest.mark.asyncio(loop_scope="module")]

# For sessions named "unlucky" the chosen port is taken, twice, by the time their server wants it; for those named
# "robbed" somebody else's server answers on it all the time.
PORTS = """
import socket
import bkaispawner.tree

c.Leased.unreachable_limit = 1.5
taken = []
choose = bkaispawner.tree.ports.free_port

class Unlucky:
    listeners = staticmethod(bkaispawner.tree.ports.listeners)
    holds = staticmethod(bkaispawner.tree.ports.holds)
    rob = 0

    def free_port(self, host):
        port = choose(host)
        if self.rob:
            self.rob -= 1
            thief = socket.socket()
            thief.bind((host, port))
            thief.listen()
            taken.append(thief)
        return port

unlucky = bkaispawner.tree.ports = Unlucky()
times = {"unlucky": 2, "robbed": 100}

def before(spawner):
    unlucky.rob = times.get(spawner.name, 0)
    if spawner.name == "no-log":
        spawner.log_folder = "/dev/null/nowhere"

c.Spawner.pre_spawn_hook = before
"""

HUB = {"slow_spawn_timeout": 20, "config": PORTS}


async def test_a_refusal_is_the_answer_to_the_request(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    service.refuse = lambda options: (409, "never", "No group has 9 GPUs.", {"gpu": "No group has 9 GPUs."})
    answer = await hub.ask(user, "", {"gpu": "9"})
    assert answer.status_code == 409
    assert answer.json()["message"] == "No group has 9 GPUs."


@pytest.mark.parametrize("status", [400, 403, 409])
async def test_the_services_status_is_the_hubs(
    hub: RunningHub, service: FakeService, user: str, status: int
) -> None:
    service.refuse = lambda options: (status, "policy", "Not this.", {"cpu": "Too many.", "gpu": "Too few."})
    answer = await hub.ask(user)
    assert answer.status_code == status
    assert answer.json()["message"] == "Not this. Too many. Too few."


async def test_a_service_that_stays_away_ends_the_start_in_words(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    await service.stop()
    answer = await hub.ask(user)
    assert answer.status_code == 503
    assert answer.json()["message"] == "The platform's service does not answer."
    await service.start()
    assert await service.hears("withdraw") == {"user": user, "server": ""}


async def test_nonsense_from_the_service_ends_the_start_in_words(
    hub: RunningHub, service: FakeService, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "lease", lambda one: {"id": one.id})
    answer = await hub.ask(user)
    assert answer.status_code == 502
    assert answer.json()["message"] == "The platform's service sent an incomplete 'granted' event."
    assert await service.hears("withdraw") == {"user": user, "server": ""}


async def test_what_the_system_refuses_ends_the_start_in_words(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    answer = await hub.ask(user, "no-log")
    assert answer.status_code == 500
    assert (
        answer.json()["message"]
        == "The session cannot be launched (Not a directory): the hub's log says where."
    )
    assert (await service.hears("release"))["cause"] == "exited"


@pytest.mark.slow
async def test_a_taken_port_is_replaced(hub: RunningHub, service: FakeService, user: str) -> None:
    await hub.ask(user, "unlucky")
    await hub.ready(user, "unlucky", within_s=100)
    assert len(service.heard("started")) == 3
    assert len({call["handle"]["port"] for call in service.heard("started")}) == 3
    assert len({call["lease"] for call in service.heard("started")}) == 1
    url = (await hub.http.get(f"users/{user}")).json()["servers"]["unlucky"]["url"]
    assert (await hub.http.get(f"{hub.url}{url}api")).status_code == 200


@pytest.mark.slow
async def test_somebody_elses_server_on_our_port_is_not_taken_for_the_session(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    await hub.ask(user, "robbed")
    await hub.gone(user, "robbed", within_s=100)
    await hub.said("Spawn failed: The session's server ended while it was starting", user, "robbed")
    assert len(service.heard("started")) == 5
    assert service.heard("ready") == []
    lease_id = service.heard("started")[0]["lease"]
    assert fence.alive(lease_id) == []
    assert (await service.hears("release"))["lease"] == lease_id
