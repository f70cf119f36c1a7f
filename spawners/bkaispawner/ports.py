"""Ports on this machine: a free one, and whose one is.

A port that answers is not proof of our server: another user of the machine may have taken it in the moment
between choosing and listening, and would be handed other people's requests. So the owner is looked up.
"""

import os
import socket
import sys
from collections.abc import Iterable

LISTENING = "0A"
_ALL = "0" * 8


def free_port(host: str) -> int:
    """A port nobody listens on at this moment; whoever uses it must be ready to find it taken."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def listeners(host: str, port: int) -> list[tuple[int, int]]:
    """The user and the inode of the sockets that get what is sent to a port of this machine's address `host`.

    A socket of the very address is preferred by the kernel to one of all addresses, and one for IPv4 to one for both
    protocols. The same port of any other address is anybody's. With SO_REUSEPORT one user may have several.
    """
    place = _words(socket.inet_aton(socket.gethostbyname(host or "0.0.0.0")))
    if place == _ALL:
        place = _words(socket.inet_aton("127.0.0.1"))
    bound = f":{port:04X}"
    wanted = [place, _MAPPED + place, _ALL, 4 * _ALL]
    found: dict[str, list[tuple[int, int]]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as lines:
                for line in lines:
                    fields = line.split()
                    if fields[3] == LISTENING and fields[1].endswith(bound):
                        found.setdefault(fields[1].removesuffix(bound), []).append(
                            (int(fields[7]), int(fields[9]))
                        )
        except FileNotFoundError:
            continue  # a kernel without IPv6
    return next((found[one] for one in wanted if one in found), [])


def _words(address: bytes) -> str:
    """An address as the kernel writes it: words of 32 bits, each in this machine's order of bytes."""
    words = (address[at : at + 4] for at in range(0, len(address), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def holds(pids: Iterable[int], inode: int) -> bool | None:
    """Whether one of the processes has the socket open; None when we may not look."""
    name, seen = f"socket:[{inode}]", False
    for pid in pids:
        try:
            files = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        seen = True
        for file in files:
            try:
                if os.readlink(f"/proc/{pid}/fd/{file}") == name:
                    return True
            except OSError:
                continue
    return False if seen else None


_MAPPED = _words(bytes(10) + b"\xff\xff")
