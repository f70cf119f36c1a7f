"""`bkai up`: proxy, service and hub as siblings, from the first check to the last process.

Owns the walk: plan → adopt or start → ready → keep → end. Each step's own rules live beside it.
"""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyterhub_bkai import nodeproxy
from jupyterhub_bkai.client.trusted import TrustedClient
from jupyterhub_bkai.datadir import DataFolder, default_folder, read_facts
from jupyterhub_bkai.errors import PublicError, Unavailable
from jupyterhub_bkai.supervise.console import Console
from jupyterhub_bkai.supervise.ending import SessionsLeft, listed, stop_sessions
from jupyterhub_bkai.supervise.identity import gone
from jupyterhub_bkai.supervise.keeper import keep
from jupyterhub_bkai.supervise.logs import rotate_all
from jupyterhub_bkai.supervise.part import Part, end_process
from jupyterhub_bkai.supervise.parts import HUB, PROXY, SERVICE, recipes
from jupyterhub_bkai.supervise.preflight import ADMINISTRATOR, Asked, CannotStart, Plan, planned
from jupyterhub_bkai.supervise.rest import HubCalls, HubSilent, status

FAILED, REFUSED = 1, 2
_START_S = 120.0
_LOOK_S = 0.1
_LAST_LOOK_S = 15.0
_DETAIL = 300
# Nobody there, no route yet, or nobody behind the route. Anything else is an answer, a refusal included.
_NOT_YET = {None, 404, 502, 503}


def up(
    data: Path | None = None, *, port: int = 8000, host: str = "127.0.0.1", fake: str | None = None
) -> int:
    """Run it until Ctrl-C; the exit code (0 ended as asked, 1 a part failed to start, 2 refused)."""
    console = Console()
    folder = DataFolder(data.resolve()) if data is not None else default_folder()
    try:
        program = nodeproxy.command()
        if fake is not None and fake.endswith(".toml"):
            fake = str(Path(fake).resolve())
        with planned(Asked(folder, host=host, port=port, fake=fake)) as plan:
            console.keep(folder.log / "up.log")
            return asyncio.run(Supervisor(plan, program, console).run())
    except (CannotStart, Unavailable) as refusal:
        console.say(f"bkai up: {refusal}")
        return REFUSED


class NotReady(Exception):
    """A part failed while everything was being started; the text is for the administrator."""


