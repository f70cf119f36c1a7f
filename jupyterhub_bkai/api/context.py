"""What every handler can reach; made once by the service's `app`."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, thread_time
from typing import Any, Protocol

from jupyterhub_bkai.api.gauges import Gauges
from jupyterhub_bkai.api.tickets import Tickets
from jupyterhub_bkai.gpus.fit import Books
from jupyterhub_bkai.hub import Hub, User
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.forecast import Forecast
from jupyterhub_bkai.leasing.reconcile import Reconciler
from jupyterhub_bkai.model import Node
from jupyterhub_bkai.options import GroupOffer, ImageOffer
from jupyterhub_bkai.policy import Settings
from jupyterhub_bkai.store.database import Database


@dataclass(frozen=True, slots=True)
class Realised:
    """An image version on this machine: the interpreter sessions run with, and its folder."""

    python: str
    folder: str


class Images(Protocol):
    """The image versions there are, and how one is made ready."""

    def offers(self) -> tuple[ImageOffer, ...]:
        """Every version."""

    def ready(self, version: str) -> Realised | None:
        """The version on this machine; None while it has not been made."""

    async def realise(self, version: str, tell: Callable[[int | None, str], None]) -> Realised:
        """Makes it; joins one being made. Raises `PublicError` with the reason it cannot be made."""


@dataclass(slots=True)
class Context:
    """The parts of the running service."""

    database: Database
    broker: Broker
    reconciler: Reconciler
    hub: Hub
    images: Images
    now_ms: Callable[[], int]
    public_url: str
    session_logs: Path
    fake: bool = False
    statement: str = ""
    process_users: str = "single"
    enforcement: str = "booked, not enforced"
    template_settings: Mapping[str, Any] = field(default_factory=dict)
    people: "People | None" = None
    tickets: Tickets = field(default_factory=Tickets)
    #: what there is in each group, and of which machines and settings that was read
    rooms: dict[str, tuple[Sequence[Node], Settings, GroupOffer]] = field(default_factory=dict)
    #: how many devices of each group take something and what is free of them, and of which books that was read:
    #: everybody who looks on is told at each change
    free: dict[str, tuple[Books, int, int, str]] = field(default_factory=dict)
    #: how many event streams each person has open
    streams: Counter[str] = field(default_factory=Counter)
    gauges: Gauges = field(init=False)
    forecast: Forecast = field(init=False)

    def __post_init__(self) -> None:
        self.gauges = Gauges(self.broker, monotonic)
        self.forecast = Forecast(self.broker, self.now_ms, monotonic, thread_time)

    @property
    def settings(self) -> Settings:
        """The administrator's settings as they are now."""
        return self.broker.settings

    async def person(self, name: str) -> User | None:
        """A user as the Hub knows them, asked at most once in ten seconds."""
        if self.people is None:
            self.people = People(self.hub.user, self.now_ms)
        return await self.people.look(name)


class People:
    """Remembers for ten seconds what the Hub said about a user."""

    KEEP_MS = 10_000

    def __init__(self, ask: Callable[[str], Awaitable[User | None]], now_ms: Callable[[], int]) -> None:
        self._ask = ask
        self._now_ms = now_ms
        self._known: dict[str, tuple[int, User | None]] = {}

    async def look(self, name: str) -> User | None:
        """The user, or None when the Hub does not know the name."""
        at, user = self._known.get(name, (-self.KEEP_MS, None))
        if 0 <= self._now_ms() - at < self.KEEP_MS:
            return user
        user = await self._ask(name)
        self._known = {n: k for n, k in self._known.items() if self._now_ms() - k[0] < self.KEEP_MS}
        self._known[name] = (self._now_ms(), user)
        return user
