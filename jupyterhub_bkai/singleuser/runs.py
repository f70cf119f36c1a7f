"""Programs run in the session on behalf of a laptop (`bkai run`).

Owns their start, their output and their end. A run belongs to this server, not to the connection that asked for it:
it goes on when the laptop is gone, and its output can be read again from any byte. A run ends with its first process;
what that left in the background is ended, too.
"""

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jupyterhub_bkai.errors import Conflict, InvalidOptions, NotFound
from jupyterhub_bkai.singleuser.confined import Confined
from jupyterhub_bkai.singleuser.processes import ASKED, LEFT, MARK, Ladder, marked, send
from jupyterhub_bkai.singleuser.spool import PIECE, Spool

RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: variables that say what a process belongs to are not a run's to change
OURS = ("BKAI_", "BACKENDAI_", "JUPYTERHUB_")
WORDS = 4096
#: programs at a time, and ended ones whose output can still be read
RUNNING_LIMIT, ENDED_KEPT = 32, 32
#: how long output is awaited that is still in the pipes when the program has ended
REST_S = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: the words, the folder below home, and variables on top of the session's."""

    words: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]


def command(body: Mapping[str, Any]) -> Command:
    """Check what was sent; one sentence for each wrong field."""
    words, folder, environment = body.get("command"), body.get("cwd", ""), body.get("environment", {})
    wrong = {}
    if not (isinstance(words, list) and _is_words(words)):
        wrong["command"] = "The command must be a list of words, the first of them a program."
    if not isinstance(folder, str):
        wrong["cwd"] = "The folder must be a path below the home folder."
    if not isinstance(environment, dict) or not all(map(_is_variable, environment.items())):
        wrong["environment"] = "The environment must be names (letters, digits, _) with text values."
    elif reserved := sorted(name for name in environment if name.startswith(OURS)):
        wrong["environment"] = f"{', '.join(reserved)} cannot be set: these variables name the session."
    if wrong or not isinstance(words, list):
        raise InvalidOptions(wrong)
    return Command(tuple(map(str, words)), folder, dict(environment))


