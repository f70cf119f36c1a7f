"""The three things the supervisor asks of the hub, under its own token.

Owns the calls: look at the routes again, which servers are there, stop one. Standard library only, in
threads: the supervisor stays small and its loop free. Goes to the hub itself, never through the proxy.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

_TIMEOUT_S = 15.0
_PAGE = 100


class HubSilent(Exception):
    """The hub did not answer, or not with what it should."""


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """One session as the hub lists it; the default one has an empty name."""

    user: str
    name: str
    waiting: bool

    def __str__(self) -> str:
        return f"{self.user}/{self.name}" if self.name else self.user


class HubCalls:
    """The hub at one address."""

    def __init__(self, api_url: str, token: str) -> None:
        self._api = urlsplit(api_url)
        self._token = token

    async def check_routes(self) -> None:
        """Have the hub write every route into the proxy."""
        await self._call("POST", "/proxy")

    async def servers(self) -> Sequence[Server]:
        """Every session that runs, starts, waits or stops."""
        found: list[Server] = []
        offset: int | None = 0
        while offset is not None:
            page = await self._call("GET", f"/users?state=active&limit={_PAGE}&offset={offset}")
            for user in page["items"]:
                for name, server in user["servers"].items():
                    found.append(Server(user["name"], name, waiting=server.get("pending") == "spawn"))
            following = page["_pagination"]["next"]
            offset = following["offset"] if following else None
        return sorted(found)

    async def stop(self, server: Server) -> None:
        """Stop a session, or cancel one that waits; returns when the hub has taken note."""
        path = f"/users/{quote(server.user, safe='')}"
        path += f"/servers/{quote(server.name, safe='')}" if server.name else "/server"
        await self._call("DELETE", path)

    async def _call(self, method: str, path: str) -> Any:
        return await asyncio.to_thread(self._call_now, method, path)

    def _call_now(self, method: str, path: str) -> Any:
        connection = HTTPConnection(self._api.hostname or "", self._api.port, timeout=_TIMEOUT_S)
        try:
            connection.request(
                method,
                self._api.path.rstrip("/") + path,
                headers={
                    "Authorization": f"token {self._token}",
                    "Accept": "application/jupyterhub-pagination+json",
                },
            )
            response = connection.getresponse()
            body = response.read()
            if response.status >= 300:
                raise HubSilent(f"{method} {path.partition('?')[0]} was answered with {response.status}")
            return json.loads(body) if body else None
        except (OSError, HTTPException, ValueError) as error:
            raise HubSilent(f"{method} {path.partition('?')[0]}: {error}") from None
        finally:
            connection.close()


async def status(url: str, *, timeout_s: float = 5.0) -> int | None:
    """The status with which a web server answers there; None when none does."""
    return await asyncio.to_thread(_status_now, url, timeout_s)


def _status_now(url: str, timeout_s: float) -> int | None:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)
    try:
        connection.request("GET", place.path or "/")
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
