"""The command line on a whole site: real hub, proxy, service, sessions."""

import asyncio
import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_bkai.client import AsyncClient, Client, Workspace
from jupyterhub_bkai.names import run_folder
from tests.chain.site import Site
from tests.cli.conftest import BKAI, ROOT, Bkai, Environment, as_process
from tests.cli.relay import Relay

pytestmark = pytest.mark.hub

IMAGE = "python/3.11"
SMALL = ("--cpu", "0.1", "--memory", "256m")


@pytest.fixture
def token(site: Site) -> str:
    return site.token("carla")


@pytest.fixture
def variables(site: Site, token: str, tmp_path: Path) -> Environment:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BKAI_", "JUPYTERHUB_"))}
    here = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return clean | here | {"BKAI_URL": site.url, "BKAI_TOKEN": token}


@pytest.fixture
def bkai(variables: Environment) -> Bkai:
    return as_process(variables, seconds=180)


@pytest.fixture
def relay(site: Site) -> Iterator[Relay]:
    relay = Relay(site.port)
    yield relay
    relay.close()


def nothing_is_left(site: Site, token: str) -> bool:
    """No live session, no server in the hub, nothing booked; the session took its processes and files along.

    Homes are the machine's: what a site that was killed earlier left in one says nothing of this site.
    """
    servers = site.hub("GET", "/users/carla").json()["servers"]
    nodes = site.call(token, "GET", "/devices").json()["nodes"]
    booked = [device["booked_mib"] for node in nodes for device in node["devices"]]
    homes = [site.data / "homes" / "carla", Path("/home/bkai-carla")]
    ours = [one["id"] for one in site.call(token, "GET", "/sessions").json()["sessions"]]
    files = [one for home in homes for one in ours if (home / ".bkai-run" / one).exists()]
    return not (servers or any(booked) or files or site.sessions(token))


def begun(variables: Environment, project: Path) -> "subprocess.Popen[bytes]":
    """`bkai run` of a folder, on its way."""
    command = [*BKAI, "run", IMAGE, str(project), *SMALL]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_run_with_a_build_step(bkai: Bkai, site: Site, token: str, project: Path) -> None:
    """A package of the project's own, and the session as the books have it, seen from inside."""
    (project / "setup.py").write_text("from setuptools import setup; setup(name='told', py_modules=['told'])")
    (project / "told.py").write_text("from jupyterhub_bkai.client import current_session as now")
    (project / "main.py").write_text(
        "import sys\nfrom importlib.metadata import files\nimport told\n"
        "s = told.now(); print(s.state, s.image, s.fgpu, len(s.slices), bool(files('told'))); sys.exit(7)"
    )
    done = bkai("run", IMAGE, project, "--fgpu", "0.5", *SMALL)
    assert done.returncode == 7, done.stderr
    assert done.stdout == f"RUNNING {IMAGE} 1/2 1 True\n"
    assert "∙ Build finished" in done.stderr
    assert "booked, not enforced" in done.stderr
    site.until(lambda: nothing_is_left(site, token), 30, "nothing is left")
    listed = json.loads(bkai("session", "ls", "--json").stdout)["sessions"]
    told = [(one["state"], one["cause"], one["message"]) for one in listed[:1]]
    assert told == [("TERMINATED", "exited", "Its program ended by itself (exit code 7).")]


def test_run_over_a_network_that_breaks(
    variables: Environment, site: Site, token: str, project: Path, relay: Relay
) -> None:
    (project / "main.py").write_text(
        "import time\nfor n in range(400):\n    print(n, flush=True)\n    if n % 40 == 0: time.sleep(0.2)\n"
    )
    variables["BKAI_URL"] = f"http://127.0.0.1:{relay.port}"
    process = begun(variables, project)
    assert process.stdout
    first = process.stdout.readline()
    relay.open = False
    relay.cut()
    assert process.stderr
    while b"Trying again" not in process.stderr.readline():
        assert process.poll() is None
    relay.open = True
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (first + out).decode().split() == [str(n) for n in range(400)]
    assert b"Connected again" in err
    site.until(lambda: nothing_is_left(site, token), 30, "nothing is left")


def test_run_while_hub_and_service_are_killed(
    variables: Environment, site: Site, token: str, project: Path
) -> None:
    """The program neither stops nor is lost sight of."""
    (project / "main.py").write_text(
        "import time\nfor n in range(30):\n    print(n, flush=True); time.sleep(0.5)\n"
    )
    process = begun(variables, project)
    assert process.stdout
    assert process.stdout.readline() == b"0\n"
    site.kill("hub")
    site.kill("service")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.decode().split() == [str(n) for n in range(1, 30)]
    site.until(lambda: nothing_is_left(site, token), 60, "nothing is left")


