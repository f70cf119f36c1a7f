"""One supervised process: start it, recognise a running one, end it.

Owns its record in `run/`, its log and its signals. When to do what is decided in `keeper` and `ending`.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_bkai.datadir import DataFolder, write_json
from jupyterhub_bkai.fences.process import Identity, process_identity
from jupyterhub_bkai.supervise.identity import gone, leaders_with
from jupyterhub_bkai.supervise.logs import open_log

#: Marks the processes of one data folder, so that one whose record was never written is found.
MARK = "BKAI_SUPERVISED"
# What a `bkai up` typed in a terminal of a Jupyter session would otherwise hand on.
_FOREIGN = ("JUPYTERHUB_", "JPY_", "CONFIGPROXY_", "BKAI_")
_TERM_S = 10.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a part is run. `name` is its file name, `title` its name in sentences.

    A running part is adopted if it was started with equal `arguments`, `environment` and `compared` (what it
    reads elsewhere), and replaced otherwise. Not compared is where `program` lies: another Node.js on PATH
    is no reason to drop everybody's connections.
    """

    name: str
    title: str
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    compared: tuple[str, ...] = field(default=(), repr=False)

    def fingerprint(self) -> str:
        """Equal for equal settings; a digest, since some of them are secret."""
        text = json.dumps([self.arguments, sorted(self.environment.items()), self.compared])
        return hashlib.sha256(text.encode()).hexdigest()


class Part:
    """A process that may be our child, or one that an earlier supervisor left running."""

    def __init__(self, recipe: Recipe, folder: DataFolder) -> None:
        self.recipe = recipe
        self._folder = folder
        self._mark = f"{recipe.name}@{folder.root}"
        self._child: subprocess.Popen[bytes] | None = None
        self.identity: Identity | None = None

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self._folder.log / f"{self.recipe.name}.log"

    @property
    def _record(self) -> Path:
        return self._folder.run / f"{self.recipe.name}.json"

    def adopt(self) -> list[Identity]:
        """Take over a running process if it is the one we would start; return the others, which must end."""
        recorded, fingerprint = _read_record(self._folder, self.recipe.name)
        found = {
            identity
            for identity in (recorded, *leaders_with(MARK, self._mark))
            if identity is not None and identity.alive()
        }
        if recorded in found and fingerprint == self.recipe.fingerprint():
            self.identity = recorded
            found.remove(recorded)
        return list(found)

    def start(self) -> Identity | None:
        """Run it in a process session of its own; None when it ended at once."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        environment |= {**self.recipe.environment, MARK: self._mark}
        output = open_log(self.log)
        try:
            self._child = subprocess.Popen(
                [*self.recipe.program, *self.recipe.arguments],
                cwd=self._folder.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(output)
        self.identity = process_identity(self._child.pid)
        if self.identity is not None:
            with contextlib.suppress(OSError):  # a full disk: it runs all the same, and its mark finds it
                write_json(
                    self._record, {**self.identity._asdict(), "fingerprint": self.recipe.fingerprint()}
                )
        return self.identity

    def how_it_ended(self) -> str:
        """In words, after its end: the exit code of a child; of an adopted one nobody is told."""
        code = self._child.poll() if self._child is not None else None
        if code is None:
            return "ended"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def end(self, *, at_once: bool = False) -> None:
        """Ask it to end, insist after a while, and forget it; `at_once` does not ask."""
        if self.identity is not None:
            await end_process(self.identity, at_once=at_once)
            self.how_it_ended()  # reaps a child
        self._record.unlink(missing_ok=True)
        self.identity = None


def _read_record(folder: DataFolder, name: str) -> tuple[Identity | None, str]:
    """The process on record, and the settings it was started with."""
    try:
        stored = json.loads((folder.run / f"{name}.json").read_bytes())
        identity = Identity(str(stored["boot_id"]), int(stored["pid"]), int(stored["start_time"]))
        return identity, str(stored["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, ""  # no record, or half of one: the mark still finds the process


def recorded_alive(folder: DataFolder, name: str) -> bool:
    """True when the process on record for this part still runs."""
    identity, _ = _read_record(folder, name)
    return identity is not None and identity.alive()


async def end_process(identity: Identity, *, at_once: bool = False) -> None:
    """SIGTERM, then SIGKILL; returns when the process has ended."""
    for number in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
        if not identity.signal(number):
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gone(identity), _TERM_S)
