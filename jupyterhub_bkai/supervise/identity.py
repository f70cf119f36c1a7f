"""Finding supervised processes and waiting for their end, also of those that are not our children.

Who a process is (boot, pid, start time) is `fences.process`'s to say. Signals nothing.
"""

import asyncio
import os
from collections.abc import Iterator

from jupyterhub_bkai.fences import proctable
from jupyterhub_bkai.fences.process import Identity, process_identity

_POLL_S = 0.5


async def gone(identity: Identity) -> None:
    """Return when the process has ended, whoever its parent is."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel or sandbox without pidfd: look now and then
        while identity.alive():  # noqa: ASYNC110  a foreign process sets no event of ours
            await asyncio.sleep(_POLL_S)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        # Opened first, compared second: from here on the number cannot come to mean another process.
        if not identity.alive():
            return
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def leaders_with(variable: str, value: str) -> Iterator[Identity]:
    """The session leaders that were started with this variable in their environment.

    Finds a process whose record was never written because its supervisor was killed in between. Only
    leaders: what they start themselves inherits the variable, but not that place.
    """
    for pid in proctable.pids():
        facts = proctable.stat(pid) if _leads(pid) else None
        if facts and proctable.variable(pid, facts, variable.encode()) == value.encode():
            identity = process_identity(pid)
            if identity is not None:
                yield identity


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False
