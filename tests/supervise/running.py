"""A site whose sessions are a few lines of Python, with what tests of the supervisor need to see of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

from tests.chain.site import ROOT, SETTINGS, Site

T = TypeVar("T")
HERE = Path(__file__).parent
TINY = f"""
import sys
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(Path(__file__).parent / "homes" / "{{username}}")
c.Spawner.cmd = [sys.executable, {str(HERE / "tiny_session.py")!r}]
c.Spawner.options_form = ""
"""
#: With accounts, as `bkai up` has them by default; the chain's tests use the dummy login.
ACCOUNTS = SETTINGS.replace("auth: dummy\n", "")
PARTS = ("proxy", "service", "hub")


def run_up(*arguments: str, timeout_s: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """`bkai up` to its end, for those that refuse to start."""
    return subprocess.run(
        [sys.executable, "-m", "jupyterhub_bkai.supervise", *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'spawners'}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def alive(pid: int) -> bool:
    """True while the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(look: Callable[[], T], timeout_s: float, what: str) -> T:
    """The first truthy answer."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)
    return found


def tree(folder: Path) -> Mapping[str, tuple[int, int, bytes]]:
    """Everything below a folder: mode, time of change and content."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in (folder, *folder.rglob("*"))
    }


@dataclass
class Running:
    """One site, and the supervisors that were started on it one after another."""

    site: Site
    command: Sequence[str] = (sys.executable, "-m", "jupyterhub_bkai.supervise")
    supervisors: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """What the present supervisor says."""
        return self.site.data.parent / f"up-{len(self.supervisors)}.out"

    def said(self) -> str:
        return self.output.read_text()

    def up(self, *arguments: str, ready: bool = True) -> float:
        """Start a supervisor; the seconds until its ready line."""
        if not self.site.data.exists():
            self.site.prepare()
        began = time.monotonic()
        with (self.site.data.parent / f"up-{len(self.supervisors) + 1}.out").open("wb") as output:
            process = subprocess.Popen(
                [*self.command, "--data", str(self.site.data), "--port", str(self.site.port), *arguments],
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'spawners'}:{HERE}"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.supervisors.append(process)
        if ready:
            try:
                until(lambda: "Ready: " in self.said() or process.poll() is not None, 120, "the ready line")
                assert "Ready: " in self.said(), "it ended"
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.said()}\n{self.logs()}") from None
        return time.monotonic() - began

    @property
    def supervisor(self) -> subprocess.Popen[bytes]:
        return self.supervisors[-1]

    def pids(self) -> dict[str, int]:
        return {part: self.site.pid(part) for part in PARTS}

    def interrupt(self) -> None:
        self.supervisor.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float = 120) -> int:
        return self.supervisor.wait(timeout_s)

    def kill_supervisor(self) -> None:
        self.supervisor.kill()
        self.supervisor.wait(10)

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-3000:]}" for path in (self.site.data / "log").glob("*.log")
        )

    def answers(self, path: str, expected: int = 200) -> bool:
        """True when the address answers so through the proxy."""
        try:
            return httpx.get(self.site.url + path, trust_env=False, timeout=5).status_code == expected
        except httpx.HTTPError:
            return False

    def start_session(self, user: str, name: str = "") -> int:
        """A session of the user's; its pid, once it answers through the proxy."""
        self.site.hub("POST", f"/users/{user}")
        path = f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"
        assert self.site.hub("POST", path).status_code in {201, 202}
        return until(lambda: self.session_pid(user, name), 90, "the session answers")

    def session_pid(self, user: str, name: str = "") -> int:
        """The pid with which the session answers through the proxy; 0 when it does not."""
        try:
            answer = httpx.get(f"{self.site.url}/user/{user}/{name}", trust_env=False, timeout=5)
        except httpx.HTTPError:
            return 0
        return int(answer.text) if answer.status_code == 200 and re.fullmatch(r"\d+", answer.text) else 0

    def secrets(self) -> dict[str, str]:
        """Every secret of the site by name."""
        stored = json.loads((self.site.data / "secrets.json").read_text())
        return {name: value for name, value in stored.items() if isinstance(value, str)}

    def end(self) -> None:
        """Whatever a test left is ended, by pid."""
        for process in self.supervisors:
            if process.poll() is None:
                process.kill()
                process.wait(10)
        # Again until none is left: one that is being ended may just have started another.
        while pids := self.site.leftovers():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: not any(alive(pid) for pid in pids), 90, "the processes have ended")
