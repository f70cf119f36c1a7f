"""Ports on this machine: a free one, and whose one is.

A port that answers is not proof of our server: another user of the machine may have taken it in the moment
between choosing and listening, and would be handed other people's requests. So the owner is looked up.
"""

import os
import socket
from collections.abc import Iterable

from jupyterhub_bkai.fences import proctable

LISTENING = b"0A"


def free_port(host: str) -> int:
    """A port nobody listens on at this moment; whoever uses it must be ready to find it taken."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def listener(port: int) -> tuple[int, int] | None:
    """The user and the inode of the socket that listens on a port of this machine (IPv4)."""
    wanted = f":{port:04X}".encode()
    for line in proctable.read("/proc/net/tcp").splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTENING and fields[1].endswith(wanted):
            return int(fields[7]), int(fields[9])
    return None


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
