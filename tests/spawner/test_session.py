"""From a wish to a running session and back, with a real hub: what is asked, told, given and taken."""

import asyncio
import contextlib
import json
import os
import re
import signal
import stat
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupyterhub_bkai.fences import proctable
from jupyterhub_bkai.fences.process import ProcessFence, process_identity
from tests.spawner.fake_service import FakeService
from tests.spawner.hubs import RunningHub, until

pytestmark = [pytest.mark.hub, pytest.mark.asyncio(loop_scope="module")]

HUB = {
    "config": 'c.Spawner.environment = {**c.Spawner.environment, "OF_THE_ADMINISTRATOR": "1", "LATE": "low"}\n'
}


def environment(pid: int) -> dict[str, str]:
    parts = proctable.read(f"/proc/{pid}/environ").decode().split("\0")
    return dict(part.split("=", 1) for part in parts if part)


def server_of(keeper: int) -> int:
    """The session's server: the keeper's only child."""
    [child] = [pid for pid, facts in proctable.table().items() if facts.parent == keeper]
    return child


async def running(hub: RunningHub, service: FakeService, user: str, server: str = "") -> tuple[str, int]:
    """A session of the user; its lease and the pid of its keeper."""
    await hub.ask(user, server)
    await hub.ready(user, server)
    lease_id = service.lease_of(user, server)
    return lease_id, hub.pid(lease_id)


