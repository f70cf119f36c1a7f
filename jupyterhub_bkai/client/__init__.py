"""Talk to a jupyterhub-bkai service from a program: `AsyncClient`, or `Client` where nothing is asynchronous.

Owns the faces of the public REST on the user's side. Everything is loaded on first use: the command line,
which imports from here, must answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyterhub_bkai.client.asynchronous import AsyncClient
    from jupyterhub_bkai.client.current import current_session
    from jupyterhub_bkai.client.errors import BkaiError, NotLoggedIn, Refused, ServerProblem, Unreachable
    from jupyterhub_bkai.client.fake import FakeService
    from jupyterhub_bkai.client.nouns import Device, Node, Queue, Session, Transition
    from jupyterhub_bkai.client.sync import Client
    from jupyterhub_bkai.client.workspace import Workspace

__all__ = [
    "AsyncClient",
    "BkaiError",
    "Client",
    "Device",
    "FakeService",
    "Node",
    "NotLoggedIn",
    "Queue",
    "Refused",
    "ServerProblem",
    "Session",
    "Transition",
    "Unreachable",
    "Workspace",
    "current_session",
]

_HOME = {
    "asynchronous": ("AsyncClient",),
    "current": ("current_session",),
    "errors": ("BkaiError", "NotLoggedIn", "Refused", "ServerProblem", "Unreachable"),
    "fake": ("FakeService",),
    "nouns": ("Device", "Node", "Queue", "Session", "Transition"),
    "sync": ("Client",),
    "workspace": ("Workspace",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