def _is_words(words: list[object]) -> bool:
    return 0 < len(words) <= WORDS and all(map(_is_text, words)) and bool(words[0])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_variable(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and NAME.match(name) is not None and _is_text(value)


class Run:
    """One program: alive, or ended with its output still there."""

    def __init__(self, id: str, wanted: Command, limit: int) -> None:
        self.id = id
        self.wanted = wanted
        self.spool = Spool(limit)
        self.exit_code: int | None = None
        self.started = datetime.now(UTC)
        self.ended: datetime | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._harder = asyncio.Event()

    @property
    def alive(self) -> bool:
        """True until the program has ended and its output is complete."""
        return self.exit_code is None

    async def start(self, folder: int) -> None:
        """Start the program in the open folder."""
        words = self.wanted.words
        # Pipes of our own: with asyncio's, wait() would also wait for whoever else holds their other ends.
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out_end,
                stderr=err_end,
                # the folder that was checked, whatever its path leads to by now
                cwd=f"/proc/self/fd/{folder}",
                env=self._environment(os.readlink(f"/proc/self/fd/{folder}")),
                start_new_session=True,
            )
        except OSError as error:
            self.spool.close()
            os.close(out)
            os.close(err)
            raise InvalidOptions(
                {"command": f"{words[0]!r} cannot be run in this session: {error.strerror}."},
                reason="cannot-run",
            ) from error
        finally:
            os.close(out_end)
            os.close(err_end)
        log.info("run %s: started as process %d", self.id, self._process.pid)
        self._watching = asyncio.create_task(self._watch(self._process, out, err))

    def end(self, ladder: Ladder = ASKED) -> None:
        """Ask the program to end, then make it. Asking again goes on to the next step at once."""
        if not self.alive:
            return
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(ladder))
        else:
            self._harder.set()

    async def over(self) -> None:
        """Wait for the end."""
        if self._watching is not None:
            await asyncio.shield(self._watching)

    def _environment(self, folder: str) -> dict[str, str]:
        beside = os.path.dirname(sys.executable)
        path = os.environ.get("PATH", os.defpath)
        return {
            **os.environ,
            "PATH": path if beside in path.split(os.pathsep) else f"{beside}{os.pathsep}{path}",
            "PYTHONUNBUFFERED": "1",  # whoever watches a program wants to see its lines when it writes them
            **self.wanted.environment,
            "PWD": folder,
            MARK: self.id,
        }

    async def _watch(self, process: asyncio.subprocess.Process, *pipes: int) -> None:
        readers = [asyncio.create_task(self._read(number, pipe)) for number, pipe in enumerate(pipes)]
        code = await process.wait()
        _, unfinished = await asyncio.wait(readers, timeout=REST_S)
        for reader in unfinished:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        self.ended = datetime.now(UTC)
        self.exit_code = code
        self.spool.finish()
        log.info("run %s: ended with %d after %d bytes", self.id, code, self.spool.size)
        if self._ending is None and marked(self.id):
            self._ending = asyncio.create_task(self._end(LEFT))

    async def _read(self, number: int, pipe: int) -> None:
        loop, stream = asyncio.get_running_loop(), asyncio.StreamReader(limit=PIECE)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(pipe, "rb", buffering=0)
        )
        try:
            while data := await stream.read(PIECE):
                self.spool.add(number, data)
        finally:
            transport.close()

    async def _end(self, ladder: Ladder) -> None:
        for number, patience in ladder:
            log.info("run %s: sending %s", self.id, number.name)
            self._signal(number)
            if await self._gone(patience):
                return
        log.error("run %s: processes %s do not end", self.id, sorted(marked(self.id)))

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        leader = process.pid if process is not None and process.returncode is None else None
        send(self.id, leader, number)

    async def _gone(self, patience: float) -> bool:
        """Wait up to `patience` seconds for the last process, less when somebody asks again."""
        self._harder.clear()
        clock = asyncio.get_running_loop().time
        until = clock() + patience
        while self._living():
            left = until - clock()
            if left <= 0 or self._harder.is_set():
                return False
            try:
                await asyncio.wait_for(self._harder.wait(), min(left, 0.1))
            except TimeoutError:
                continue
        return True

    def _living(self) -> bool:
        process = self._process
        return (process is not None and process.returncode is None) or bool(marked(self.id))


class Runs:
    """All runs of this session."""

    def __init__(self, files: Confined, limit: int) -> None:
        self._files = files
        self._limit = limit
        self._runs: dict[str, Run] = {}
        self._starting = asyncio.Lock()

    def all(self) -> list[Run]:
        """Every run that is known, oldest first."""
        return list(self._runs.values())

    def get(self, id: str) -> Run:
        """The run of that id."""
        run = self._runs.get(id)
        if run is None:
            raise NotFound("This session knows no such run; it may be too long ago.", reason="no-run")
        return run

    async def start(self, id: str, wanted: Command) -> Run:
        """Start a program, or find the one that was started under this id: asking twice is safe."""
        if not RUN_ID.match(id):
            raise InvalidOptions({"id": "An id has 1 to 64 letters, digits, hyphens and underscores."})
        async with self._starting:
            return await self._start(id, wanted)

    async def _start(self, id: str, wanted: Command) -> Run:
        if known := self._runs.get(id):
            if known.wanted != wanted:
                raise Conflict("Another program runs under this id; choose another one.", reason="id-taken")
            return known
        if sum(run.alive for run in self.all()) >= RUNNING_LIMIT:
            raise Conflict(f"{RUNNING_LIMIT} programs run already; wait for one to end.", reason="too-many")
        with self._files.folder(wanted.folder) as folder:
            run = Run(id, wanted, self._limit)
            await run.start(folder)
        self._runs[id] = run
        self._forget()
        return run

    async def close(self) -> None:
        """End every program: the session is about to end."""
        for run in self.all():
            run.end(LEFT)
        await asyncio.gather(*(run.over() for run in self.all() if run.alive))

    def _forget(self) -> None:
        ended = [run for run in self.all() if not run.alive]
        for run in ended[: max(0, len(ended) - ENDED_KEPT)]:
            run.spool.close()
            del self._runs[run.id]
