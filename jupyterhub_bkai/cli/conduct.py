"""`Conductor`: one `bkai run` from the request to the last clean-up.

Owns the order of things and what is left to do whatever happens. The session is kept alive from here every few
seconds; when we are gone, the service ends it, so that nothing stays even after a power cut.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from jupyterhub_bkai.cli.plan import Item, Plan, Step
from jupyterhub_bkai.cli.screen import Screen
from jupyterhub_bkai.cli.session import doing
from jupyterhub_bkai.client import AsyncClient, BkaiError, Refused, Session, Unreachable, Workspace
from jupyterhub_bkai.client.workspace import Broken, Exited, Output, Restored
from jupyterhub_bkai.names import run_folder, server_name

KEEPALIVE_S, BEAT_S = 60, 10
AT_ONCE = 4
#: how long an interrupted program may take to end; the session gives it less
GRACE_S = 17
#: how long the clean-up may take: the service does the rest of it anyway
END_S = 10


class Conductor:
    """Performs a plan in a session of its own."""

    def __init__(
        self,
        client: AsyncClient,
        plan: Plan,
        options: dict[str, object],
        environment: dict[str, str],
        screen: Screen,
    ) -> None:
        self._client = client
        self._plan = plan
        self._options = options
        self._environment = environment
        self._screen = screen
        self._session: Session | None = None
        self._workspace: Workspace | None = None
        self._asked = False
        self._arrived = 0
        self._run: str | None = None
        self._beating: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._interrupting: asyncio.Task[None] | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._exit_code: int | None = None
        self.interrupted = False

    async def perform(self) -> int:
        """Everything up to the program's exit code."""
        session = await self._ready()
        self._watching = asyncio.create_task(self._watch_end(session.id))
        self._workspace = Workspace(self._client, session, patience=KEEPALIVE_S)
        await self._workspace.reach()
        await self._upload(self._workspace)
        for step in self._plan.steps:
            if code := await self._build(self._workspace, step):
                raise Refused(
                    f"The build failed (exit code = {code}); nothing was run.", reason="build-failed"
                )
        self._screen.built(skipped=not self._plan.steps)
        self._screen.started()
        code = await self._program(self._workspace, self._plan.command, self._screen.output)
        self._exit_code = code
        self._screen.finished(code)
        return code

    def interrupt(self, cancel: Callable[[], Any]) -> None:
        """Ask the program to end, or give up what is done before it."""
        self._screen.trouble("Interrupted: ending the session. Once more leaves at once.")
        if self._run is None or self._workspace is None:
            cancel()
            return
        self._interrupting = asyncio.create_task(self._quietly(self._workspace.interrupt(self._run)))
        self._giving_up = asyncio.get_running_loop().call_later(GRACE_S, cancel)

    async def end(self) -> None:
        """Leave nothing behind, as far as that is possible from here."""
        for waiting in (self._beating, self._watching, self._giving_up):
            if waiting:
                waiting.cancel()
        if not self._asked:
            return
        try:
            async with asyncio.timeout(END_S):
                await self._clean_up()
        except (BkaiError, TimeoutError):
            self._screen.trouble(
                f"The session could not be ended from here; it ends by itself within {KEEPALIVE_S} s."
            )

    # -- the session --------------------------------------------------------------------------

    async def _ready(self) -> Session:
        clock = asyncio.get_running_loop().time
        began, told = clock(), ""
        self._options.setdefault("name", server_name(f"run-{secrets.token_hex(3)}"))
        self._asked = True
        (self._session,) = await self._client.create(self._options, keepalive_s=KEEPALIVE_S)
        self._beating = asyncio.create_task(self._keep_alive(self._session.id))
        self._screen.asked(self._session)
        async with aclosing(self._client.events(self._session.id, patience=KEEPALIVE_S)) as events:
            async for session in events:
                self._session = session
                if session.state == "RUNNING":
                    self._screen.ready(session, clock() - began)
                    return session
                if session.over or session.state == "TERMINATING":
                    break
                if (news := doing(session)) != told:
                    told = news
                    self._screen.waiting(session, news)
        why = self._session.message or self._session.cause or self._session.state
        raise Refused(f"The session ended before the program could start: {why}", reason="ended")

    async def _keep_alive(self, id: str) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._quietly(self._client.keepalive(id))

    async def _watch_end(self, id: str) -> None:
        """Passes on what the service warns of before the session's end."""
        told = ""
        with suppress(BkaiError):
            async with aclosing(self._client.events(id, patience=KEEPALIVE_S)) as events:
                async for session in events:
                    if session.warning and session.warning.id != told:
                        told = session.warning.id
                        more = f"For more time: bkai session extend {session.title} 1h"
                        self._screen.trouble(f"{session.warning.message} {more}")

    async def _quietly(self, call: Coroutine[Any, Any, None]) -> None:
        """A lost connection or an ended session is noticed where the output is read."""
        with suppress(BkaiError):
            await call

    # -- files and programs -------------------------------------------------------------------

    @property
    def _folder(self) -> str:
        """Where the files go: the session removes this folder when it ends, and the programs with it."""
        assert self._session is not None
        return run_folder(self._session.id)

    async def _upload(self, workspace: Workspace) -> None:
        left, total = iter(self._plan.items), self._plan.size
        self._screen.uploading(self._arrived, total)

        async def some() -> None:
            for item in left:
                await self._upload_one(workspace, item)

        await _together(some() for _ in range(AT_ONCE))
        self._screen.uploaded(len(self._plan.items), self._arrived, self._plan.held_back)

    async def _upload_one(self, workspace: Workspace, item: Item) -> None:
        before = 0

        def told(offset: int) -> None:
            nonlocal before
            self._arrived += offset - before  # may go back, when less arrived than was sent
            before = offset
            self._screen.uploading(self._arrived, self._plan.size)

        try:
            source = item.source.open("rb")
        except OSError as error:
            raise BkaiError(
                f"{item.source} cannot be read: {error.strerror}.", reason="unreadable"
            ) from error
        with source:
            await workspace.upload(f"{self._folder}/{item.target}", source, mode=item.mode, told=told)

    async def _build(self, workspace: Workspace, step: Step) -> int:
        self._screen.building(step.title)
        return await self._program(workspace, step.command, self._screen.build_output)

    async def _program(
        self, workspace: Workspace, command: tuple[str, ...], show: Callable[[Output], None]
    ) -> int:
        self._run = await workspace.run(command, cwd=self._folder, environment=self._environment)
        if not self.interrupted:
            ended = await self._follow(workspace, self._run, show)
            self._run = None
            if ended.dropped:
                self._screen.trouble(
                    f"The last {ended.dropped:,} bytes of output are lost: there were too many."
                )
        if self.interrupted:
            raise asyncio.CancelledError
        return ended.status

    async def _follow(self, workspace: Workspace, run: str, show: Callable[[Output], None]) -> Exited:
        async with aclosing(workspace.output(run)) as events:
            async for event in events:
                match event:
                    case Output():
                        show(event)
                    case Broken(message):
                        self._screen.trouble(f"{message} Trying again…")
                    case Restored():
                        self._screen.restored()
                    case Exited():
                        return event
        raise Unreachable("The session stopped telling about the program.")

    # -- the end ------------------------------------------------------------------------------

    async def _clean_up(self) -> None:
        session = self._session or await self._lost()
        if session is None or session.over:
            return
        await self._client.stop(session.id, exit_code=self._exit_code)

    async def _lost(self) -> Session | None:
        """The session that was asked for, when we never heard its id."""
        mine = await self._client.sessions()
        return next((one for one in mine if one.name == self._options["name"] and not one.over), None)


async def _together(works: Any) -> None:
    """Run them at once; the first failure ends the others and is the only one told."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
