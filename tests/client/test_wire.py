"""Addresses, statuses and failures: what each means, and that no HTTP error leaks."""

import json
from typing import Any

import httpx
import pytest

from jupyterhub_bkai.client.asynchronous import AsyncClient
from jupyterhub_bkai.client.errors import BkaiError, NotLoggedIn, Refused, ServerProblem, Unreachable
from jupyterhub_bkai.client.nouns import Session, decode
from jupyterhub_bkai.client.wire import Wire, service_url
from jupyterhub_bkai.model import Placement


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("http://hub:8000", "http://hub:8000"),
        ("http://hub:8000/", "http://hub:8000"),
        ("https://hub/jupyter/", "https://hub/jupyter"),
        ("https://hub/jupyter/hub/home", "https://hub/jupyter"),
        ("https://hub/user/a/lab?reset#x", "https://hub"),
        ("https://hub/services/bkai/", "https://hub"),
        (" https://hub/services/bkai/api/v1 ", "https://hub"),
        ("http://[::1]:8000/hub/", "http://[::1]:8000"),
    ],
)
def test_service_url(address: str, base: str) -> None:
    assert service_url(address) == base + "/services/bkai"


@pytest.mark.parametrize(
    "address", ["", "hub:8000", "ftp://hub", "http://", "http://a:b@hub", "http://hub:port", "http://[::1"]
)
def test_no_service_url(address: str) -> None:
    with pytest.raises(BkaiError):
        service_url(address)


def test_the_token_stays_on_the_host() -> None:
    wire = Wire("https://hub.example/jupyter", "t")
    assert wire.absolute("/jupyter/user/a/s/") == "https://hub.example/jupyter/user/a/s/"
    assert wire.absolute("https://a.hub.example/user/a") == "https://a.hub.example/user/a/"
    for url in (
        "https://evil.example/",
        "//evil.example/x",
        "https://evilhub.example/",
        "http://hub.example/",
    ):
        with pytest.raises(ServerProblem):
            wire.absolute(url)


def answering(status: int, body: bytes = b"") -> AsyncClient:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body)

    return AsyncClient("http://hub", "t", transport=httpx.MockTransport(handle))


def error(reason: str, message: str = "no", **fields: str) -> bytes:
    return json.dumps({"error": {"reason": reason, "message": message, "fields": fields}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (400, error("invalid-options", cpu="no"), Refused, "invalid-options"),
        (401, error("not-logged-in"), NotLoggedIn, "not-logged-in"),
        (302, b"", NotLoggedIn, "not-logged-in"),
        (403, error("policy"), Refused, "policy"),
        (403, b'{"status": 403, "message": "no"}', Refused, "http-403"),
        (404, error("not-found"), Refused, "not-found"),
        (404, b"<h1>Jupyter has lots of moons</h1>", Unreachable, "unreachable"),
        (429, b"slow down", Refused, "http-429"),
        (500, error("internal", "Something broke; id 12."), ServerProblem, "internal"),
        (500, b"<h1>", ServerProblem, "server-problem"),
        (503, error("hub-unavailable"), Unreachable, "hub-unavailable"),
        (503, b"<h1>", Unreachable, "unreachable"),
        (200, b"<h1>", ServerProblem, "server-problem"),
        (200, b"[1]", ServerProblem, "server-problem"),
        (200, b'{"name": 7}', ServerProblem, "server-problem"),
        (200, b"", ServerProblem, "server-problem"),
        (400, b'{"error": "text"}', Refused, "http-400"),
    ],
)
async def test_statuses(status: int, body: bytes, kind: type[BkaiError], reason: str) -> None:
    async with answering(status, body) as client:
        with pytest.raises(BkaiError) as caught:
            await client.me()
    assert type(caught.value) is kind
    assert caught.value.reason == reason
    assert caught.value.message.endswith((".", "no")) or "<h1>" not in caught.value.message


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpx.ConnectError("refused"), Unreachable),
        (httpx.ConnectTimeout(""), Unreachable),
        (httpx.ReadTimeout(""), Unreachable),
        (httpx.ReadError(""), Unreachable),
        (httpx.RemoteProtocolError("cut"), Unreachable),
        (httpx.DecodingError("gzip"), Unreachable),
        (httpx.UnsupportedProtocol("x"), BkaiError),
        (httpx.InvalidURL("x"), BkaiError),
    ],
)
async def test_no_http_error_leaks(raised: Exception, kind: type[BkaiError]) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise raised

    async with AsyncClient("http://hub", "t", transport=httpx.MockTransport(handle)) as client:
        with pytest.raises(BkaiError) as caught:
            await client.me()
        assert type(caught.value) is kind


@pytest.mark.parametrize("id", ["a/b", "..%2f", "é", "a?b", "x#y"])
async def test_ids_stay_one_segment(id: str) -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(404, content=error("not-found"))

    async with AsyncClient("http://hub", "t", transport=httpx.MockTransport(handle)) as client:
        with pytest.raises(Refused):
            await client.session(id)
    assert seen[0].count("/") == "/services/bkai/api/v1/sessions/x".count("/")
    assert "?" not in seen[0]


SMALL: dict[str, Any] = {
    "id": "1",
    "user": "u",
    "server": "s",
    "url": "/user/u/s/",
    "image": "a/1",
    "state": "RUNNING",
}


def test_decode_takes_what_it_knows() -> None:
    row = SMALL | {
        "new_thing": 1,
        "group": None,
        "asked": "2026-11-22T07:00:00.123Z",
        "share": "1/4",
        "cpu": 2,
        "progress": {"percent": None, "message": "m"},
        "slices": [
            {
                "device": "d",
                "index": 0,
                "slot": "cuda",
                "model": "m",
                "share": "1/4",
                "memory_mib": 1,
                "sm_milli": 2,
                "mig": {"profile": "1g", "start": 0, "size": 1},
            }
        ],
    }
    session = decode(Session, row)
    assert session.asked is not None
    assert session.asked.microsecond == 123000
    assert session.slices[0].mig == Placement("1g", 0, 1)
    assert session.cpu == 2.0
    assert session.raw is row


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"id": None}, "Session.id"),
        ({"state": 7}, "Session.state"),
        ({"position": "first"}, "Session.position"),
        ({"position": float("inf")}, "Session.position"),
        ({"asked": "yesterday"}, "Session.asked"),
        ({"share": "1/0"}, "Session.share"),
        ({"slices": [{}]}, r"Session.slices\[0\].device"),
        ({"slices": {}}, "Session.slices"),
        ({"progress": []}, "Session.progress"),
        ({"memory_mib": True}, "Session.memory_mib"),
    ],
)
def test_decode_names_the_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=place):
        decode(Session, SMALL | change)
