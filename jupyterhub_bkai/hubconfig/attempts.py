"""Wrong passwords, counted by name and by where they come from, so that nobody can lock out somebody elsewhere.

Owns the counts and the address; what a refused attempt is told is the authenticator's. Nothing is kept on disk.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tornado.httputil import HTTPServerRequest

#: so many names and addresses are remembered; the oldest go first
MOST = 10_000

Who = tuple[str, str]


@dataclass(slots=True)
class _Wrong:
    count: int
    at: float


class Attempts:
    """What was tried in vain of late. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: dict[Who, _Wrong] = {}

    def pause_s(self, who: Who, allowed: int, pause_s: float) -> float:
        """For how long this one has to wait; 0 where nothing stands in the way."""
        wrong = self._wrong.get(who)
        if wrong is None or not allowed or wrong.count < allowed:
            return 0.0
        return max(0.0, wrong.at + pause_s - self._clock())

    def wrong(self, who: Who) -> None:
        """Note a wrong password."""
        before = self._wrong.pop(who, None)  # put in anew, so that the first is the oldest
        self._wrong[who] = _Wrong((before.count if before else 0) + 1, self._clock())
        if len(self._wrong) > MOST:
            del self._wrong[next(iter(self._wrong))]

    def right(self, who: Who) -> None:
        """Forget what was wrong before."""
        self._wrong.pop(who, None)


def address(request: HTTPServerRequest) -> str:
    """Where a request comes from, as far as those say whom we know: the connection, and what runs on this machine.

    A proxy on this machine appends to X-Forwarded-For whom it serves; what others write into it counts for nothing.
    """
    chain = [part.strip() for part in ",".join(request.headers.get_list("X-Forwarded-For")).split(",")]
    nearest = _peer(request)
    while _is_loopback(nearest) and chain:
        before = chain.pop()
        if not _parsed(before):
            break
        nearest = before
    parsed = _parsed(nearest)
    if isinstance(parsed, ipaddress.IPv6Address):  # who has one address has the whole network
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return nearest


def _peer(request: HTTPServerRequest) -> str:
    """The other end of the connection; tornado's `remote_ip` is already what headers say."""
    stream: Any = getattr(request.connection, "stream", None)
    try:
        return str(stream.socket.getpeername()[0])
    except (AttributeError, OSError, IndexError):
        return ""


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _is_loopback(text: str) -> bool:
    found = _parsed(text)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found is not None and found.is_loopback
