"""The keeper beside a session: its gate, what it adopts, how it ends, and what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bkaispawner import keeper
from bkaispawner.tree import PACKAGES

from jupyterhub_bkai.fences import proctable

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A keeper whose server is the given Python program; its output is in `out`."""
    started = []

    def launch(program: str, *, gate: bool = True, **spec: Any) -> subprocess.Popen[bytes]:
        specification = os.memfd_create("session")
        server = {
            "argv": [sys.executable, "-I", "-c", program],
            "env": {"MARK": "1"},
            "cwd": str(tmp_path),
            "uid": os.getuid(),
            "gid": os.getgid(),
            "groups": None,
            "umask": 0o027,
            "oom_score_adj": 500,
            "links": [],
            "grace_s": 5.0,
        } | spec
        os.write(specification, json.dumps(server).encode())
        os.lseek(specification, 0, os.SEEK_SET)
        with open(tmp_path / "out", "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", keeper.COMMAND, str(specification), *PACKAGES],
                env={},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                pass_fds=(specification,),
                bufsize=0,
            )
        os.close(specification)
        started.append(process)
        assert process.stdin
        if gate:
            process.stdin.write(b"\n")
        return process

    yield launch
    for process in started:
        assert process.stdin
        process.stdin.close()
        for pid in proctable.descendants(proctable.table(), {process.pid}):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def eventually(true: Callable[[], Any], within_s: float = 10) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def said(tmp_path: Path, text: str) -> None:
    eventually(lambda: text in (tmp_path / "out").read_text())


def children(pid: int) -> list[int]:
    return [child for child, facts in proctable.table().items() if facts.parent == pid and facts.alive]


def test_nothing_starts_until_the_gate_opens_and_never_if_it_does_not(start: Start, tmp_path: Path) -> None:
    process = start("print('here', flush=True)", gate=False)
    time.sleep(0.3)
    assert (tmp_path / "out").read_text() == ""
    assert children(process.pid) == []
    assert process.stdin
    process.stdin.close()  # what the kernel does for a killed hub
    assert process.wait(5) == 0
    assert (tmp_path / "out").read_text() == ""


@pytest.mark.parametrize(
    ("program", "code"),
    [("", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_the_exit_code_is_the_servers(start: Start, program: str, code: int) -> None:
    assert start(program).wait(10) == code


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["/nowhere/python"], keeper.NOT_FOUND),
        (["/etc/passwd"], keeper.CANNOT_RUN),
        (["/bin/\0"], keeper.CANNOT_RUN),
    ],
)
def test_a_server_that_cannot_begin_is_told_apart(start: Start, argv: list[str], code: int) -> None:
    assert start("", argv=argv).wait(10) == code


def test_the_server_gets_what_was_specified_and_nothing_else(start: Start, tmp_path: Path) -> None:
    start(
        "import os, signal, resource\n"
        "print(sorted(os.environ), os.getcwd(), oct(os.umask(0)), open('/proc/self/oom_score_adj').read().strip(),"
        " sorted(os.listdir('/proc/self/fd')), signal.pthread_sigmask(signal.SIG_BLOCK, ()),"
        " resource.getrlimit(resource.RLIMIT_CORE)[0])"
    ).wait(10)
    out = (tmp_path / "out").read_text().strip()
    # descriptor 3 is the listing's own
    assert out == f"['LC_CTYPE', 'MARK'] {tmp_path} 0o27 500 ['0', '1', '2', '3'] set() 0"


def test_sigterm_asks_the_server_first(start: Start, tmp_path: Path) -> None:
    process = start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(3)))\n"
        "print('up', flush=True); time.sleep(300)"
    )
    said(tmp_path, "up")
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 3
    said(tmp_path, "bye")


DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"


def test_a_deaf_server_is_killed_after_the_grace(start: Start, tmp_path: Path) -> None:
    process = start(DEAF, grace_s=0.3)
    said(tmp_path, "up")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 137
    assert 0.25 < time.monotonic() - begun < 8


def test_sigusr1_does_not_wait(start: Start, tmp_path: Path) -> None:
    process = start(DEAF, grace_s=60)
    said(tmp_path, "up")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(3) == 137


RUNAWAYS = """
import os, time
for scrubbed in (False, True):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if scrubbed:
                os.execve('/bin/sh', ['sh', '-c', 'trap "" TERM INT HUP; echo up; sleep 300 & wait'], {})
            print('up', flush=True); time.sleep(300)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_what_ran_away_is_adopted_and_ends_with_the_server(start: Start, tmp_path: Path, end: str) -> None:
    process = start(RUNAWAYS + "\ntime.sleep(300)" * (end == "kill"), grace_s=1)
    eventually(lambda: (tmp_path / "out").read_text().count("up") == 2)
    family = proctable.descendants(proctable.table(), {process.pid}) - {process.pid}
    if end == "kill":
        eventually(lambda: len(children(process.pid)) == 3)  # the server, and the two that nobody else owns
        server = min(children(process.pid))
        os.kill(server, signal.SIGKILL)
    assert process.wait(8) == (137 if end == "kill" else 0)
    assert not [pid for pid in family if (facts := proctable.stat(pid)) and facts.alive]


def test_the_dead_are_buried(start: Start, tmp_path: Path) -> None:
    """Orphans of the session that end must not stay as zombies for as long as the session runs."""
    process = start(
        "import os, time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: time.sleep(0.1); os._exit(0)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print('up', flush=True); time.sleep(300)"
    )
    said(tmp_path, "up")
    eventually(lambda: [facts.parent for facts in proctable.table().values()].count(process.pid) == 1)


def test_the_server_dies_with_its_keeper(start: Start, tmp_path: Path) -> None:
    process = start("import time; print('up', flush=True); time.sleep(300)")
    said(tmp_path, "up")
    [server] = children(process.pid)
    process.kill()
    process.wait()
    eventually(lambda: not ((facts := proctable.stat(server)) and facts.alive))


def test_it_is_small(start: Start, tmp_path: Path) -> None:
    """There is one for each session."""
    process = start("import time; print('up', flush=True); time.sleep(300)")
    said(tmp_path, "up")
    rollup = proctable.read(f"/proc/{process.pid}/smaps_rollup").decode().split()
    private_kb = int(rollup[rollup.index("Private_Dirty:") + 1])
    print(f"{private_kb} KiB private")
    assert private_kb < 8192
