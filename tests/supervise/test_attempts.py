"""Who has to wait after wrong passwords, and for how long."""

import socket
from types import SimpleNamespace
from typing import cast

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from jupyterhub_bkai.hubconfig import attempts
from jupyterhub_bkai.hubconfig.attempts import Attempts, address


def test_the_pause_ends_and_one_more_wrong_one_begins_it_again() -> None:
    now = [100.0]
    tried = Attempts(lambda: now[0])
    who = ("ada", "203.0.113.9")
    for _ in range(3):
        assert tried.pause_s(who, 3, 60) == 0
        tried.wrong(who)
    assert tried.pause_s(who, 3, 60) == 60
    assert tried.pause_s(("ada", "203.0.113.10"), 3, 60) == 0
    assert tried.pause_s(who, 0, 60) == 0  # no limit
    now[0] += 61
    assert tried.pause_s(who, 3, 60) == 0
    tried.wrong(who)
    assert tried.pause_s(who, 3, 60) == 60
    tried.right(who)
    assert tried.pause_s(who, 3, 60) == 0


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MOST", 2)
    tried = Attempts(lambda: 0.0)
    for name in ("a", "b", "a", "c"):
        tried.wrong((name, ""))
    assert [tried.pause_s((name, ""), 1, 60) for name in "abc"] == [60, 0, 60]


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ([], "127.0.0.1"),
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9, 127.0.0.1"], "203.0.113.9"),
        (["203.0.113.9, ::ffff:127.0.0.1"], "203.0.113.9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        (["203.0.113.9, nonsense"], "127.0.0.1"),
    ],
)
def test_where_a_request_comes_from(forwarded: list[str], expected: str) -> None:
    headers = HTTPHeaders()
    for line in forwarded:
        headers.add("X-Forwarded-For", line)
    headers.add("X-Real-Ip", "192.0.2.1")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as mine,
    ):
        connection = SimpleNamespace(stream=SimpleNamespace(socket=mine))
        request = cast(HTTPServerRequest, SimpleNamespace(headers=headers, connection=connection))
        assert address(request) == expected
