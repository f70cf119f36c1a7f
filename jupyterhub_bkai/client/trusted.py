"""The hub's side of the trusted API: leases asked for, followed and given back, over a Unix socket.

Owns the wire format of that API and nothing of what is done with a lease. Errors are sentences for users:

    Denied                  the service says no; its own words, reason and status
    Unavailable             nothing answers, try again
    └── BrokenStream        it did answer, then broke off; the request itself is kept by the service
    Misunderstood      502  it answered, but not as agreed
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import httpx

from jupyterhub_bkai.errors import PublicError, Unavailable

Json = Mapping[str, Any]
#: the service says something on every stream each 10 s; whoever is silent for longer is gone
STREAM_TIMEOUT = httpx.Timeout(30, connect=5)
CALL_TIMEOUT = httpx.Timeout(15, connect=5)


class Denied(PublicError):
    """The service refuses; `status` is the HTTP status that says why."""

    def __init__(self, message: str, *, status: int, reason: str, fields: Mapping[str, str]) -> None:
        super().__init__(message, reason=reason, fields=fields)
        self.status = status


class BrokenStream(Unavailable):
    """The stream of a request ended without its last event."""

    default_reason = "broken-stream"


class Misunderstood(PublicError):
    """The service answered, but with nothing that this client understands."""

    status = 502
    default_reason = "misunderstood"


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of one device, as a lease holds it. `share` is a fraction of the device, like "1/4"."""

    device: str
    index: int
    slot: str
    model: str
    share: str
    memory_mib: int
    sm_milli: int
    mig: Json | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A shared folder the session gets. `mode` is "ro" or "rw"."""

    name: str
    path: str
    mode: str


@dataclass(frozen=True, slots=True)
class Lease:
    """What a session may use, and how it is to be started: everything a spawner needs to know.

    `environment` is what the user declared (ours goes over it), `variables` is ours (it goes over all).
    """

    id: str
    user: str
    server: str
    image: str
    python: str
    env: str
    node: str = "local"
    cpu_milli: int = 0
    memory_mib: int = 0
    shm_mib: int = 0
    slices: tuple[Slice, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Folder, ...] = ()
    deadline: str | None = None
    session_type: str = "interactive"
    fake: bool = False


@dataclass(frozen=True, slots=True)
class Queued:
    """Waiting at `position`, because of `why`; `asked` says in words what for."""

    request: str
    position: int
    why: str
    message: str
    asked: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preparing:
    """Slices are held; the image version is being looked at. `asked` says in words what was asked for."""

    message: str
    asked: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pulling:
    """The image version is being made; `percent` is None while nobody can tell."""

    percent: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Granted:
    """The last event: start now."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event: do not start."""

    state: str
    reason: str
    message: str


Part = TypeVar("Part", Slice, Folder)
Event = Queued | Preparing | Pulling | Granted | Ended


