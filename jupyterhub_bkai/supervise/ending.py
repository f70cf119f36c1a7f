"""Stopping the sessions of a hub that is about to end.

Owns the order: what waits is cancelled before what runs is stopped, since each stopped session would
otherwise make room for one that waits.
"""

import asyncio
from collections.abc import Sequence

from jupyterhub_bkai.supervise.console import Console
from jupyterhub_bkai.supervise.rest import HubCalls, HubSilent, Server

#: Longer than a session is given to end by itself before it is killed.
PATIENCE_S = 120.0
_SILENT_S = 20.0
_LOOK_S = 0.3
_ASK_AGAIN_S = 10.0
_TELL_S = 10.0


class SessionsLeft(Exception):
    """Not every session could be stopped; the text says what is known about them."""


async def stop_sessions(hub: HubCalls, console: Console, *, patience_s: float = PATIENCE_S) -> None:
    """Return when the hub lists no session any more, or raise `SessionsLeft`."""
    loop = asyncio.get_running_loop()
    began = heard = told = loop.time()
    asked: dict[tuple[str, str], float] = {}
    announced = False
    while True:
        now = loop.time()
        try:
            servers = await hub.servers()
        except HubSilent as error:
            if now - heard > _SILENT_S:
                raise SessionsLeft(
                    f"The hub does not answer, so no session could be stopped ({error})."
                ) from None
            await asyncio.sleep(_LOOK_S)
            continue
        heard = loop.time()
        if not servers:
            return
        if now - began > patience_s:
            raise SessionsLeft(f"Still running after {patience_s:.0f} s: {listed(servers)}.")
        if not announced:
            announced = True
            console.say(f"Stopping {counted(servers)}: {listed(servers)}. Ctrl-C again leaves them running.")
        elif now - told > _TELL_S:
            told = now
            console.say(f"Still stopping {counted(servers)}: {listed(servers)}.")
        await _ask(hub, servers, asked, now)
        await asyncio.sleep(_LOOK_S)


async def _ask(
    hub: HubCalls, servers: Sequence[Server], asked: dict[tuple[str, str], float], now: float
) -> None:
    """Ask for the end of those that were not asked lately, the waiting ones first."""
    due = [server for server in servers if now - asked.get((server.user, server.name), -1e9) > _ASK_AGAIN_S]
    waiting = [server for server in due if server.waiting]
    for server in waiting or due:
        asked[server.user, server.name] = now
    # A refusal (it ended meanwhile, it is just being started) shows in the next list.
    await asyncio.gather(*(hub.stop(server) for server in waiting or due), return_exceptions=True)


def counted(servers: Sequence[Server]) -> str:
    """How many, in words."""
    return "1 session" if len(servers) == 1 else f"{len(servers)} sessions"


def listed(servers: Sequence[Server], most: int = 8) -> str:
    """Which, the first few by name."""
    names = ", ".join(str(server) for server in servers[:most])
    return names if len(servers) <= most else f"{names} and {len(servers) - most} more"
