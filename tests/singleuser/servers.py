"""Starts real single-user servers, ours and the stock one, as a spawner would."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.singleuser.standin import LEASE, SERVER_TOKEN, USER, USER_TOKEN, StandIn

ROOT = Path(__file__).resolve().parents[2]
OURS, STOCK = "jupyterhub_bkai.singleuser", "jupyterhub.singleuser"
BASE = f"/user/{USER}/trial/"
SLICES = '[{"device": "fake-0", "index": 0, "slot": "cuda", "share": "1/4", "memory_mib": 36096}]'


@dataclass(frozen=True)
class Server:
    """A running single-user server."""

    url: str
    home: Path
    log: Path
    process: "subprocess.Popen[bytes]"
    seconds: float

    def client(self, token: str = USER_TOKEN) -> httpx.Client:
        """Asks with a person's token."""
        headers = {"Authorization": f"token {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20)


def environment(standin: StandIn, home: Path, port: int, *, inside: bool = True) -> dict[str, str]:
    """What a spawner gives a session; without the lease, if not `inside` bkai."""
    bkai = {
        "BKAI_LEASE_ID": LEASE,
        "BKAI_SESSION_IMAGE": "sklearn/1.7",
        "BKAI_SERVICE_URL": f"{standin.url}/services/bkai",
        "BKAI_SLICES": SLICES,
        "BKAI_ENFORCEMENT": "booked, not enforced",
    }
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "LANG": "C.UTF-8",
        "JUPYTER_PLATFORM_DIRS": "0",
        "JUPYTERHUB_API_URL": f"{standin.url}/hub/api",
        "JUPYTERHUB_API_TOKEN": SERVER_TOKEN,
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{USER}-trial",
        "JUPYTERHUB_HOST": standin.url,
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"http://127.0.0.1:{port}{BASE}oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": f'["access:servers!server={USER}/trial"]',
        "JUPYTERHUB_SERVER_NAME": "trial",
        "JUPYTERHUB_SERVICE_PREFIX": BASE,
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}{BASE}",
        "JUPYTERHUB_USER": USER,
        **(bkai if inside else {}),
    }


@contextmanager
def running(
    module: str, environment: dict[str, str], home: Path, log: Path, *options: str
) -> Iterator[Server]:
    """`python -m module`, from start to the first answer to its end."""
    command = [sys.executable, "-m", module, *options]
    if os.getuid() == 0:
        command.append("--allow-root")
    began = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = environment["JUPYTERHUB_SERVICE_URL"]
    try:
        wait_for(lambda: _answers(url, process, log), 60)
        yield Server(url, home, log, process, time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Return when it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.01)


def _answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return httpx.get(f"{url}api", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
