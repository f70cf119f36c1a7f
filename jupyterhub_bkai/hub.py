"""The Hub's REST as the service needs it: who somebody is, which servers there are, start one, stop one.

Owns the calls and what their answers mean; decides nothing. Its token has the scopes `servers`, `read:users:name`
and `read:users:groups`, nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from jupyterhub_bkai.errors import PublicError, Unavailable


class HubUnavailable(Unavailable):
    """The Hub does not answer, or answers that it cannot now."""

    default_reason = "hub-unavailable"


class HubRefused(PublicError):
    """The Hub understood and said no; its sentence is passed on."""

    status = 409
    default_reason = "hub-refused"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that the Hub lists. `pending` is "spawn", "stop" or None."""

    name: str
    ready: bool
    pending: str | None
    stopped: bool


@dataclass(frozen=True, slots=True)
class User:
    """A user as the Hub knows them, with the servers that are active."""

    name: str
    admin: bool
    groups: tuple[str, ...]
    servers: Mapping[str, Server]


class Hub:
    """One Hub. `api_url` ends in `/hub/api`; `token` is the service's own."""

    def __init__(self, api_url: str, token: str) -> None:
        self.api_url = api_url.rstrip("/")
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"token {token}"}, timeout=httpx.Timeout(15, connect=3), trust_env=False
        )

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.aclose()

    async def user(self, name: str) -> User | None:
        """A user with active servers; None when the Hub does not know the name. Raises `HubUnavailable`."""
        answer = await self._call("GET", f"/users/{quote(name, safe='')}")
        if answer.status_code == 404:
            return None
        body = _checked(answer).json()
        servers = {
            key: Server(key, bool(s.get("ready")), s.get("pending"), bool(s.get("stopped")))
            for key, s in (body.get("servers") or {}).items()
        }
        return User(body["name"], bool(body.get("admin")), tuple(body.get("groups") or ()), servers)

    async def start(self, user: str, server: str) -> None:
        """Asks for a server to be started, with no options: the stored request counts.

        Raises `HubRefused` with the Hub's reason, `HubUnavailable` when it could not be asked.
        """
        answer = await self._call("POST", _server_path(user, server))
        if answer.status_code == 400 and "already running" in answer.text:
            return
        if answer.status_code == 429:
            raise HubUnavailable("The Hub is starting as many servers as it can; it is asked again.")
        _checked(answer)

    async def stop(self, user: str, server: str, *, remove: bool = False) -> bool:
        """Asks for a server to be stopped (and forgotten). True when the Hub has no such server active any more."""
        body = {"remove": True} if remove and server else None
        answer = await self._call("DELETE", _server_path(user, server), json=body)
        if answer.status_code in (204, 404):
            return True
        if answer.status_code in (202, 400):
            return False
        _checked(answer)
        return False

    async def _call(self, method: str, path: str, json: object = None) -> httpx.Response:
        try:
            answer = await self._client.request(method, self.api_url + path, json=json)
        except httpx.HTTPError as error:
            raise HubUnavailable("The Hub does not answer; try again in a moment.") from error
        if answer.status_code >= 500:
            raise HubUnavailable(f"The Hub cannot do that now ({answer.status_code}); try again in a moment.")
        return answer


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code >= 400:
        try:
            message = str(answer.json().get("message") or answer.reason_phrase)
        except ValueError:
            message = answer.reason_phrase
        raise HubRefused(f"The Hub refused: {message}")
    return answer


def _server_path(user: str, server: str) -> str:
    owner = f"/users/{quote(user, safe='')}"
    return f"{owner}/servers/{quote(server, safe='')}" if server else f"{owner}/server"