def test_ctrl_c(variables: Environment, site: Site, token: str, project: Path) -> None:
    (project / "main.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    process = subprocess.Popen(
        [*BKAI, "run", IMAGE, str(project), "--fgpu", "1", *SMALL],
        env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    site.until(lambda: nothing_is_left(site, token), 30, "nothing is left")


async def _keep_alive(client: AsyncClient, id: str) -> None:
    while True:
        await client.keepalive(id)
        await asyncio.sleep(2)


async def test_a_laptop_that_is_gone(site: Site, token: str) -> None:
    """Nobody keeps the session alive: the service ends it, and what was uploaded goes with it."""
    async with AsyncClient(site.url, token) as client:
        (asked,) = await client.create(version=IMAGE, name="gone", cpu="0.1", memory="256m", keepalive_s=5)
        laptop = asyncio.create_task(_keep_alive(client, asked.id))
        session = await client.wait(asked.id)
        workspace = Workspace(client, session)
        await workspace.reach()
        await workspace.upload(f"{run_folder(session.id)}/data", io.BytesIO(b"x" * 1000))
        await workspace.run(["sleep", "600"], cwd=run_folder(session.id))
        laptop.cancel()
        last = [one async for one in client.events(session.id)][-1]
        assert last.state == "TERMINATED"
        assert last.cause
    site.until(lambda: nothing_is_left(site, token), 30, "nothing is left")


def test_three_sessions_on_two_fgpu(bkai: Bkai, site: Site, token: str) -> None:
    made = bkai(
        "session",
        "create",
        "--version",
        IMAGE,
        "--fgpu",
        "1",
        "--count",
        "3",
        "--name",
        "t",
        *SMALL,
        "--json",
    )
    assert [one["server"] for one in json.loads(made.stdout)["sessions"]] == ["t", "t-2", "t-3"], made.stderr
    with Client(site.url, token) as client:
        names = {one.server: one.id for one in client.sessions() if not one.over}
        for name in ("t", "t-2"):
            client.wait(names[name])
        listed = bkai("session", "ls").stdout
        assert [line.split()[0] for line in listed.splitlines()[1:4]] == ["t", "t-2", "t-3"]
        assert "waiting at position 1: It needs 1 fGPU" in listed
        assert listed.count("RUNNING") == 2
        assert "position" in bkai("session", "show", "t-3").stdout
        assert bkai("queue").stdout.count("carla") == 1
        assert bkai("session", "stop", "t").returncode == 0
        assert client.wait(names["t-3"]).state == "RUNNING"
    opened = bkai("session", "open", "t-3").stdout.strip()
    assert opened == f"{site.url}/user/carla/t-3/"
    assert "Jupyter Server" in bkai("session", "logs", "t-3").stdout
    assert bkai("session", "stop", "t-2", "t-3").returncode == 0
    site.until(lambda: nothing_is_left(site, token), 30, "nothing is left")
    assert "carla" in bkai("usage").stdout
    assert bkai("usage", "--by", "image", "--csv").stdout.splitlines()[1].startswith(IMAGE)


def test_refusals(bkai: Bkai, site: Site, token: str) -> None:
    wrong = bkai("session", "create", "--version", "python/3.12", "--fgpu", "nan", "--memory", "lots")
    assert wrong.returncode == 1
    assert wrong.stderr.count("bkai: ") == 3
    assert bkai("session", "create", "--fgpu", "0.55", "--check").returncode == 1
    assert bkai("queue", BKAI_TOKEN="0" * 32).returncode == 1
    assert nothing_is_left(site, token)


def test_a_token_that_may_do_less(bkai: Bkai, site: Site, token: str, project: Path) -> None:
    less = site.token("carla", scopes=["access:services!service=bkai", "read:users:name!user"])
    (project / "main.py").touch()
    done = bkai("run", IMAGE, project, *SMALL, BKAI_TOKEN=less)
    assert done.returncode == 1
    assert "The token may not enter your sessions" in done.stderr
    site.until(lambda: nothing_is_left(site, token), 30, "nothing is left")


def test_login_with_the_hubs_own_address(bkai: Bkai, site: Site, token: str) -> None:
    away = {"BKAI_URL": "", "BKAI_TOKEN": ""}
    done = bkai("login", f"{site.url}/hub/home", stdin=token, **away)
    assert done.stdout == f"Logged in to {site.url} as carla.\n"
    assert IMAGE in bkai("images", **away).stdout


def test_a_smaller_one_starts_at_once(bkai: Bkai, site: Site, token: str) -> None:
    """The card is half taken; a whole one waits, and half of one is offered, by its number and by a flag."""
    ask = ("session", "create", "--version", IMAGE, *SMALL)
    assert bkai(*ask, "--fgpu", "1.5", "--name", "hog").returncode == 0
    assert bkai(*ask, "--fgpu", "2", "--name", "whole").returncode == 0
    shown = bkai("session", "offers", "whole")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("1. "), shown.stdout
    assert "0.5 fGPU" in shown.stdout
    wrong = bkai("session", "offers", "whole", "--take", "9")
    assert "There is no change number 9" in wrong.stderr
    taken = bkai("session", "offers", "whole", "--take", "1")
    assert taken.returncode == 0, taken.stderr
    assert "does not wait" in bkai("session", "offers", "whole").stdout
    assert bkai("session", "stop", "whole").returncode == 0
    site.until(lambda: "whole" not in site.states(token), 60, "it has ended")
    made = bkai(*ask, "--fgpu", "1", "--name", "flag", "--smaller")
    assert made.returncode == 0, made.stderr
    assert "0.5 fGPU" in made.stderr
    site.until(lambda: site.states(token).get("flag") == "RUNNING", 60, "it runs")
    assert bkai("session", "stop", "hog", "flag").returncode == 0
    site.until(lambda: nothing_is_left(site, token), 30, "nothing is left")