async def test_a_grant_starts_a_session_and_a_stop_gives_it_back(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    answer = await hub.ask(user, "first", {"version": "plain/1", "cpu": "0.5"})
    assert answer.status_code == 202
    await hub.ready(user, "first")
    [asked] = service.heard("acquire")
    options = {"version": "plain/1", "cpu": "0.5"}
    assert asked == {"user": user, "server": "first", "groups": [], "admin": False, "options": options}
    started = await service.hears("started")
    lease_id, keeper = started["lease"], hub.pid(started["lease"])
    identity = process_identity(keeper)
    assert identity
    url = httpx.URL(
        (await hub.http.get(f"users/{user}?include_stopped_servers")).json()["servers"]["first"]["url"]
    )
    assert started["handle"] == {"kind": "process", **identity._asdict(), "port": started["handle"]["port"]}
    assert (await service.hears("ready"))["lease"] == lease_id
    through_proxy = await hub.http.get(f"{hub.url}{url.path}api")
    assert through_proxy.json()["version"]
    assert keeper in fence.alive(lease_id)

    assert (await hub.drop(user, "first")).status_code in (202, 204)
    await hub.gone(user, "first")
    assert await service.hears("release") == {"lease": lease_id, "cause": "stopped", "exit_code": 0}
    assert fence.alive(lease_id) == []
    assert [call for call, _ in service.calls] == ["acquire", "started", "ready", "release"]


async def test_the_environment_is_the_users_then_the_hubs_then_ours(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    service.environment = {
        "MINE": "1",
        "LATE": "lowest",
        "JUPYTERHUB_API_TOKEN": "forged",
        "LANG": "ko_KR.UTF-8",
    }
    service.variables = {"LATE": "last", "BKAI_SLICES": "[]"}
    lease_id, keeper = await running(hub, service, user)
    found = environment(server_of(keeper))
    assert found["MINE"] == found["OF_THE_ADMINISTRATOR"] == "1"
    assert found["LATE"] == "last"
    assert found["LANG"] == "ko_KR.UTF-8"
    assert found["BKAI_LEASE_ID"] == lease_id
    assert found["JUPYTERHUB_API_TOKEN"] not in ("forged", "", hub.token)
    assert found["HOME"] == str(hub.folder / "homes" / user)
    assert found["PATH"].split(":")[0] == f"{service.env}/bin"
    # Of the hub's own environment there is nothing else.
    expected = r"JUPYTERHUB_\w+|JPY_API_TOKEN|BKAI_\w+|HOME|USER|LOGNAME|SHELL|PATH|JUPYTER_RUNTIME_DIR|LANG|LC_ALL|TZ"
    ours = {"MINE", "LATE", "OF_THE_ADMINISTRATOR", "PYTHONPATH"}
    assert {name for name in found if not re.fullmatch(expected, name)} == ours
    for pid in proctable.descendants(proctable.table(), {keeper}):
        assert hub.token.encode() not in proctable.read(f"/proc/{pid}/environ")
        assert found["JUPYTERHUB_API_TOKEN"].encode() not in proctable.read(f"/proc/{pid}/cmdline")


async def test_home_log_and_sockets_are_closed_to_others(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    lease_id, keeper = await running(hub, service, user)
    server = server_of(keeper)
    home = hub.folder / "homes" / user
    assert os.readlink(f"/proc/{server}/cwd") == str(home)
    runtime = Path(environment(server)["JUPYTER_RUNTIME_DIR"])
    for folder in (home, runtime):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    log = hub.folder / "log" / f"{lease_id}.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "is running at" in log.read_text()
    assert os.readlink(f"/proc/{server}/fd/0") == "/dev/null"
    assert proctable.read(f"/proc/{server}/oom_score_adj").strip() == b"300"
    open_files = {os.readlink(f"/proc/{server}/fd/{fd}") for fd in os.listdir(f"/proc/{server}/fd")}
    assert not [name for name in open_files if "sqlite" in name or "memfd:session" in name]
    await hub.drop(user)
    await hub.gone(user)
    assert await asyncio.to_thread(fence.end, lease_id, 0)  # as the service does
    assert not runtime.exists()


async def test_a_runtime_folder_without_bottom_holds_up_nobody(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    """The session may write there what it likes: ending one must neither fail nor block the hub."""
    lease_id, keeper = await running(hub, service, user)
    here = os.open(environment(server_of(keeper))["JUPYTER_RUNTIME_DIR"], os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    await hub.drop(user)
    await hub.gone(user)
    assert (await service.hears("release"))["cause"] == "stopped"
    await hub.ask(user)
    await hub.ready(user)
    assert await asyncio.to_thread(fence.end, lease_id, 0)


async def test_a_kernel_runs_and_no_other_user_can_listen_to_it(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    _, keeper = await running(hub, service, user)
    base = f"{hub.url}/user/{user}"
    answer = await hub.http.post(f"{base}/api/kernels", json={"name": "python3"})
    assert answer.status_code == 201, answer.text
    kernel = answer.json()["id"]
    said = await run_cell(hub, f"{base}/api/kernels/{kernel}/channels", "print(6 * 7)")
    assert said == "42\n"
    family = proctable.descendants(proctable.table(), {keeper})
    assert len(family) >= 3
    # The server's own, and the one on which ipykernel only *takes* what forks print (with a secret).
    assert len(sockets_of(family) & tcp_listeners()) == 2
    folder = Path(environment(server_of(keeper))["JUPYTER_RUNTIME_DIR"])
    [connection] = folder.glob(f"kernel-{kernel}.json")
    assert json.loads(connection.read_text())["transport"] == "ipc"
    assert sum(stat.S_ISSOCK(file.stat().st_mode) for file in folder.iterdir()) == 5


async def run_cell(hub: RunningHub, channels: str, code: str) -> str:
    """The output of one cell, over the kernel's websocket."""
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    request = HTTPRequest(channels.replace("http", "ws", 1), headers={"Authorization": f"token {hub.token}"})
    socket = await websocket_connect(request)
    content = {"code": code, "silent": False}
    header = {"msg_id": "1", "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
    await socket.write_message(
        json.dumps(
            {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        )
    )
    async with asyncio.timeout(30):
        while True:
            message = json.loads(await socket.read_message() or "{}")
            if message["msg_type"] == "stream":
                socket.close()
                text: str = message["content"]["text"]
                return text


def sockets_of(pids: set[int]) -> set[str]:
    found = set()
    for pid in pids:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed since
                name = os.readlink(f"/proc/{pid}/fd/{fd}")
                if name.startswith("socket:["):
                    found.add(name[8:-1])
    return found


def tcp_listeners() -> set[str]:
    rows = [
        line.split()
        for file in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{file}").read_text().splitlines()
    ]
    return {row[9] for row in rows if row[3] == "0A"}


async def test_shared_folders_stand_in_the_home_folder(
    hub: RunningHub, service: FakeService, user: str, tmp_path: Path
) -> None:
    (tmp_path / "readme").write_text("hello")
    mine = hub.folder / "homes" / user / "mine"
    mine.mkdir(parents=True)
    service.folders = [
        {"name": name, "path": str(tmp_path), "mode": "rw"} for name in ("data", "mine", "../escaped", "..")
    ]
    await running(hub, service, user)
    home = hub.folder / "homes" / user
    assert (home / "data" / "readme").read_text() == "hello"
    assert mine.is_dir()
    assert not mine.is_symlink()
    assert not (home.parent / "escaped").exists()


async def test_two_wait_and_the_first_of_them_goes_on(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    service.capacity = 1
    await running(hub, service, user, "one")
    await hub.ask(user, "two")
    await hub.said("Number 1.", user, "two")
    await hub.ask(user, "three")
    await hub.said("Number 2. 1 of 1 sessions are running.", user, "three")
    await hub.drop(user, "one")
    await hub.ready(user, "two")
    await hub.said("Number 1.", user, "three")
    assert [asked["server"] for asked in service.heard("acquire")] == ["one", "two", "three"]


async def test_each_viewer_hears_the_whole_story_once(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    service.capacity = 0
    service.pulling = [(None, "Looking."), (40, "Installing."), (90, "Verifying.")]
    await hub.ask(user)
    first = asyncio.create_task(hub.said("Server ready", user))
    await hub.said("Number 1.", user)
    service.capacity = 1
    await service.tell_all()
    told = [event["message"] for event in await first]
    assert told == [
        "Server requested",
        "Number 1. 0 of 0 sessions are running.",
        "You have your slice.",
        "Looking.",
        "Installing.",
        "Verifying.",
        "Starting plain/1.",
        "The session answers.",
        told[-1],
    ]
    percents = [event["progress"] for event in await first]
    assert percents == sorted(percents)


async def test_a_position_that_is_over_is_not_told_again(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    service.capacity = 0
    for name in ("one", "two"):
        await hub.ask(user, name)
        await hub.said("Number", user, name)
    await hub.drop(user, "one")
    await hub.said("Number 1.", user, "two")
    told = [event["message"] for event in await hub.said("Number", user, "two")]
    assert told == ["Server requested", "Number 1. 0 of 0 sessions are running."]


async def test_a_refusal_reaches_the_progress_stream_and_the_page(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    sentence = "2 fGPU are more than the 1 fGPU that a session may have here."
    service.refuse = lambda options: (403, "policy", "Not like this.", {"fgpu": sentence})
    await hub.ask(user, "", {"fgpu": "2"})
    [*_, last] = await hub.said("Spawn failed", user)
    assert last["failed"]
    assert sentence in last["message"]
    page = await hub.page(user, f"/hub/spawn-pending/{user}")
    assert sentence in page.text
    await hub.gone(user)
    assert service.heard("withdraw") == service.heard("release") == []
    # After a refusal one can simply ask again.
    service.refuse = lambda options: None
    await hub.ask(user, "", {"fgpu": "1"})
    await hub.ready(user)


async def test_a_request_that_is_cancelled_elsewhere_does_not_start(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    service.capacity = 0
    await hub.ask(user)
    await hub.said("Number 1.", user)
    wanted = service.find(user, "")
    assert wanted
    await service.end(wanted)
    await hub.said("Spawn failed: The request was cancelled.", user)
    await hub.gone(user)


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_waiting_start_is_cancelled_at_once_and_withdrawn(
    hub: RunningHub, service: FakeService, user: str, deaf: bool
) -> None:
    service.capacity = 0
    await hub.ask(user)
    await hub.said("Number 1.", user)
    service.deaf = deaf  # a service that hangs must not hold up the hub either
    begun = time.monotonic()
    answer = await hub.drop(user)
    assert answer.status_code in (202, 204), answer.text
    await hub.gone(user)
    # The Hub itself sleeps for one second here.
    assert time.monotonic() - begun < 8
    service.deaf = False
    assert await service.hears("withdraw") == {"user": user, "server": ""}
    assert service.find(user, "") is None


async def test_a_start_cancelled_while_it_boots_leaves_nothing(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    await hub.ask(user)
    lease_id = (await service.hears("started"))["lease"]
    assert fence.alive(lease_id)
    assert (await hub.drop(user)).status_code in (202, 204)
    await hub.gone(user)
    await service.hears("withdraw")
    assert fence.alive(lease_id) == []
    assert service.find(user, "") is None


async def test_withdrawing_never_hits_the_next_request(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    """What is still owed about a former start is heard before the next one asks."""
    service.capacity = 0
    await hub.ask(user)
    await hub.said("Number 1.", user)
    await service.stop()
    await hub.drop(user)
    await hub.gone(user)
    await hub.ask(user)
    await hub.said("does not answer", user)
    await service.start()
    service.capacity = 10
    await hub.ready(user)
    assert [call for call, _ in service.calls] == ["acquire", "withdraw", "acquire", "started", "ready"]


async def test_a_start_waits_for_a_service_that_is_away(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    await service.stop()
    assert (await hub.ask(user)).status_code == 202
    await hub.said("The platform's service does not answer at the moment", user)
    await service.start()
    await hub.ready(user)
    assert len(service.heard("acquire")) == 1


async def test_a_broken_stream_is_taken_up_again(hub: RunningHub, service: FakeService, user: str) -> None:
    service.capacity = 0
    await hub.ask(user)
    await hub.said("Number 1.", user)
    request = service.lease_of(user)
    await service.stop()
    await hub.said("does not answer", user)
    await service.start()
    await hub.said("Number 1.", user)
    assert service.lease_of(user) == request
    service.capacity = 1
    await service.tell_all()
    await hub.ready(user)
    assert service.lease_of(user) == request


async def test_a_stop_does_not_wait_for_a_service_that_is_away(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    lease_id, _ = await running(hub, service, user)
    await service.stop()
    begun = time.monotonic()
    await hub.drop(user)
    await hub.gone(user)
    assert time.monotonic() - begun < 15
    assert fence.alive(lease_id) == []
    await asyncio.sleep(0.5)
    await service.start()
    assert (await service.hears("release"))["lease"] == lease_id


async def test_what_a_session_left_running_ends_with_it(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    lease_id, _ = await running(hub, service, user)
    base = f"{hub.url}/user/{user}"
    kernel = (await hub.http.post(f"{base}/api/kernels", json={"name": "python3"})).json()["id"]
    code = (
        "import subprocess; [subprocess.Popen(c, shell=True) for c in ("
        "'nohup sleep 301 >/dev/null 2>&1 &', 'setsid sleep 302 &', 'env -i setsid setsid sleep 303 &',"
        """ 'trap "" TERM INT HUP; sleep 304')]; print("up")"""
    )
    assert await run_cell(hub, f"{base}/api/kernels/{kernel}/channels", code) == "up\n"
    await until(lambda: len(sleepers(fence.alive(lease_id))) == 4)
    alive = fence.alive(lease_id)
    begun = time.monotonic()
    await hub.drop(user)
    await hub.gone(user)
    assert time.monotonic() - begun < 30
    assert not [pid for pid in alive if process_identity(pid)]


def sleepers(pids: list[int]) -> set[str]:
    lines = [proctable.read(f"/proc/{pid}/cmdline").split(b"\0") for pid in pids]
    return {line[1].decode() for line in lines if line[0] == b"sleep"}


@pytest.mark.parametrize("victim", ["server", "keeper"])
async def test_a_session_that_dies_is_noticed_at_once(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence, victim: str
) -> None:
    lease_id, keeper = await running(hub, service, user)
    await service.hears("ready")
    os.kill(server_of(keeper) if victim == "server" else keeper, signal.SIGKILL)
    begun = time.monotonic()
    await hub.gone(user)
    assert time.monotonic() - begun < 10
    code = 128 + signal.SIGKILL if victim == "server" else -signal.SIGKILL
    assert await service.hears("release") == {"lease": lease_id, "cause": "exited", "exit_code": code}
    await until(lambda: not fence.alive(lease_id))


async def test_a_server_that_cannot_start_says_so(hub: RunningHub, service: FakeService, user: str) -> None:
    service.environment = {"PYTHONHOME": "/nowhere"}
    await hub.ask(user)
    await hub.said("The session's server ended while it was starting (exit code 1); its log says why.", user)
    await hub.gone(user)
    assert (await service.hears("release"))["cause"] == "exited"


async def test_an_interpreter_that_is_gone_is_named_as_the_reason(
    hub: RunningHub, service: FakeService, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "python", "/nowhere/bin/python")
    await hub.ask(user)
    await hub.said("The image version's Python is not there any more", user)
    await hub.gone(user)


@pytest.mark.parametrize("options", [{"cpu": float("nan")}, {"a": {"b": [1, None, "ü"]}}, {}])
async def test_options_go_to_the_service_as_they_are(
    hub: RunningHub, service: FakeService, user: str, options: dict[str, Any]
) -> None:
    service.capacity = 0
    await hub.http.post(
        hub.path(user, ""),
        content=json.dumps({"user_options": options}),
        headers={"Content-Type": "application/json"},
    )
    await hub.said("Number 1.", user)
    [asked] = service.heard("acquire")
    assert asked["options"] == ({"cpu": "NaN"} if "cpu" in options else options)


@pytest.mark.parametrize("query", ["opt-cpu=2&opt-environment=A%3D1", "cpu=2", "opt-accelerator=none"])
async def test_a_link_starts_nothing(hub: RunningHub, service: FakeService, user: str, query: str) -> None:
    """A link on any site, followed by somebody who is logged in: the form is shown, whose button has a token."""
    for server in ("", "/linked"):
        page = await hub.page(user, f"/hub/spawn/{user}{server}?{query}")
        assert page.status_code == 200
        assert page.url.path == f"/hub/spawn/{user}{server}"
        assert "Nothing has been started" in page.text
    assert (await hub.http.get(f"users/{user}")).json()["servers"] == {}
    assert service.heard("acquire") == []


async def test_the_story_ends_when_its_reader_does(hub: RunningHub, service: FakeService, user: str) -> None:
    service.capacity = 0
    await hub.ask(user)
    async with aclosing(hub.progress(user)) as events:  # type: ignore[type-var]  # a generator it is
        async for event in events:
            if "Number 1." in event["message"]:
                break
    await hub.said("Number 1.", user)
