"""As root every Hub user's sessions run as a Linux account of their own, which nobody else can look into."""

import asyncio
import os
import pwd
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from jupyterhub_bkai.fences import proctable
from jupyterhub_bkai.fences.process import ProcessFence
from tests.spawner.fake_service import FakeService
from tests.spawner.hubs import RunningHub

pytestmark = [
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give sessions accounts of their own"),
]

PREFIX = "bkait"
NOBODY = ["runuser", "-u", "nobody", "--"]
HUB = {
    "config": f"""
c.TreeSpawner.real_accounts = True
c.TreeSpawner.account_template = "{PREFIX}-{{user}}"
c.Spawner.args = []
"""
}


@pytest.fixture(scope="module")
def python(place: Path) -> Path:
    """An interpreter with our packages that any account may run; the checkout's own may be in root's home."""
    check = ["-c", "import jupyterlab, jupyterhub"]
    candidates = [Path(sys.executable)]
    if Path("/usr/bin/python3").exists():
        made = place / "env"
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", made], check=True)
        [packages] = made.glob("lib/python*/site-packages")
        (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        candidates.append(made / "bin" / "python")
    for candidate in candidates:
        if subprocess.run([*NOBODY, candidate, *check], capture_output=True, cwd="/").returncode == 0:
            return candidate
    pytest.skip("no Python with JupyterLab here that another account may run")


@pytest.fixture(scope="module", autouse=True)
def _no_accounts_left() -> Iterator[None]:
    yield
    for entry in pwd.getpwall():
        if entry.pw_name.startswith(f"{PREFIX}-"):
            subprocess.run(["userdel", "--remove", entry.pw_name], check=True, capture_output=True)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _accessible(service: FakeService, python: Path) -> AsyncIterator[None]:
    service.python, service.env = str(python), str(python.parent.parent)
    yield


def as_account(name: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as an account, as its sessions would."""
    return subprocess.run(["runuser", "-u", name, "--", *command], capture_output=True, text=True, cwd="/")


async def test_a_session_runs_as_its_users_account(
    hub: RunningHub, service: FakeService, user: str, fence: ProcessFence
) -> None:
    await asyncio.gather(hub.ask(user, "one"), hub.ask(user, "two"))  # one account, made once
    await hub.ready(user, "one")
    await hub.ready(user, "two")
    entry = pwd.getpwnam(f"{PREFIX}-{user}")
    assert entry.pw_uid >= 1000
    assert os.stat(entry.pw_dir).st_mode & 0o777 == 0o700
    lease_id = service.lease_of(user, "one")
    keeper = hub.pid(lease_id)
    family = set(fence.alive(lease_id)) - {keeper}
    assert family
    for pid in family:
        status = dict(
            line.split(":\t", 1) for line in proctable.read(f"/proc/{pid}/status").decode().splitlines()
        )
        assert status["Uid"].split() == status["Gid"].split() == [str(entry.pw_uid)] * 4
        assert status["CapEff"].strip("0") == ""
        assert int(status["Groups"].split()[0]) == entry.pw_gid
        assert f"bkai/{lease_id}" in proctable.read(f"/proc/{pid}/cgroup").decode()
    environment = proctable.read(f"/proc/{min(family)}/environ").split(b"\0")
    assert f"HOME={entry.pw_dir}".encode() in environment
    assert f"USER={entry.pw_name}".encode() in environment
    # It can neither end its keeper nor read the hub's files.
    assert as_account(entry.pw_name, "kill", "-9", str(keeper)).returncode != 0
    for path in (hub.folder / "hub.sqlite", hub.folder / "hub.sock", hub.folder / "log" / f"{lease_id}.log"):
        assert as_account(entry.pw_name, "test", "-w", str(path)).returncode != 0
    for name in ("one", "two"):
        await hub.drop(user, name)
        await hub.gone(user, name)
    assert fence.alive(lease_id) == []
    assert fence.groups is None or fence.groups.pids(lease_id) == []


async def test_users_cannot_look_into_each_other(hub: RunningHub, service: FakeService, user: str) -> None:
    other = f"{user}-other"
    await hub.add(other)
    for name in (user, other):
        await hub.ask(name)
        await hub.ready(name)
    lease_id = service.lease_of(other)
    theirs = pwd.getpwnam(f"{PREFIX}-{other}")
    [server] = [pid for pid, facts in proctable.table().items() if facts.parent == hub.pid(lease_id)]
    us = f"{PREFIX}-{user}"
    for path in (theirs.pw_dir, f"/run/bkai/{lease_id}"):
        assert as_account(us, "ls", path).returncode != 0
    assert as_account(us, "cat", f"/proc/{server}/environ").returncode != 0
    assert as_account(us, "kill", str(server)).returncode != 0
    assert as_account(us, "ls", "/run/bkai").returncode != 0
    await hub.clear(other)


async def test_a_name_with_anything_in_it_gets_an_account(
    hub: RunningHub, service: FakeService, user: str
) -> None:
    name = f"$(id) {user}@ü;-rf"  # the Hub itself allows all but a slash
    answer = await hub.http.post("users", json={"usernames": [name]})
    assert answer.status_code == 201
    path = f"users/{quote(name, safe='')}"
    await hub.http.post(f"{path}/server")
    async with asyncio.timeout(40):
        while not (await hub.http.get(path)).json()["servers"].get("", {}).get("ready"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    made = [entry for entry in pwd.getpwall() if entry.pw_name.startswith(f"{PREFIX}-id-{user}")]
    assert len(made) == 1
    assert made[0].pw_dir == f"/home/{made[0].pw_name}"
    await hub.http.delete(f"{path}/server")


async def test_an_environment_that_accounts_may_not_reach_is_named_as_the_reason(
    hub: RunningHub, service: FakeService, user: str, python: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(python)
    service.python = str(closed / "python")
    await hub.ask(user)
    await hub.said("may not run this image version's Python", user)


async def test_accounts_of_the_system_are_refused(hub: RunningHub, service: FakeService) -> None:
    hub.kill()
    config = hub.folder / "config.py"
    before = config.read_text()
    config.write_text(before + 'c.TreeSpawner.account_template = "{user}"\n')
    try:
        await hub.start()
        await hub.add("daemon")
        await hub.ask("daemon")
        await hub.said("one of the system's own", "daemon")
        await hub.gone("daemon")
        assert service.heard("started") == []
    finally:
        hub.kill()
        config.write_text(before)
        await hub.start()
