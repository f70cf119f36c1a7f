"""A real hub in a process of its own, behind a real proxy, with our spawner; started, killed and asked by tests."""

import asyncio
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx

from jupyterhub_bkai import nodeproxy

ROOT = Path(__file__).resolve().parents[2]
SCOPES = [
    "admin:users",
    "admin:servers",
    "admin:server_state",
    "access:servers",
    "proxy",
    "tokens",
    "list:users",
]

CONFIG = """
import os
c = get_config()
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.bind_url = "http://127.0.0.1:{proxy}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie"
c.JupyterHub.cleanup_servers = c.JupyterHub.cleanup_proxy = False
c.JupyterHub.init_spawners_timeout = 1
c.JupyterHub.allow_named_servers = True
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": {slow_spawn_timeout}}}
c.JupyterHub.services = [{{"name": "tester", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{"name": "tester", "services": ["tester"], "scopes": {scopes}}}]
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.ConfigurableHTTPProxy.auth_token = "{token}"
c.JupyterHub.spawner_class = "bkaispawner.process.ProcessSpawner"
c.Leased.service_socket = "{folder}/hub.sock"
c.TreeSpawner.log_folder = "{folder}/log"
c.TreeSpawner.homes_folder = "{folder}/homes"
c.TreeSpawner.real_accounts = False
c.Spawner.environment = {{"PYTHONPATH": "{root}"}}
c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class RunningHub:
    """One hub and its proxy in one folder; the hub can be killed and started again."""

    def __init__(self, folder: Path, *, config: str = "", slow_spawn_timeout: float = 0) -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.proxy_port, self.proxy_api_port, self.hub_port = free_ports(3)
        text = CONFIG.format(
            proxy=self.proxy_port,
            proxy_api=self.proxy_api_port,
            hub=self.hub_port,
            folder=folder,
            token=self.token,
            root=ROOT,
            scopes=SCOPES,
            slow_spawn_timeout=slow_spawn_timeout,
        )
        (folder / "config.py").write_text(text + config)
        self.url = f"http://127.0.0.1:{self.proxy_port}"
        self.http = httpx.AsyncClient(
            base_url=f"{self.url}/hub/api/",
            headers={"Authorization": f"token {self.token}"},
            timeout=30,
            trust_env=False,
        )
        self.process: subprocess.Popen[bytes] | None = None
        self._proxy: subprocess.Popen[bytes] | None = None

    # -- running -----------------------------------------------------------------------------

    def start_proxy(self) -> None:
        words = {"port": self.proxy_port, "api-port": self.proxy_api_port, "ip": "127.0.0.1"}
        words |= {"api-ip": "127.0.0.1", "default-target": f"http://127.0.0.1:{self.hub_port}"}
        command = [*nodeproxy.command(), *(f"--{name}={value}" for name, value in words.items())]
        self._proxy = self._spawn("proxy.log", command, {})

    async def start(self) -> None:
        """Start the hub and wait until it answers through the proxy."""
        command = [sys.executable, "-m", "jupyterhub", "-f", str(self.folder / "config.py"), "--debug"]
        surroundings = {"PYTHONPATH": f"{ROOT}:{ROOT}/spawners", "A_SECRET_OF_THE_HUB": "tell nobody"}
        self.process = self._spawn("hub.log", command, surroundings)
        deadline = time.monotonic() + 40
        while not await self._up():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.05)

    def _spawn(self, log: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": self.token, **environment}
        with open(self.folder / log, "ab") as out:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=out, stderr=out, start_new_session=True
            )

    async def _up(self) -> bool:
        try:
            return (await self.http.get("users")).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process
        self.process.send_signal(number)
        self.process.wait(20)

    async def close(self) -> None:
        await self.http.aclose()
        for process in (self.process, self._proxy):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def log(self) -> str:
        """The last lines of all logs, for a failed test."""
        logs = [self.folder / "hub.log", *(self.folder / "log").glob("*.log")]
        return "\n".join(f"{log}\n" + "\n".join(log.read_text().splitlines()[-60:]) for log in logs)

    # -- asking ------------------------------------------------------------------------------

    async def add(self, *users: str) -> None:
        answer = await self.http.post("users", json={"usernames": list(users)})
        assert answer.status_code == 201, answer.text

    async def clear(self, user: str) -> None:
        """Stop whatever the user has."""
        for name in (await self.http.get(f"users/{user}")).json()["servers"]:
            await self.drop(user, name)
            await self.gone(user, name)

    def path(self, user: str, server: str) -> str:
        return f"users/{user}/servers/{server}" if server else f"users/{user}/server"

    async def ask(self, user: str, server: str = "", options: Any = None) -> httpx.Response:
        """POST, as a program does."""
        body = None if options is None else {"user_options": options}
        return await self.http.post(self.path(user, server), json=body)

    async def drop(self, user: str, server: str = "", remove: bool = False) -> httpx.Response:
        body = json.dumps({"remove": True}) if remove else None
        return await self.http.request("DELETE", self.path(user, server), content=body)

    async def forget_route(self, path: str) -> None:
        """Have the proxy forget where a path leads."""
        async with httpx.AsyncClient(trust_env=False) as proxy:
            answer = await proxy.delete(
                f"http://127.0.0.1:{self.proxy_api_port}/api/routes{path}",
                headers={"Authorization": f"token {self.token}"},
            )
            assert answer.status_code == 204, answer.text

    async def server(self, user: str, server: str = "") -> dict[str, Any] | None:
        """The Hub's words about a server; None when it has none running or on its way."""
        answer = await self.http.get(f"users/{user}")
        servers: dict[str, Any] = answer.json()["servers"]
        return servers.get(server)

    async def ready(self, user: str, server: str = "", within_s: float = 40) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while True:
            found = await self.server(user, server)
            if found and found["ready"]:
                return found
            assert time.monotonic() < deadline, self.log()
            assert found, self.log()
            await asyncio.sleep(0.05)

    async def gone(self, user: str, server: str = "", within_s: float = 30) -> None:
        deadline = time.monotonic() + within_s
        while await self.server(user, server):
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.05)

    async def progress(self, user: str, server: str = "") -> AsyncIterator[dict[str, Any]]:
        """The Hub's own stream of progress events, as the page reads it."""
        async with self.http.stream("GET", f"{self.path(user, server)}/progress", timeout=60) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def pid(self, lease_id: str) -> int:
        """The keeper of a lease, as the hub's log says."""
        found = re.findall(rf"lease {lease_id}: keeper (\d+) launched", (self.folder / "hub.log").read_text())
        return int(found[-1])

    def edit_state(self, user: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """Change what the hub, which is not running, has saved of the user's default server."""
        with closing(sqlite3.connect(self.folder / "hub.sqlite")) as database, database:
            where = "name = '' AND user_id = (SELECT id FROM users WHERE name = ?)"
            [text] = database.execute(f"SELECT state FROM spawners WHERE {where}", [user]).fetchone()
            edit(state := json.loads(text))
            database.execute(f"UPDATE spawners SET state = ? WHERE {where}", [json.dumps(state), user])

    async def page(self, user: str, path: str) -> httpx.Response:
        """A page as the user's browser gets it."""
        async with httpx.AsyncClient(base_url=self.url, follow_redirects=True, trust_env=False) as browser:
            form = await browser.get("/hub/login")
            fields = {"username": user, "password": "x", "_xsrf": browser.cookies["_xsrf"]}
            entered = await browser.post("/hub/login", data=fields, params={"next": "/hub/home"})
            assert entered.status_code == 200, (form.status_code, entered.text)
            return await browser.get(path)

    async def said(self, text: str, user: str, server: str = "") -> list[dict[str, Any]]:
        """Every event up to the first that contains the text."""
        seen = []
        async with asyncio.timeout(30), aclosing(self.progress(user, server)) as events:  # type: ignore[type-var]
            async for event in events:
                seen.append(event)
                if text in event["message"]:
                    return seen
        raise AssertionError(f"{text!r} was not said, but {seen}")


async def until(true: Callable[[], bool], within_s: float = 10) -> None:
    """Wait for something that nothing announces."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def temp_hub(folder: Path, **options: Any) -> AsyncIterator[RunningHub]:
    hub = RunningHub(folder, **options)
    try:
        hub.start_proxy()
        await hub.start()
        yield hub
    finally:
        await hub.close()
