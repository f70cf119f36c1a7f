"""The hub is killed at any moment: no session is lost, none lives that the next hub does not know."""

import asyncio
import os
import random
import signal
from typing import Any

import httpx
import pytest

from jupyterhub_bkai.fences.process import ProcessFence, process_identity
from tests.spawner.fake_service import FakeService
from tests.spawner.hubs import RunningHub, until

pytestmark = [pytest.mark.hub, pytest.mark.asyncio(loop_scope="module")]


async def known(hub: RunningHub, user: str) -> dict[str, Any]:
    """The state the Hub has saved of the user's server; empty when it thinks there is none."""
    found = (await hub.http.get(f"users/{user}")).json()["servers"].get("")
    return (found or {}).get("state") or {}


def token_of(pid: int) -> str:
    with open(f"/proc/{pid}/environ", "rb") as file:
        pairs = dict(pair.split(b"=", 1) for pair in file.read().split(b"\0") if pair)
    return pairs[b"JUPYTERHUB_API_TOKEN"].decode()


async def accepted(hub: RunningHub, token: str) -> bool:
    answer = await hub.http.get("user", headers={"Authorization": f"token {token}"})
    return answer.status_code == 200


async def test_a_running_session_is_adopted_and_its_token_revoked_when_it_stops(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    await hub.ask(user)
    await hub.ready(user)
    await service.hears("ready")
    lease_id = service.lease_of(user)
    before = fence.alive(lease_id)
    keeper = hub.pid(lease_id)
    token = next(token_of(pid) for pid in before if pid != keeper)
    assert await accepted(hub, token)

    hub.kill()
    ours = {keeper, min(set(before) - {keeper})}
    assert ours <= set(fence.alive(lease_id))
    async with httpx.AsyncClient(trust_env=False) as browser:
        assert (await browser.get(f"{hub.url}/user/{user}/api")).status_code == 200
    await hub.start()
    await hub.ready(user)
    assert ours <= set(fence.alive(lease_id))
    state = await known(hub, user)
    assert state["process"]["pid"] == keeper
    assert state["bkai"]["lease"] == lease_id
    # The service may have missed what the former hub had to say.
    again = await service.hears("ready", times=2)
    assert again["lease"] == lease_id
    assert service.heard("started")[0] == service.heard("started")[1]

    await hub.drop(user)
    await hub.gone(user)
    assert fence.alive(lease_id) == []
    assert not await accepted(hub, token)
    assert (await service.hears("release"))["cause"] == "stopped"


async def test_an_adopted_session_that_dies_is_noticed(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    await hub.ask(user)
    await hub.ready(user)
    lease_id = service.lease_of(user)
    hub.kill()
    await hub.start()
    await hub.ready(user)
    os.kill(hub.pid(lease_id), signal.SIGKILL)
    await hub.gone(user, within_s=3)
    released = await service.hears("release")
    assert (released["lease"], released["cause"]) == (lease_id, "exited")


async def test_a_hung_session_holds_up_nobody_when_the_hub_comes_back(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    """One session does not answer: another gets its route at once, and its own end is noticed at once."""
    for server in ("hung", "late"):
        await hub.ask(user, server)
        await hub.ready(user, server)
    hub.kill()
    servers = {}
    for server in ("hung", "late"):
        lease_id = service.lease_of(user, server)
        servers[server] = min(set(fence.alive(lease_id)) - {hub.pid(lease_id)})
        os.kill(servers[server], signal.SIGSTOP)
    await hub.forget_route(f"/user/{user}/late")
    await hub.start()
    assert (await hub.server(user, "late") or {})["pending"] == "check"
    os.kill(servers["late"], signal.SIGCONT)
    await hub.ready(user, "late")
    async with httpx.AsyncClient(trust_env=False) as browser:
        for _ in range(100):
            if (await browser.get(f"{hub.url}/user/{user}/late/api")).status_code == 200:
                break
            await asyncio.sleep(0.05)
        assert (await browser.get(f"{hub.url}/user/{user}/late/api")).status_code == 200
    assert (await hub.server(user, "hung") or {})["pending"] == "check"
    os.kill(hub.pid(service.lease_of(user, "hung")), signal.SIGKILL)
    await hub.gone(user, "hung", within_s=8)  # the Hub's own patience with a silent server is 30 s


async def test_a_session_that_died_meanwhile_is_given_back(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    await hub.ask(user)
    await hub.ready(user)
    lease_id = service.lease_of(user)
    hub.kill()
    os.kill(hub.pid(lease_id), signal.SIGKILL)
    await hub.start()
    await hub.gone(user)
    released = await service.hears("release")
    assert (released["lease"], released["cause"]) == (lease_id, "exited")


async def test_a_hub_that_ends_in_order_withdraws_nothing(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    service.capacity = 0
    await hub.ask(user)
    await hub.said("Number 1.", user)
    hub.kill(signal.SIGTERM)
    await until(lambda: all(one.viewers == 0 for one in service.live))
    assert service.find(user, "")
    assert service.heard("withdraw") == service.heard("release") == []
    await hub.start()
    assert await hub.server(user) is None
    # As the service does when it finds its request unattended: no body, whoever asks.
    service.capacity = 1
    await hub.ask(user)
    await hub.ready(user)
    assert len(service.heard("acquire")) == 2


@pytest.mark.slow
async def test_a_hub_killed_during_a_start_leaves_no_process_it_does_not_know(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    """At the very moment of the launch, and at others from before it to after the session answers."""
    moments = [0.0, 0.0, 0.0, 0.0, random.uniform(0, 0.1), random.uniform(0.1, 1), random.uniform(1, 3)]
    adopted = 0
    for moment in moments:
        asking = asyncio.create_task(hub.ask(user))
        await service.hears("acquire", times=len(service.heard("acquire")) + 1)
        lease_id = service.lease_of(user)
        if moment == 0:  # as soon as there is anything
            await asyncio.to_thread(wait_for_any, fence, lease_id)
        await asyncio.sleep(moment)
        hub.kill()
        await asyncio.gather(asking, return_exceptions=True)
        # A keeper that nobody knows sees its gate closed and goes; one that is saved goes on.
        await asyncio.sleep(0.5)
        alive = fence.alive(lease_id)
        await hub.start()
        state = await known(hub, user)
        if alive:
            assert state["process"]["pid"] in alive, (moment, alive, hub.log())
            await hub.ready(user)
            adopted += 1
        else:
            await hub.gone(user)
        await hub.clear(user)
        await until(lambda lease_id=lease_id: not fence.alive(lease_id))  # type: ignore[misc]
        wanted = service.find(user, "")
        if wanted:
            await service.end(wanted)
    print(f"adopted {adopted} of {len(moments)}")
    assert adopted


def wait_for_any(fence: ProcessFence, lease_id: str) -> None:
    while not fence.alive(lease_id):
        pass


async def test_a_pid_used_again_is_not_mistaken_for_a_session(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    """The saved pid now belongs to another process, as after a reboot: not adopted, and not touched."""
    await hub.ask(user)
    await hub.ready(user)
    lease_id = service.lease_of(user)
    hub.kill()
    os.kill(hub.pid(lease_id), signal.SIGKILL)
    bystander = await asyncio.create_subprocess_exec("sleep", "300")
    hub.edit_state(user, lambda state: state["process"].update(pid=bystander.pid))
    await hub.start()
    await hub.gone(user)
    assert process_identity(bystander.pid)
    bystander.kill()
    await bystander.wait()