class TrustedClient:
    """Speaks for the hub to the service behind one Unix socket; made once, used by every spawner."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self._http = httpx.AsyncClient(
            base_url="http://bkai/trusted/v1/",
            # Every waiting user holds a stream open, so the number of connections must not be limited.
            # `verify` only spares reading the certificate authorities, which a Unix socket has no use for.
            transport=httpx.AsyncHTTPTransport(
                uds=socket_path, verify=False, limits=httpx.Limits(max_keepalive_connections=4)
            ),
            timeout=CALL_TIMEOUT,
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def acquire(
        self, user: str, server: str, groups: Sequence[str], admin: bool, options: Json
    ) -> AsyncGenerator[Event, None]:
        """Ask for a lease, or attach to the request that waits for this server; ends with the last event."""
        body = {**_person(user, groups, admin), "server": server, "options": dict(options)}
        try:
            async with self._http.stream("POST", "acquire", json=body, timeout=STREAM_TIMEOUT) as response:
                if not response.is_success:
                    await response.aread()
                    raise _problem(response)
                async for line in _lines(response):
                    event = _event(line)
                    if event is not None:
                        yield event
                    if isinstance(event, Granted | Ended):
                        return
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        raise BrokenStream("The platform's service ended the conversation before it had an answer.")

    async def started(self, lease_id: str, handle: Json) -> None:
        """The session of the lease has been launched; `handle` says as what."""
        await self._call(f"leases/{lease_id}/started", {"handle": dict(handle)})

    async def ready(self, lease_id: str) -> None:
        """The session of the lease answers."""
        await self._call(f"leases/{lease_id}/ready", {})

    async def release(
        self, lease_id: str, cause: Literal["stopped", "exited"], exit_code: int | None = None
    ) -> None:
        """The session of the lease has ended; harmless when the service already knows."""
        await self._call(f"leases/{lease_id}/release", {"cause": cause, "exit_code": exit_code})

    async def withdraw(self, user: str, server: str) -> None:
        """Whatever was asked for this server is not wanted any more; harmless when there is nothing."""
        await self._call("withdraw", {"user": user, "server": server})

    async def withdraw_all(self) -> None:
        """The site ends: whatever waits is withdrawn, also what the Hub does not know of yet."""
        await self._call("withdraw-all", {})

    async def choices(self, user: str, groups: Sequence[str], admin: bool) -> Json:
        """What this person may choose from at the moment, for the form: `offer`, and a `ticket` to ask again."""
        return await self._call("choices", _person(user, groups, admin))

    async def check(self, user: str, groups: Sequence[str], admin: bool, options: Json) -> Json:
        """What is wrong with these options, and when they would start; asks for nothing."""
        return await self._call("check", {**_person(user, groups, admin), "options": dict(options)})

    async def _call(self, path: str, body: Json) -> Json:
        try:
            response = await self._http.post(path, json=body)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if not response.is_success:
            raise _problem(response)
        return _parsed(response.content) if response.content else {}


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The complete lines of an answer as they arrive, without the empty ones that only show life."""
    rest = b""
    async for piece in response.aiter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                yield line


def _event(line: bytes) -> Event | None:
    """The event of one line; None for a kind that a newer service may have."""
    facts = _parsed(line)
    try:
        match facts.get("event"):
            case "queued":
                words, place = facts.get("asked", {}), int(facts["position"])
                return Queued(str(facts["request"]), place, facts["why"], facts["message"], words)
            case "preparing":
                return Preparing(facts["message"], facts.get("asked", {}))
            case "pulling":
                return Pulling(facts["percent"], facts["message"])
            case "granted":
                return Granted(_lease(facts["lease"]))
            case "ended":
                return Ended(facts["state"], facts["reason"], facts["message"])
    except (KeyError, TypeError, ValueError) as error:
        raise Misunderstood(f"The platform's service sent an incomplete {facts['event']!r} event.") from error
    return None


def _lease(facts: Json) -> Lease:
    known = {name: facts[name] for name in Lease.__slots__ if name in facts}
    known["slices"] = tuple(_known(Slice, each) for each in facts.get("slices", ()))
    known["folders"] = tuple(_known(Folder, each) for each in facts.get("folders", ()))
    return Lease(**known)


def _known(kind: type[Part], facts: Json) -> Part:
    """A `kind` from those of the facts that it has; a newer service may send more."""
    return kind(**{name: facts[name] for name in kind.__slots__ if name in facts})


def _person(user: str, groups: Sequence[str], admin: bool) -> dict[str, Any]:
    return {"user": user, "groups": list(groups), "admin": admin}


def _parsed(text: bytes) -> Json:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise Misunderstood("The platform's service answered something that is not JSON.") from error
    if not isinstance(answer, dict):
        raise Misunderstood("The platform's service answered something that is not an object.")
    return answer


def _unreachable(error: httpx.HTTPError) -> Unavailable:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Unavailable("The platform's service does not answer.")
    return BrokenStream("The conversation with the platform's service broke off.")


def _problem(response: httpx.Response) -> Denied | Unavailable | Misunderstood:
    try:
        error = json.loads(response.content)["error"]
        message, reason = str(error["message"]), str(error["reason"])
        fields = {str(name): str(text) for name, text in (error.get("fields") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return Misunderstood(f"The platform's service failed (HTTP {response.status_code}).")
    if response.is_client_error:
        return Denied(message, status=response.status_code, reason=reason, fields=fields)
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return Unavailable(message, reason=reason)
    return Misunderstood(message, reason=reason)
