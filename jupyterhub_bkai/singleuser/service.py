"""`Service`: asks the service about this session, with the session's own token.

Owns the way there: what is sent, how long to wait, and what counts as "does not answer". The token goes into one
request header and nowhere else; answers are handed on as they came.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from jupyterhub_bkai.errors import Unavailable
from jupyterhub_bkai.singleuser.place import Place

if TYPE_CHECKING:
    import httpx

SILENT = "The session service does not answer; your work is not affected."
#: the service says something on every stream each 10 s
QUIET_S = 45.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole JSON answer, unread."""

    status: int
    body: bytes


class Service:
    """The service as seen from one session. Connects on first use: a start must not wait for it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._http: httpx.AsyncClient | None = None

    @property
    def session(self) -> str:
        """The path of this session."""
        return f"/sessions/{quote(self._place.lease, safe='')}"

    async def close(self) -> None:
        """Let go of the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def ask(self, method: str, path: str, body: dict[str, str] | None = None) -> Answer:
        """The answer to one request, whatever its status; `Unavailable` when there is none."""
        import httpx

        try:
            response = await self._client().request(method, self._url(path), json=body)
        except httpx.HTTPError as error:
            raise Unavailable(SILENT) from error
        _require(response, "application/json")
        return Answer(response.status_code, response.content)

    @asynccontextmanager
    async def events(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """An event stream, in pieces as they come. It ends when the service ends it or falls silent."""
        import httpx

        timeout = httpx.Timeout(QUIET_S, connect=5)
        try:
            async with self._client().stream("GET", self._url(path), timeout=timeout) as response:
                _require(response, "text/event-stream")
                yield _pieces(response)
        except httpx.HTTPError as error:
            raise Unavailable(SILENT) from error

    def _url(self, path: str) -> str:
        return f"{self._place.service_url}/api/v1{path}"

    def _client(self) -> "httpx.AsyncClient":
        import httpx

        if self._http is None:
            self._http = httpx.AsyncClient(
                headers={"Authorization": f"token {self._place.token}", "Accept-Encoding": "identity"},
                timeout=httpx.Timeout(15, connect=5),
                follow_redirects=False,  # the token stays with the service
                trust_env=False,  # and meets no proxy of the user's on its way
                # reading the certificate authorities takes 60 ms, which plain http does not need
                verify=self._place.service_url.startswith("https://"),
            )
        return self._http


def _require(response: "httpx.Response", kind: str) -> None:
    """A proxy in front of a dead service answers too, but not in the service's language."""
    said = response.headers.get("content-type", "").partition(";")[0].strip()
    empty = response.status_code == 204
    if said != kind and not empty:
        raise Unavailable(SILENT)


async def _pieces(response: "httpx.Response") -> AsyncIterator[bytes]:
    import httpx

    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.HTTPError:
        return  # broken off or silent: the reader starts again
