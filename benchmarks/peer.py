"""The peer of `start`: the same hub with the stock spawner, `SimpleLocalProcessSpawner`, nothing of ours in it."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from jupyterhub_bkai import nodeproxy

CONFIG = """
c = get_config()  # noqa: F821
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_port = {hub}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.command = {command!r}
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie"
c.JupyterHub.allow_named_servers = True
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home-{{username}}"
c.Spawner.cmd = ["{python}", "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.env_keep = ["PATH", "LANG", "LC_ALL"]
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "bench", "scopes": ["admin:users", "admin:servers", "access:servers"], "services": ["bench"]}}
]
"""


class Peer:
    """A stock hub on free ports, in a folder of its own."""

    def __init__(self, python: str, ports: tuple[int, int, int]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bkai-peer-"))
        self.token = secrets.token_hex(16)
        self.api = f"http://127.0.0.1:{ports[0]}/hub/api"
        config = self.folder / "config.py"
        config.write_text(
            CONFIG.format(
                public=ports[0],
                hub=ports[1],
                api=ports[2],
                command=nodeproxy.command(),
                folder=self.folder,
                python=python,
                token=self.token,
            )
        )
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(16)},
            )
        until(self._answers, 60)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.api}/", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def until(true: "object", seconds: float) -> None:
    """Waits for a condition."""
    assert callable(true)
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the peer did not get there")
        time.sleep(0.01)


def started(api: str, token: str, user: str, server: str, body: dict[str, object]) -> float:
    """Seconds from POST to ready, as the hub tells it; the server is stopped and removed afterwards."""
    headers = {"Authorization": f"token {token}"}
    with httpx.Client(headers=headers, trust_env=False, timeout=60) as client:
        client.post(f"{api}/users/{user}")
        place = f"{api}/users/{user}/servers/{server}"
        begun = time.perf_counter()
        client.post(place, json=body).raise_for_status()
        until(lambda: client.get(place).json().get("ready"), 240)
        took = time.perf_counter() - begun
        client.request("DELETE", place, json={"remove": True})
        until(lambda: client.get(place).status_code == 404, 60)
    return took
