"""What every environment is made on: the interpreter, our own wheel, the hub's version and JupyterLab.

Owns the list and its digest, which enters every image's key: change any of it and environments are made anew.
"""

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from jupyterhub_bkai.builds.interpreter import Interpreter, base
from jupyterhub_bkai.builds.wheel import Wheel, own_wheel

JUPYTERLAB = "4.6.6"


@dataclass(frozen=True, slots=True)
class Foundation:
    """The parts that all environments share."""

    python: Interpreter
    wheel: Wheel
    hub_version: str

    @property
    def requirements(self) -> tuple[str, ...]:
        """What is installed beside an image's own requirements."""
        return (
            f"jupyterhub=={self.hub_version}",
            f"jupyterlab=={JUPYTERLAB}",
            "jupyter-server-proxy",
            "ipykernel",
            f"jupyterhub-bkai[singleuser] @ {self.wheel.path.as_uri()}",
        )

    @property
    def digest(self) -> str:
        """A short text that differs whenever an environment made on this would."""
        parts = (self.python.minor, str(self.python.path), self.wheel.digest, *self.requirements[:-1])
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def lay(cache: Path, *, shared: bool) -> Foundation:
    """The foundation on this machine; packs our wheel when the cache lacks it (seconds, the first time).

    `shared` says that sessions run as other users, who must be able to reach the interpreter.
    """
    wheel = own_wheel(cache.resolve() / "wheels")
    return Foundation(base(shared), wheel, metadata.version("jupyterhub"))