class Supervisor:
    """The three parts of one data folder, and what happens to them."""

    def __init__(self, plan: Plan, proxy_program: Sequence[str], console: Console) -> None:
        self._plan = plan
        self._console = console
        self._parts = [Part(recipe, plan.folder) for recipe in recipes(plan, proxy_program)]
        self._by_name = {part.recipe.name: part for part in self._parts}
        self._hub = HubCalls(plan.addresses.hub_api_url, plan.secrets.supervisor_token)
        self._proxy_started = asyncio.Event()
        self._first_interrupt = asyncio.Event()
        self._second_interrupt = asyncio.Event()
        self._own: list[Part] = []

    async def run(self) -> int:
        """From nothing to nothing."""
        self._listen()
        await self._bring_up()
        routes = asyncio.create_task(self._announce_proxies())
        try:
            try:
                if not await _unless(self._first_interrupt, self._ready()):
                    return await self._end([])
            except NotReady as failure:
                self._console.say(str(failure))
                await self._end_parts(self._own)
                return FAILED
            self._tell_ready()
            return await self._keep_until_interrupted()
        finally:
            routes.cancel()

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        # A closed terminal ends nobody's session: go on without one.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)

    def _interrupt(self) -> None:
        (self._second_interrupt if self._first_interrupt.is_set() else self._first_interrupt).set()

    # -- starting ----------------------------------------------------------------------------

    async def _bring_up(self) -> None:
        """Adopt what runs, end what is in the way, start the rest; all three at once."""
        self._console.say(f"bkai starts; its data is in {self._plan.folder.root}")
        adopted: list[str] = []
        for part in self._parts:
            for leftover in part.adopt():
                await end_process(leftover)
            if part.identity is not None:
                adopted.append(f"{part.recipe.title} (pid {part.identity.pid})")
                continue
            part.start()
            self._own.append(part)
        self._proxy_started.set()
        if adopted:
            self._console.say(f"Already running and taken over: {', '.join(adopted)}.")

    async def _ready(self) -> None:
        """Return when a browser would see the login page."""
        failed = [asyncio.create_task(self._fails(part)) for part in self._parts]
        waiting = asyncio.create_task(self._answers())
        try:
            done, _ = await asyncio.wait(
                [waiting, *failed], timeout=_START_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                raise NotReady(
                    f"The hub does not answer after {_START_S:.0f} s: look into {self._plan.folder.log}."
                )
            for task in done:
                task.result()
        finally:
            for task in (waiting, *failed):
                task.cancel()

    async def _fails(self, part: Part) -> None:
        """Raise when the part ends."""
        if part.identity is not None:
            await gone(part.identity)
        raise NotReady(
            f"The {part.recipe.title} {part.how_it_ended()} while starting: {_last_line(part.log)} "
            f"(the whole of it is in {part.log})."
        )

    async def _answers(self) -> None:
        place = self._plan.addresses
        while not (  # noqa: ASYNC110  these are other processes, which set no event of ours
            self._plan.folder.hub_socket.is_socket()
            # The hub itself first: before it has written its routes, the proxy would log a 404 for each look.
            and await status(place.hub_api_url) == 200
            and await status(f"{place.public_url}/services/bkai/api/v1/info") not in _NOT_YET
            and await status(f"{place.public_url}/hub/login") not in _NOT_YET
        ):
            await asyncio.sleep(_LOOK_S)

    def _tell_ready(self) -> None:
        plan, say = self._plan, self._console.say
        if plan.dummy_login:
            say(
                "WARNING: `auth: dummy` is set, so anybody who reaches this address can log in as anybody, "
                f'also as the administrator "{ADMINISTRATOR}". It is for trying out only.'
            )
        facts = read_facts(plan.folder)
        if facts is not None and facts.fake_devices:
            say(
                facts.statement or "The devices shown are fake: they are booked, but no program can use them."
            )
        if not plan.dummy_login and plan.subdomain_host is None and facts and facts.process_users == "real":
            say(
                "Sessions share one address with the hub, so a page in one person's session can act for whoever opens "
                "it. Set subdomain_host in bkai.yaml where people do not trust each other."
            )
        if plan.first_password is not None:
            self._tell_login(plan.first_password)
        say(
            f"Ready: {plan.subdomain_host or plan.addresses.public_url}   (Ctrl-C ends it and stops all sessions)"
        )

    def _tell_login(self, password: str) -> None:
        """Show the first login, unless the administrator has put another authenticator in its place."""
        folder = self._plan.folder
        if folder.first_login.exists():
            folder.first_login.unlink()
            return
        self._console.say("The administrator's login, shown only now (change it after logging in):")
        self._console.say(f"    name      {ADMINISTRATOR}\n    password  {password}", private=True)
        folder.login_shown.write_text(
            f"The administrator's first password was shown on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.\n"
            "Delete this file to be given a new one at the next start.\n"
        )

    # -- running -----------------------------------------------------------------------------

    async def _keep_until_interrupted(self) -> int:
        logs = [*(part.log for part in self._parts), self._plan.folder.log / "up.log"]
        tasks = [asyncio.create_task(rotate_all(logs, self._console))]
        for part in self._parts:
            restarted = self._proxy_started.set if part.recipe.name == PROXY else _nothing
            tasks.append(asyncio.create_task(keep(part, self._console, restarted=restarted)))
        await self._first_interrupt.wait()
        return await self._end(tasks)

    async def _announce_proxies(self) -> None:
        """A new proxy knows no route: have the hub write them, for the hub looks only now and then."""
        while True:
            await self._proxy_started.wait()
            self._proxy_started.clear()
            while not self._proxy_started.is_set():
                try:
                    await self._hub.check_routes()
                    break
                except HubSilent:
                    await asyncio.sleep(0.5)

    # -- ending ------------------------------------------------------------------------------

    async def _end(self, keeping: Sequence[asyncio.Task[None]]) -> int:
        """Sessions, then service, hub and proxy. Until the sessions have ended, all three are kept running."""
        stopped = await self._stop_sessions()
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        service, hub, proxy = (self._by_name[name] for name in (SERVICE, HUB, PROXY))
        if stopped:
            await service.end()
            # Without the service nobody is granted anything any more: what started a moment ago is the last.
            with contextlib.suppress(SessionsLeft):
                await stop_sessions(self._hub, self._console, patience_s=_LAST_LOOK_S)
        else:
            # Not asked kindly: it would still tidy up what it is just stopping or starting.
            await hub.end(at_once=True)
        await self._end_parts([service, hub, proxy])
        self._console.say("Ended.")
        return 0

    async def _stop_sessions(self) -> bool:
        """True when none is left."""
        # What waits and has no server in the Hub yet would otherwise start by itself next time.
        service = TrustedClient(str(self._plan.folder.hub_socket))
        with contextlib.suppress(PublicError):
            await service.withdraw_all()
        await service.close()
        try:
            if await _unless(self._second_interrupt, stop_sessions(self._hub, self._console)):
                return True
        except SessionsLeft as left:
            self._console.say(f"{left} They are left as they are; the next `bkai up` takes them over.")
            return False
        try:
            servers = await self._hub.servers()
        except HubSilent:
            return False
        if servers:
            self._console.say(f"Left running: {listed(servers)}. The next `bkai up` takes them over.")
        return not servers

    async def _end_parts(self, parts: Sequence[Part]) -> None:
        for part in parts:
            await part.end()


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do some work to its end and return True; give it up and return False when the event comes first."""
    task, interrupted = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait([task, interrupted], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        for each in (task, interrupted):
            each.cancel()
        await asyncio.gather(task, interrupted, return_exceptions=True)


def _nothing() -> None:
    """Nobody has to be told."""


def _last_line(log: Path) -> str:
    """The last thing a part said before it ended."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "it said nothing"
    return lines[-1][:_DETAIL] if lines else "it said nothing"
