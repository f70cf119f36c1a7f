"""`bkai run`: the flags, and how a run ends when somebody presses Ctrl-C."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from jupyterhub_bkai.cli import plan as planning
from jupyterhub_bkai.cli.asking import given, option_flags, variables
from jupyterhub_bkai.cli.screen import JsonScreen, Screen
from jupyterhub_bkai.cli.settings import as_json, connect, with_settings
from jupyterhub_bkai.client.errors import BkaiError

if TYPE_CHECKING:
    from jupyterhub_bkai.cli.conduct import Conductor

INTERRUPTED = 130


@click.command()
@click.argument("image", metavar="IMAGE")
@click.argument("path", metavar="FILE-or-FOLDER", type=click.Path(exists=True, path_type=Path))
@click.argument("command", metavar="[-- ARGUMENTS… | -- COMMAND…]", nargs=-1, type=click.UNPROCESSED)
@click.option("--build", metavar="COMMAND", help="A shell command to run first, instead of the usual build.")
@click.option("--no-build", is_flag=True, help="Build nothing.")
@click.option(
    "-e",
    "--environment",
    metavar="NAME=VALUE",
    multiple=True,
    callback=variables,
    help="Variables for the program. May be given several times.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show what the program writes, and trouble; nothing else.")
@option_flags(leave_out=("version", "count", "environment", "session_type"))
@with_settings
def run(
    image: str,
    path: Path,
    command: tuple[str, ...],
    build: str | None,
    no_build: bool,
    environment: dict[str, str],
    quiet: bool,
    **flags: object,
) -> None:
    """Run a file or a folder in a session of its own, and end the session.

    The session gets IMAGE and the slice you ask for; your files go there; what the program writes appears here as it
    comes; the program's exit code becomes this one's. Nothing is left behind: files that the program should keep
    belong in a shared folder (--folders) or in the home folder.

    \b
    Without COMMAND   x.py runs with python, x.sh with bash, a folder runs its main.py;
                      x.ipynb is executed and printed as Markdown.
    After --          words that begin with “-” are arguments: bkai run IMAGE fit.py -- --alpha 0.2;
                      anything else is the whole command: bkai run IMAGE . -- python fit.py small.
    Build             requirements.txt and pyproject.toml or setup.py of a folder are installed with pip,
                      on top of the image's packages and for this run only.
    Not uploaded      .git, __pycache__, virtual environments, and what .bkaiignore names; nor .env files,
                      which often hold passwords (a line !.env in .bkaiignore uploads one).
    Ctrl-C            interrupts the program and ends the session; a second one leaves at once,
                      and the session ends by itself within a minute.
    """
    if build and no_build:
        raise click.UsageError("--build and --no-build contradict each other; give one of them.")
    plan = planning.make(path, command, build, may_build=not no_build)
    options = {**given(flags), "version": image}
    screen = JsonScreen() if as_json() else Screen(quiet)
    click.get_current_context().exit(asyncio.run(_conducted(plan, options, environment, screen)))


async def _conducted(
    plan: planning.Plan, options: dict[str, object], environment: dict[str, str], screen: Screen
) -> int:
    from jupyterhub_bkai.cli.conduct import Conductor

    async with connect() as client:
        conductor = Conductor(client, plan, options, environment, screen)
        work = asyncio.current_task()
        assert work is not None
        with _Interrupts(conductor, work.cancel):
            try:
                return await conductor.perform()
            except (asyncio.CancelledError, BkaiError):
                if not conductor.interrupted:
                    raise
                work.uncancel()
                return INTERRUPTED
            finally:
                await conductor.end()
                screen.close()


class _Interrupts:
    """Ctrl-C, closing the terminal, and being told to end: the first asks, the second does not wait."""

    SIGNALS = tuple(
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    )

    def __init__(self, conductor: "Conductor", cancel: Callable[[], Any]) -> None:
        self._conductor = conductor
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._came)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self._conductor.interrupted:
            os._exit(INTERRUPTED)
        self._conductor.interrupted = True
        self._loop.call_soon_threadsafe(self._conductor.interrupt, self._cancel)
