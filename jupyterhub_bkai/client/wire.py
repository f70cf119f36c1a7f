"""One pool of connections to the service: requests out, answers or our own errors back.

Owns the address, the token and the meaning of every status and of every HTTP failure. Knows no noun.
The token goes to the service's own host (or a subdomain of it, where each user has one) and nowhere else.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from jupyterhub_bkai.client.errors import BkaiError, NotLoggedIn, Refused, ServerProblem, Unreachable

SERVICE = "/services/bkai"
PAGES = ("hub", "services", "user")
TIMEOUT = httpx.Timeout(30, connect=10)
#: a stream that is silent for longer than this is broken: the service says something every 10 s
STREAM_TIMEOUT = httpx.Timeout(45, connect=10)
#: a proxy from the environment is never meant for this machine itself
DIRECT: dict[str, httpx.AsyncBaseTransport | None] = {
    f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")
}


def service_url(address: str) -> str:
    """The service's address from what people paste: the hub's address, or that of any of its pages."""
    try:
        parts = urlsplit(address.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise BkaiError(
            f"{address!r} is not a web address; give the hub's, like https://hub.example.org",
            reason="bad-address",
        )
    if "@" in parts.netloc:
        raise BkaiError("Leave the user name and password out of the address.", reason="bad-address")
    base: list[str] = []
    for segment in filter(None, parts.path.split("/")):
        if segment in PAGES:
            break
        base.append(f"/{segment}")
    return urlunsplit((parts.scheme, parts.netloc, "".join(base) + SERVICE, "", ""))


class Wire:
    """Speaks HTTP to one service with one token. `transport` replaces the network (see `fake`)."""

    def __init__(self, url: str, token: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = service_url(url)
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise NotLoggedIn("There is no usable token: it is empty or has characters that no token has.")
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"token {token}", "User-Agent": "bkai"},
            timeout=TIMEOUT,
            transport=transport,
            mounts=None if transport else DIRECT,
            # reading the certificate authorities takes 40 ms, which plain http does not need
            verify=urlsplit(self.url).scheme == "https",
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    @property
    def origin(self) -> str:
        """The hub's scheme, host and port."""
        return urljoin(self.url, "/").rstrip("/")

    def absolute(self, url: str) -> str:
        """`url`, which the service gave, as a full address on the hub's own host; ends in "/"."""
        full = urljoin(self.url, url)
        ours, theirs = urlsplit(self.url), urlsplit(full)
        host = theirs.hostname or ""
        same = host == ours.hostname or host.endswith(f".{ours.hostname}")
        if theirs.scheme != ours.scheme or not same:
            raise ServerProblem(f"The service names an address on another host ({host}); not followed.")
        return full.rstrip("/") + "/"

    def api(self, path: str) -> str:
        """The full address of a path of the public REST."""
        return f"{self.url}/api/v1{path}"

    async def json(self, method: str, url: str, **request: Any) -> Any:
        """The parsed answer to one request."""
        response = await self.send(method, url, **request)
        return _parsed(response)

    async def send(self, method: str, url: str, **request: Any) -> httpx.Response:
        """The whole answer to one request, known to be a success."""
        async with self.stream(method, url, timeout=TIMEOUT, **request) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, timeout: httpx.Timeout = STREAM_TIMEOUT, **request: Any
    ) -> AsyncIterator[httpx.Response]:
        """The answer to one request while it arrives; its headers already say success."""
        try:
            async with self._http.stream(method, url, timeout=timeout, **request) as response:
                if not response.is_success:
                    await response.aread()
                    raise _problem(response, self.origin, url.startswith(self.url))
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(error, self.origin) from error


async def lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """The lines of an answer as they arrive, cut at line feeds only (data may hold other separators)."""
    rest = b""
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_bytes())) as pieces:
        async for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace").removesuffix("\r")
    if rest:
        yield rest.decode("utf-8", "replace")


def _parsed(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise ServerProblem(
            f"{response.url.path} answered something that is not JSON; is the hub's address right?"
        ) from error


def _unreachable(error: Exception, origin: str) -> BkaiError:
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return BkaiError(f"{origin} is not a usable web address.", reason="bad-address")
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return Unreachable(f"{origin} does not answer; check the address and your network.")
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{origin} was asked, but has not answered in time; try again.")
    if isinstance(error, httpx.ConnectError):
        return Unreachable(f"Nothing answers at {origin} ({_cause(error)}); is the hub running?")
    return Unreachable(f"The connection to {origin} broke off ({_cause(error)}); try again.")


def _cause(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _problem(response: httpx.Response, origin: str, of_service: bool) -> BkaiError:
    """What an unsuccessful answer means, in our words."""
    status, ours = response.status_code, _error_body(response)
    if not of_service and not ours and _instead_of_session(response):
        return Unreachable("The session cannot be reached through the hub (yet).")
    if status == 401 or response.is_redirect:
        return NotLoggedIn(f"{origin} does not accept the token: it is wrong or has expired. Log in again.")
    if ours and status < 500:
        fields = ours.get("fields")
        return Refused(
            str(ours.get("message") or "The service refused this."),
            reason=str(ours.get("reason") or "refused"),
            fields={str(k): str(v) for k, v in fields.items()} if isinstance(fields, Mapping) else None,
        )
    if ours:
        kind = (
            Unreachable if status == 503 else ServerProblem
        )  # 503: for the moment, as while the hub restarts
        return kind(str(ours.get("message") or "The service failed."), reason=str(ours.get("reason") or ""))
    if status in (502, 503, 504):
        return Unreachable(f"The hub at {origin} answers, but what was asked for behind it does not (yet).")
    if status == 404:
        return Unreachable(f"There is no bkai service at {origin}; is that the hub's address?")
    return _foreign(response)


def _instead_of_session(response: httpx.Response) -> bool:
    """True when hub or proxy answers in place of a session that is only just starting, or has just gone.

    The hub then refuses everything but GET for want of an XSRF token, before it looks who is asking; and the
    session itself fails while it cannot ask the hub whose token this is.
    """
    refused = response.status_code == 403 and response.request.method != "GET"
    return refused or response.is_redirect or response.is_server_error or response.status_code in (404, 424)


def _foreign(response: httpx.Response) -> BkaiError:
    """An error that is not the service's own: the hub's, a proxy's, a session's."""
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{response.url.path} answered {response.status_code} {response.reason_phrase}"
    if response.is_client_error:
        return Refused(message, reason=f"http-{response.status_code}")
    return ServerProblem(message)


def _error_body(response: httpx.Response) -> Mapping[str, Any] | None:
    try:
        body = json.loads(response.content)
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, Mapping) else None
