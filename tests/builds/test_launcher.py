"""Programs of a build give way to sessions, see no secrets and never outlive the service."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jupyterhub_bkai.builds import child, launcher

PYTHON = sys.executable


async def run(code: str, tmp_path: Path, **more: str) -> list[str]:
    command = [PYTHON, "-c", code]
    return await child.run(command, env=child.environment(**more), seconds=30, log=tmp_path / "log")


async def test_it_gives_way(tmp_path: Path) -> None:
    said = await run("import os; print(os.nice(0), oct(os.umask(0)))", tmp_path)
    assert said == [f"{launcher.NICENESS} 0o22"]


async def test_it_sees_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTERHUB_API_TOKEN", "BKAI_SECRET", "PYTHONPATH", "UV_SYSTEM_PYTHON", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "hush-hush")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "kept")
    said = await run("import os; print(*sorted(os.environ.items()))", tmp_path, HOME="/elsewhere")
    assert "hush-hush" not in said[0]
    assert "('UV_DEFAULT_INDEX', 'kept')" in said[0]
    assert "('HOME', '/elsewhere')" in said[0]


async def test_the_log_keeps_what_it_said_for_us_alone(tmp_path: Path) -> None:
    code = "import sys; print('x' * 10**6, flush=True); sys.stdout.buffer.write(b'\\xff tail'); sys.exit(3)"
    with pytest.raises(child.Failed) as caught:
        await run(code, tmp_path)
    assert caught.value.code == 3
    assert [len(line) for line in caught.value.tail] == [child.LONGEST_LINE, 6]
    assert (tmp_path / "log").read_text().endswith("� tail\n")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


async def test_time_runs_out(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await child.run(["/bin/sleep", "60"], env=child.environment(), seconds=0.3)
    assert time.monotonic() - began < 30


async def test_cancelling_ends_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! > {pids}.new; echo $$ >> {pids}.new; mv {pids}.new {pids}; wait"
    task = asyncio.create_task(child.run(["/bin/sh", "-c", script], env=child.environment(), seconds=60))
    await until(pids.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone([int(pid) for pid in pids.read_text().split()])


async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    parent = await asyncio.create_subprocess_exec(
        *[
            PYTHON,
            "-c",
            PARENT,
            str(launcher.__file__),
            f"echo $$ > {pids}.new; mv {pids}.new {pids}; exec sleep 60",
        ]
    )
    await until(pids.exists)
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    await gone([int(pids.read_text())])


def test_a_parent_that_died_before() -> None:
    done = subprocess.run(
        [PYTHON, "-I", "-S", launcher.__file__, "1", "/bin/echo", "too late"], capture_output=True
    )
    assert (done.returncode, done.stdout) == (1, b"")


PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), "/bin/sh", "-c", sys.argv[2]])
"""


async def gone(pids: list[int]) -> None:
    await until(lambda: not any(alive(pid) for pid in pids))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - other processes do not set our events
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
