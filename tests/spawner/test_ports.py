"""Whose a port is: the sockets that a connection to it reaches, and no others."""

import os
import socket
from collections.abc import Iterator

import pytest
from bkaispawner import ports

Listen = tuple[socket.socket, int]


def listening(family: socket.AddressFamily, host: str, port: int, only6: int | None = None) -> Listen:
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if only6 is not None:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only6)
    one.bind((host, port))
    one.listen()
    return one, os.fstat(one.fileno()).st_ino


@pytest.fixture
def port() -> int:
    return ports.free_port("127.0.0.1")


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    found: list[socket.socket] = []
    yield found
    for one in found:
        one.close()


PLACES = [
    (socket.AF_INET, "127.0.0.1", None),
    (socket.AF_INET, "0.0.0.0", None),
    (socket.AF_INET6, "::", 0),
    (socket.AF_INET6, "::ffff:127.0.0.1", 0),
]


@pytest.mark.parametrize(("family", "host", "only6"), PLACES, ids=["one", "all", "both", "mapped"])
@pytest.mark.parametrize("asked", ["127.0.0.1", "", "0.0.0.0", "localhost"])
def test_a_listener_is_found_however_it_listens(
    port: int,
    opened: list[socket.socket],
    family: socket.AddressFamily,
    host: str,
    only6: int | None,
    asked: str,
) -> None:
    one, inode = listening(family, host, port, only6)
    opened.append(one)
    assert ports.listeners(asked, port) == [(os.getuid(), inode)]
    assert ports.holds([os.getpid()], inode)


@pytest.mark.parametrize(
    ("family", "host", "only6"),
    [(socket.AF_INET, "127.0.0.2", None), (socket.AF_INET6, "::1", 1), (socket.AF_INET6, "::", 1)],
)
def test_the_same_port_of_another_address_is_somebody_elses(
    port: int, opened: list[socket.socket], family: socket.AddressFamily, host: str, only6: int | None
) -> None:
    """Anybody may listen there: they are not taken for the session, nor do they stand in its way."""
    other, _ = listening(family, host, port, only6)
    opened.append(other)
    if host != "::":  # which the table does not tell from one for both protocols
        assert ports.listeners("127.0.0.1", port) == []
    ours, inode = listening(socket.AF_INET, "127.0.0.1", port)
    opened.append(ours)
    assert ports.listeners("127.0.0.1", port) == [(os.getuid(), inode)]


def test_all_that_share_a_port_are_looked_at(port: int, opened: list[socket.socket]) -> None:
    pairs = [listening(socket.AF_INET, "127.0.0.1", port) for _ in range(3)]
    opened.extend(one for one, _ in pairs)
    assert {inode for _, inode in ports.listeners("127.0.0.1", port)} == {inode for _, inode in pairs}


def test_nobody_listens(port: int) -> None:
    assert ports.listeners("127.0.0.1", port) == []
