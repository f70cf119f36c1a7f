"""Fixtures for the command line: a fake service over real HTTP, `bkai` as a process, and a real session to run in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyterhub_bkai.client import FakeService
from tests.cli.relay import Relay
from tests.singleuser.servers import OURS, Server, environment, running
from tests.singleuser.standin import USER, USER_TOKEN, StandIn

ROOT = Path(__file__).resolve().parents[2]
#: what the `bkai` of an installed distribution does
BKAI = (sys.executable, "-c", "from jupyterhub_bkai.cli import main; main()")

Environment = dict[str, str]
Bkai = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def service() -> Iterator[FakeService]:
    with FakeService(gpus=2) as service:
        yield service


@pytest.fixture
def variables(service: FakeService, tmp_path: Path) -> Environment:
    """The environment of somebody who is logged in to the fake service."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BKAI_", "JUPYTERHUB_", "NO_COLOR"))}
    return clean | {
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "BKAI_URL": service.url,
        "BKAI_TOKEN": service.token,
    }


def as_process(variables: Environment, seconds: float = 60) -> Bkai:
    """Runs `bkai …` to its end, as a process."""

    def run(*arguments: object, stdin: str = "", **changes: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*BKAI, *map(str, arguments)],
            env=variables | changes,
            input=stdin,
            text=True,
            capture_output=True,
            timeout=seconds,
        )

    return run


@pytest.fixture
def bkai(variables: Environment) -> Bkai:
    """`bkai …` as a process."""
    return as_process(variables)


@pytest.fixture(scope="session")
def session_server(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Server]:
    """A real single-user server with our extension, in front of a stand-in for the hub."""
    home, logs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("log")
    hub = StandIn()
    try:
        with running(OURS, environment(hub, home, free_port()), home, logs / "server.log") as server:
            yield server
    finally:
        hub.close()


@pytest.fixture
def relay(session_server: Server) -> Iterator[Relay]:
    """The network between the command line and the session."""
    relay = Relay(int(session_server.url.split(":")[2].split("/")[0]))
    yield relay
    relay.close()


@pytest.fixture
def runnable(
    service: FakeService, relay: Relay, session_server: Server, variables: Environment
) -> Iterator[FakeService]:
    """The fake service, whose sessions are the real server, reached through the relay."""
    service.user, service.token = USER, USER_TOKEN
    service.session_url = f"http://127.0.0.1:{relay.port}/user/{USER}/trial/"
    variables["BKAI_TOKEN"] = USER_TOKEN
    yield service
    shutil.rmtree(session_server.home / ".bkai-run", ignore_errors=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty folder to run."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder
