"""Runs one program of a build: niced, its output told line by line and kept in a log, never outliving us.

Owns the process only; what the lines mean is `progress`'s.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

LAUNCHER = Path(__file__).with_name("launcher.py")
TAIL = 40
LONGEST_LINE = 4000
# Neither the service's secrets nor the environment it was started from are any business of a build.
_WITHHELD = re.compile(
    r"JUPYTER|BKAI_|BACKENDAI_|CONFIGPROXY_|JPY_|PYTHON|CONDA_|VIRTUAL_ENV|"
    r"UV_(CACHE|LINK|PROJECT|PYTHON|SYSTEM|REQUIRE|CONSTRAINT|OVERRIDE|VENV|TARGET|PREFIX|COMPILE)"
)


class Failed(Exception):
    """The program ended with an error; `tail` are the last lines it wrote."""

    def __init__(self, code: int, tail: Sequence[str]) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
        self.tail = tuple(tail)


def environment(**changes: str) -> dict[str, str]:
    """Our environment without what a build should not see, with the given changes."""
    return {name: value for name, value in os.environ.items() if not _WITHHELD.match(name)} | changes


async def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    seconds: float,
    log: Path | None = None,
    on_line: Callable[[str], object] = lambda line: None,
) -> list[str]:
    """Run to the end and give the last lines written. Raises `Failed`, or `TimeoutError` after `seconds`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        # Away from any project whose settings uv would find.
        cwd="/",
        start_new_session=True,
    )
    assert process.stdout is not None
    tail: deque[str] = deque(maxlen=TAIL)
    try:
        async with asyncio.timeout(seconds):
            with _opened(log) as kept:
                async for line in _lines(process.stdout):
                    kept.write(line + "\n")
                    tail.append(line)
                    on_line(line)
            code = await process.wait()
    finally:
        await _end(process)
    if code != 0:
        raise Failed(code, tail)
    return list(tail)


def _opened(log: Path | None) -> TextIO:
    # An installer's output may hold the address of a private index, password and all: ours alone.
    kept = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return open(kept, "w", encoding="utf-8")


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    rest = b""
    while chunk := await stream.read(1 << 16):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip()[:LONGEST_LINE]
        rest = rest[:LONGEST_LINE]
    if rest.strip():
        yield rest.decode(errors="replace").rstrip()


async def _end(process: asyncio.subprocess.Process) -> None:
    """A program that we stop waiting for is ended with everything in its process group."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
