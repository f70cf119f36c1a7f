"""A whole site for tests: `bkai up` over a data folder of its own, on a free port, ended by pid.

`Site.start()` returns when the login page answers. `Site.rest` talks to the Hub as an administrator, `Site.client` to
the service as anybody. `kill` ends one part with SIGKILL, as the tests of survival do.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
ADMIN_TOKEN = "a-token-for-tests-of-the-administrator"

SETTINGS = """\
version: 1
auth: dummy
devices: {devices}
groups:
  default:
    title: Default
    fgpu_per_gpu: 2
    quantum: 0.1
    cpu_overcommit: 50
    session_types: [interactive, batch]
"""

HUB_CONFIG = """\
from pathlib import Path
from jupyterhub_bkai.hubconfig import configure

c = get_config()  # noqa: F821
configure(c, data=Path(__file__).parent)
c.JupyterHub.services.append({{"name": "tests", "api_token": "{token}", "display": False}})
c.JupyterHub.load_roles.append(
    {{
        "name": "tests",
        "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "access:services", "groups"],
        "services": ["tests"],
    }}
)
{more}
"""


@dataclass
class Site:
    """One site. `shared` holds environments and caches that several sites of a run use together."""

    data: Path
    port: int
    shared: Path
    devices: str = "fake:two-fgpu"
    settings: str = SETTINGS
    more: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    program: Sequence[str] = (sys.executable, "-m", "jupyterhub_bkai.supervise")

    @property
    def url(self) -> str:
        """Where people reach it."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Lays out the data folder, once."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o711)
        (self.data / "bkai.yaml").write_text(self.settings.format(devices=self.devices))
        (self.data / "jupyterhub_config.py").write_text(HUB_CONFIG.format(token=ADMIN_TOKEN, more=self.more))
        for name in ("envs", "cache"):
            (self.shared / name).mkdir(parents=True, exist_ok=True)
            (self.shared / name).chmod(0o755)
            if not (self.data / name).exists():
                (self.data / name).symlink_to(self.shared / name)

    def start(self, timeout_s: float = 90.0) -> "Site":
        """Runs `bkai up` and waits until the service answers through the proxy."""
        if not (self.data / "bkai.yaml").exists():
            self.prepare()
        with (self.data / "up.out").open("ab") as out:
            self.process = subprocess.Popen(
                [*self.program, "--data", str(self.data), "--port", str(self.port)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'spawners'}", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.until(self._answers, timeout_s, "the site answers")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"bkai up ended:\n{self.output()}")
        try:
            hub = httpx.get(f"{self.url}/hub/health", trust_env=False, timeout=2)
            service = httpx.get(f"{self.url}/services/bkai/api/v1/info", trust_env=False, timeout=2)
        except httpx.HTTPError:
            return False
        return hub.status_code == 200 and service.status_code == 401

    def output(self) -> str:
        """What the parts printed, for the report of a failure."""
        texts = [f"--- up\n{(self.data / 'up.out').read_text(errors='replace')[-3000:]}"]
        for path in sorted((self.data / "log").glob("*.log")):
            texts.append(f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}")
        return "\n".join(texts)

    def stop(self) -> None:
        """Ctrl-C, as a person would; and whatever a failed test left is ended by pid."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        for pid in self.leftovers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def leftovers(self) -> list[int]:
        """Processes that have this site's data folder in their command line or environment."""
        mark = str(self.data).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                texts = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in texts:
                found.append(int(entry.name))
        return found

    # -- parts -----------------------------------------------------------------------------

    def pid(self, part: str) -> int:
        """The pid of "proxy", "service" or "hub" as the supervisor wrote it down."""
        record = json.loads((self.data / "run" / f"{part}.json").read_text())
        return int(record["pid"])

    def kill(self, part: str) -> int:
        """SIGKILL; the supervisor starts it anew."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    # -- talking ---------------------------------------------------------------------------

    def hub(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """The Hub's REST as the tests' administrator."""
        headers = {"Authorization": f"token {ADMIN_TOKEN}"}
        return httpx.request(
            method, f"{self.url}/hub/api{path}", headers=headers, trust_env=False, timeout=30, **kwargs
        )

    def token(self, user: str, **body: Any) -> str:
        """A token of the user's own, with everything they may do; the user is made when missing."""
        self.hub("POST", f"/users/{user}")
        answer = self.hub("POST", f"/users/{user}/tokens", json={"note": "tests", **body})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def call(self, token: str, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """The service's REST."""
        return httpx.request(
            method,
            f"{self.url}/services/bkai/api/v1{path}",
            headers={"Authorization": f"token {token}", **kwargs.pop("headers", {})},
            trust_env=False,
            timeout=30,
            **kwargs,
        )

    def sessions(self, token: str, **params: str) -> list[dict[str, Any]]:
        """The live sessions of a token's owner, oldest first."""
        found = self.call(token, "GET", "/sessions", params=params).json()["sessions"]
        return [one for one in found if one["ended"] is None]

    def until(self, true: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """Waits for a condition; the failure tells what the parts printed."""
        deadline = time.monotonic() + timeout_s
        while not (found := true()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s:.0f} s: {what}\n{self.output()}")
            time.sleep(0.1)
        return found

    def clear(self) -> None:
        """Ends every session, whoever's."""
        admin = self.token("admin")

        def ended() -> bool:
            live = self.sessions(admin, all="1")
            for one in live:
                if one["state"] != "TERMINATING":
                    self.call(admin, "DELETE", f"/sessions/{one['id']}")
            return not live

        self.until(ended, 60, "all sessions have ended")

    def running(self, token: str, session_id: str, timeout_s: float = 240.0) -> dict[str, Any]:
        """Waits until a session runs; one that ended instead fails at once, with its reason."""

        def runs() -> dict[str, Any] | None:
            one: dict[str, Any] = self.call(token, "GET", f"/sessions/{session_id}").json()
            if one["ended"] is not None:
                raise AssertionError(f"{one['state']}: {one['message']}\n{self.output()}")
            return one if one["state"] == "RUNNING" else None

        found: dict[str, Any] = self.until(runs, timeout_s, f"session {session_id} runs")
        return found

    def states(self, token: str) -> dict[str, str]:
        """State by server of a person's live sessions."""
        return {one["server"]: one["state"] for one in self.sessions(token)}


def remove(site: Site) -> None:
    """Ends a site and removes its folder, not what it shares."""
    site.stop()
    if os.environ.get("BKAI_KEEP") != "1":
        shutil.rmtree(site.data, ignore_errors=True)
