"""`Leased`: what makes any spawner ask for a lease before it starts, and give it back when it has ended.

Owns the conversation with the service at start and stop, what is saved so that a new hub finds the session
again, and the words a user reads meanwhile. How a session is run is the base class's business.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from urllib.parse import urlsplit

from jupyterhub.utils import url_path_join, wait_for_http_server
from traitlets import Float, Unicode, default
from traitlets.config import LoggingConfigurable

from bkaispawner import form, progress
from bkaispawner.outbox import FIRST_PAUSE_S, LONGEST_PAUSE_S, Call, Outbox, Server
from bkaispawner.refusal import NotStarted
from jupyterhub_bkai.client.trusted import Denied, Ended, Event, Granted, Lease, TrustedClient
from jupyterhub_bkai.errors import PublicError, Unavailable

if TYPE_CHECKING:
    from jupyterhub.spawner import Spawner as Base
else:  # a mixin: the real base comes after it
    Base = LoggingConfigurable

VERSION = 1
LOOK_EVERY_S = 0.02
#: a new session cannot be announced before what is owed about the former one has been heard
SETTLE_S = 2.0
#: no limit of ours on the wait in the queue: the service has one, and the hub must not have a shorter one
A_YEAR_S = 365 * 24 * 3600
GONE_MESSAGE = (
    "The platform's service does not answer at the moment; your request goes on as soon as it does."
)


class Leased(Base):
    """Put before any spawner (`class X(Leased, SomeSpawner)`, or `leased(SomeSpawner)`) to lease its sessions.

    The base needs to know nothing, and none of its names is touched: our own private ones are mangled. It may
    give `apply`, `handle`, `launch_saved`, `answers` and `exit_code` a meaning of its own.
    """

    service_socket = Unicode(
        config=True, help="The Unix socket on which the service listens for the hub alone (`run/hub.sock`)."
    )
    unreachable_limit = Float(
        900,
        config=True,
        help="Seconds for which a start goes on trying while the service does not answer at all.",
    )
    boot_limit = Float(300, config=True, help="Seconds a launched session may take until its server answers.")

    lease: Lease | None = None
    #: the exit code of a session that has ended, where the base knows it
    exit_code: int | None = None

    __lease_id: str | None = None
    __url: str | None = None
    __routing: "asyncio.Task[None] | None" = None
    #: a request of ours may wait at the service
    __asking = False
    #: a former hub started the session, and the service has not heard of us
    __adopted = False
    __cancelled = False
    __stopped = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__story = progress.Story()

    # -- for the base class to say -----------------------------------------------------------

    def apply(self, lease: Lease) -> None:
        """Take from the lease what `start()` reads. Pure: sets attributes of this spawner, nothing else."""

    def handle(self) -> dict[str, Any]:
        """What the service should remember of a session just launched."""
        return {"kind": "spawner", "class": type(self).__name__}

    def launch_saved(self) -> None:
        """Called when a killed hub would find the session again: from here on it may live by itself."""

    async def answers(self, url: str) -> bool:
        """Wait until the session answers; False to have it launched once more, an error when it cannot."""
        place = urlsplit(url)
        while place.hostname and place.port and not await port_open(place.hostname, place.port):
            code = await self.poll()
            if code is not None:
                raise NotStarted(
                    f"The session's server ended while it was starting (exit code {code}); its log says why.",
                    reason="exited",
                )
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    # -- what the Hub calls ------------------------------------------------------------------

    async def start(self) -> Any:
        """Ask for a lease, wait for it as long as it takes, start with it, return when the session answers."""
        self.__story = progress.Story()
        self.__asking, self.__cancelled, self.__stopped, self.exit_code = True, False, False, None
        try:
            lease = await self.__granted()
            self.lease, self.__lease_id, self.__asking = lease, lease.id, False
            self.apply(lease)
            self.__story.say("launch", progress.LAUNCHED, f"Starting {lease.image}.")
            await self.__run(lease)
        except asyncio.CancelledError:
            # The service is told in run_post_stop_hook, which follows unless it is the hub itself that ends.
            self.__cancelled = True
            raise
        self.__story.say("answering", progress.ANSWERING, "The session answers.")
        return self.__url

    async def stop(self, now: bool = False) -> None:
        """Stop the session; that it has ended is said afterwards (`run_post_stop_hook`), whoever listens."""
        self.__stopped = True
        await super().stop(now=now)

    async def progress(self) -> AsyncGenerator[dict[str, Any], None]:
        """The story of this start, from its beginning for each viewer."""
        async with aclosing(self.__story.view()) as entries:
            async for entry in entries:
                yield entry

    def get_state(self) -> dict[str, Any]:
        """What a new hub needs to know of a session that it did not start itself."""
        state: dict[str, Any] = super().get_state()
        if self.__lease_id:
            # The token is saved because a hub that adopts the session has to revoke it when it stops.
            ours = {"v": VERSION, "lease": self.__lease_id, "url": self.__url, "token": self.api_token}
            state["bkai"] = ours
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Adopt the session that a former hub started, if it saved one."""
        super().load_state(state)
        ours = state.get("bkai") or {}
        if ours.get("v") == VERSION:
            self.__lease_id, self.__url, self.api_token = ours["lease"], ours["url"], ours["token"]
            self.__adopted = True

    def clear_state(self) -> None:
        """Forget the session; a lease that is still with us is given back."""
        self.__give_back()
        self.__url, self.__adopted, self.lease = None, False, None
        super().clear_state()

    async def poll(self) -> int | None:
        """As the base says; when a new hub asks for the first time, only once the session answers or has ended.

        The Hub itself would wait afterwards, deaf to the session's end and without any of our own tests.
        """
        if self.__adopted and self._check_pending and self.__lease_id and self.__url:
            self.__adopted = False
            return await self.__still_there(self.__lease_id, self.__url)
        status: int | None = await super().poll()
        return status

    async def get_url(self) -> str:
        """Where the session answers; asked by a new hub that has found it running."""
        return self.__url or str(await super().get_url())

    def start_polling(self) -> None:
        """Also the Hub's last word in its look at an adopted session, which may come after its look at the routes."""
        super().start_polling()
        if self._check_pending:
            self.__routing = asyncio.create_task(self.__route(), name=f"route of {self._log_name}")

    def get_env(self) -> dict[str, str]:
        """The session's environment: the user's variables at the bottom, the Hub's over them, ours on top."""
        lease = self.lease
        base: dict[str, str] = super().get_env()
        if lease is None:
            return base
        # What is kept of the hub's environment (the language, say) is only a default.
        kept = {name: base.pop(name) for name in self.env_keep if name in base}
        return {**kept, **lease.environment, **base, **lease.variables, "BKAI_LEASE_ID": lease.id}

    def options_from_query(self, query_data: dict[str, list[str]]) -> NoReturn:
        """An address starts nothing: its options are shown in the form, and the form is sent with its token."""
        form.linked(query_data, self)

    def run_post_stop_hook(self) -> Any:
        """Give back what this start got, or withdraw what it asked for: here also ends a cancelled start.

        Only sends a message on its way, since the Hub's page waits for us.
        """
        if self.__lease_id:
            self.__give_back()
        elif self.__asking:
            self.__asking = False
            self.__withdraw()
        return super().run_post_stop_hook()

    @default("apply_user_options")
    def _options_are_the_services(self) -> Any:
        return lambda spawner, user_options: None

    @default("start_timeout")
    def _as_long_as_the_queue(self) -> int:
        return A_YEAR_S

    @default("options_form")
    def _our_form(self) -> Any:
        return form.render

    @default("options_from_form")
    def _our_options(self) -> Any:
        return form.submitted

    # -- asking -------------------------------------------------------------------------------

    @property
    def trusted(self) -> TrustedClient:
        """The line to the service, also used by the form."""
        return self.__line.client

    async def __granted(self) -> Lease:
        """The lease, however long it takes; a refusal as the Hub's own, with the service's sentence."""
        loop = asyncio.get_running_loop()
        lost_at: float | None = None
        pause = FIRST_PAUSE_S
        while True:
            try:
                if not await self.__line.outbox.settled(self.__server, SETTLE_S):
                    raise Unavailable(GONE_MESSAGE)
                async with aclosing(self.__ask()) as events:
                    async for event in events:
                        lost_at, pause = None, FIRST_PAUSE_S
                        if isinstance(event, Granted):
                            return event.lease
                        if isinstance(event, Ended):
                            self.__refuse_ended(event)
                        self.__story.relate(event)
            except Unavailable as error:
                lost_at = lost_at or loop.time()
                if loop.time() - lost_at > self.unreachable_limit:
                    self.__refuse(error)
                self.log.debug("%s: no lease yet: %s", self._log_name, error)
            except PublicError as error:
                self.__asking = not isinstance(error, Denied)
                self.__refuse(error)
            self.__story.say("lost", progress.ASKED, GONE_MESSAGE)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def __ask(self) -> AsyncGenerator[Event, None]:
        user, server = self.__server
        groups = [group.name for group in self.user.groups]
        # What JSON cannot say (NaN, bytes) goes as text, so that the service's sentence names the field.
        options = json.loads(json.dumps(self.user_options or {}, default=str), parse_constant=str)
        return self.__line.client.acquire(user, server, groups, bool(self.user.admin), options)

    def __refuse_ended(self, event: Ended) -> NoReturn:
        self.__asking = False
        status = 500 if event.state == "ERROR" else 409
        raise NotStarted(event.message, reason=event.reason, status=status)

    def __refuse(self, error: PublicError) -> NoReturn:
        sentences = [error.message, *(text for text in error.fields.values() if text not in error.message)]
        raise NotStarted(" ".join(sentences), reason=error.reason, status=error.status)

    # -- starting -----------------------------------------------------------------------------

    async def __run(self, lease: Lease) -> None:
        """Launch until it answers, within the limit."""
        try:
            async with asyncio.timeout(self.boot_limit):
                while not await self.__launched(lease):
                    self.log.info("lease %s: the session is launched once more", lease.id)
        except TimeoutError:
            raise NotStarted(
                f"The session's server did not answer within {self.boot_limit:g} seconds; its log says why.",
                reason="slow",
            ) from None
        self.__tell("ready", partial(self.trusted.ready, lease.id))

    async def __launched(self, lease: Lease) -> bool:
        """One launch: saved before anything can interrupt us, told, and waited for."""
        # No await between the launch inside start() and save(): a hub killed here must not lose the session.
        place = await super().start()
        self.__url = place if isinstance(place, str) else f"http://{place[0]}:{place[1]}"
        self.save()
        self.launch_saved()
        self.__tell("started", partial(self.trusted.started, lease.id, self.handle()))
        return await self.answers(self.__url)

    def save(self) -> None:
        """Commit what a new hub needs to find this session. The Hub itself does so only after `start()`."""
        self.orm_spawner.state = self.get_state()
        self.user.db.commit()

    # -- adopting -----------------------------------------------------------------------------

    async def __still_there(self, lease_id: str, url: str) -> int | None:
        """None once the adopted session answers, else how it ended; the service may have missed what was said."""
        self.__tell("started", partial(self.trusted.started, lease_id, self.handle()))
        answering = asyncio.create_task(self.__answering(url), name=f"look at {self._log_name}")
        try:
            while not answering.done():
                ended: int | None = await super().poll()
                if ended is not None:
                    return ended
                await asyncio.wait({answering}, timeout=LOOK_EVERY_S)
            await answering
        except (TimeoutError, NotStarted) as error:
            self.log.warning("lease %s: the adopted session does not answer: %s", lease_id, error)
            return await super().poll() or 1
        finally:
            answering.cancel()
            # A stop came between: the Hub is to find everything as the stop leaves it.
            while self._stop_pending:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY_S)
        if self.__lease_id != lease_id:
            return 0
        self.__tell("ready", partial(self.trusted.ready, lease_id))
        return None

    async def __answering(self, url: str) -> None:
        async with asyncio.timeout(self.boot_limit):
            if not await self.answers(url):
                raise NotStarted("Another program took its port.", reason="exited")
            if self.internal_ssl or self.server is None:
                return  # the Hub looks for itself
            await wait_for_http_server(url_path_join(url, self.server.base_url, "api"), self.boot_limit)

    async def __route(self) -> None:
        """Have the proxy lead to the adopted session at once: the Hub waits until it has looked at all of them."""
        if not self.ready:
            return
        try:
            await self.user.settings["proxy"].add_user(self.user, self.name)
        except Exception:
            # The Hub does it when it has looked at the others.
            self.log.exception("%s: no route yet", self._log_name)

    # -- telling ------------------------------------------------------------------------------

    def __give_back(self) -> None:
        """Tell the service that nothing of ours runs under the lease any more; once."""
        lease_id, self.__lease_id = self.__lease_id, None
        if lease_id is None:
            return
        if self.__cancelled:
            self.__withdraw()
            return
        cause: Literal["stopped", "exited"] = "stopped" if self.__stopped else "exited"
        self.__tell("release", partial(self.trusted.release, lease_id, cause, self.exit_code))

    def __withdraw(self) -> None:
        self.__tell("withdraw", partial(self.trusted.withdraw, *self.__server))

    def __tell(self, what: str, call: Call) -> None:
        self.__line.outbox.put(self.__server, what, call)

    @property
    def __line(self) -> "Line":
        if not self.service_socket:
            raise NotStarted(
                "This hub does not know its service; the administrator has to set Leased.service_socket.",
                reason="configuration",
            )
        return line(self.service_socket)

    @property
    def __server(self) -> Server:
        """Who and what the lease is for; from the Hub's own objects, never from what the user sent."""
        return self.user.name, self.name


@dataclass(frozen=True)
class Line:
    """The hub's connection to one service, shared by all its spawners."""

    client: TrustedClient
    outbox: Outbox


@cache
def line(service_socket: str) -> Line:
    """The one line to the service behind this socket."""
    return Line(TrustedClient(service_socket), Outbox())


def leased(base: type) -> type:
    """`base` with leases: `c.JupyterHub.spawner_class = leased(SystemdSpawner)`."""
    return type(f"Leased{base.__name__}", (Leased, base), {"__doc__": base.__doc__})


async def port_open(host: str, port: int) -> bool:
    """True when something takes connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
