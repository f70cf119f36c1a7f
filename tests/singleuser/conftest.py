"""Fixtures for a session's own server: a stand-in for hub and service, and a real server in front of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.singleuser.servers import OURS, Server, environment, running, wait_for
from tests.singleuser.standin import LEASE, StandIn, session


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    service = StandIn()
    yield service
    service.close()


@pytest.fixture(scope="module")
def server(
    standin: StandIn, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Server]:
    home, logs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("log")
    with running(OURS, environment(standin, home, free_port()), home, logs / "server.log") as server:
        wait_for(lambda: len(standin.asked) == 1)  # for the receipt
        yield server


@pytest.fixture
def http(server: Server, standin: StandIn) -> Iterator[httpx.Client]:
    standin.mood = "well"
    standin.sessions = {LEASE: session()}
    standin.asked.clear()
    with server.client() as client:
        yield client


@pytest.fixture
def home(server: Server) -> Path:
    return server.home
