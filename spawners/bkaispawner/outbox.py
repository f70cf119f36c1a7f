"""What the service must be told, however long it is away: kept in order for each server, sent until it is heard.

Lives as long as the hub process does; what a killed hub could not say any more, the service finds out itself.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from jupyterhub_bkai.errors import PublicError, Unavailable

log = logging.getLogger(__name__)

Server = tuple[str, str]
Call = Callable[[], Awaitable[None]]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 3.0


class Outbox:
    """Sends beside the caller, who never waits; messages about one server arrive in the order they were put."""

    def __init__(self) -> None:
        self._waiting: dict[Server, deque[tuple[str, Call]]] = {}
        self._senders: dict[Server, asyncio.Task[None]] = {}

    def put(self, server: Server, what: str, call: Call) -> None:
        """Have `call` made as soon as everything before it has been heard."""
        self._waiting.setdefault(server, deque()).append((what, call))
        if server not in self._senders:
            self._senders[server] = asyncio.create_task(self._send(server), name=f"tell about {server}")

    async def settled(self, server: Server, patience_s: float) -> bool:
        """Wait until everything about this server has been heard; False when it takes longer than that."""
        sender = self._senders.get(server)
        if sender is None:
            return True
        done, _ = await asyncio.wait([sender], timeout=patience_s)
        return bool(done)

    async def _send(self, server: Server) -> None:
        waiting = self._waiting[server]
        try:
            while waiting:
                what, call = waiting[0]
                await _until_heard(server, what, call)
                waiting.popleft()
        finally:
            del self._waiting[server], self._senders[server]


async def _until_heard(server: Server, what: str, call: Call) -> None:
    pause = FIRST_PAUSE_S
    while True:
        try:
            await call()
            return
        except Unavailable as error:
            log.debug("%s/%s: '%s' has to wait: %s", *server, what, error)
        except PublicError as error:
            # The service knows better than we do, and finds out the truth about a lease by itself.
            log.warning("%s/%s: the service refused '%s': %s", *server, what, error)
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)
