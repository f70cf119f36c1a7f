"""`ProcessSpawner`: sessions with a lease as processes of this machine.

Owns what a lease means to `TreeSpawner` and when such a session is ready. The rest is `leased` and `tree`.
"""

import asyncio
from typing import Any

from bkaispawner import keeper, ports
from bkaispawner.leased import LOOK_EVERY_S, Leased, port_open
from bkaispawner.refusal import NotStarted
from bkaispawner.tree import TreeSpawner
from jupyterhub_bkai.client.trusted import Lease

#: how often a session is launched when somebody else takes its port before it can listen
LAUNCHES = 5


class ProcessSpawner(Leased, TreeSpawner):
    """One lease, one keeper, one single-user server, and whatever people start in it."""

    _launches = 0

    def apply(self, lease: Lease) -> None:
        """The image version's interpreter, the shared folders, and the id that marks every process."""
        self.marker = lease.id
        self.python = lease.python
        self.environment_folder = lease.env
        self.links = tuple((folder.name, folder.path) for folder in lease.folders)
        self._launches = 0

    def handle(self) -> dict[str, Any]:
        """The keeper, by which the session stands and falls."""
        who = self.identity._asdict() if self.identity else {}
        return {"kind": "process", **who, "port": self.port}

    def launch_saved(self) -> None:
        """Let the server start."""
        self._launches += 1
        self.open_gate()

    async def answers(self, url: str) -> bool:
        """Wait until this session itself, and not somebody who took its port, takes connections."""
        while not (await port_open(self.ip, self.port) and self.owns_port()):
            code = await self.poll()
            if code is not None:
                if self._launches < LAUNCHES and ports.listeners(self.ip, self.port):
                    self.log.info("lease %s: port %i was taken by another program", self.marker, self.port)
                    return False
                raise NotStarted(_why(code), reason="exited")
            await asyncio.sleep(LOOK_EVERY_S)
        return True


def _why(code: int) -> str:
    if code == keeper.CANNOT_RUN:
        return (
            "The session's Linux account may not run this image version's Python; the administrator has to let "
            "it pass through the folders above."
        )
    if code == keeper.NOT_FOUND:
        return "The image version's Python is not there any more; the administrator has to make the version again."
    return f"The session's server ended while it was starting (exit code {code}); its log says why."
