"""`Place`: which session this server is, as its environment says.

Owns the names of the variables a session is started with. Knows no network and writes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from jupyterhub_bkai.names import is_lease_id

NEEDED = ("BKAI_LEASE_ID", "BKAI_SERVICE_URL", "JUPYTERHUB_API_TOKEN")


@dataclass(frozen=True, slots=True)
class Place:
    """A session's identity and its way to the service. The token is left out of every representation."""

    lease: str
    service_url: str
    token: str = field(repr=False)
    image: str = ""
    enforcement: str = ""
    slices: tuple[Mapping[str, Any], ...] = ()

    @property
    def pages(self) -> str:
        """The path of the service's own pages on the hub's host, like `/services/bkai/`."""
        return urlsplit(self.service_url).path.rstrip("/") + "/"


def place(environment: Mapping[str, str]) -> Place | None:
    """The session that `environment` describes; None for a server that bkai did not start."""
    lease, service_url, token = (environment.get(name, "") for name in NEEDED)
    if not (is_lease_id(lease) and service_url.startswith(("http://", "https://")) and token):
        return None
    return Place(
        lease=lease,
        service_url=service_url.rstrip("/"),
        token=token,
        image=environment.get("BKAI_SESSION_IMAGE", ""),
        enforcement=environment.get("BKAI_ENFORCEMENT", ""),
        slices=_slices(environment.get("BKAI_SLICES", "")),
    )


def _slices(text: str) -> tuple[Mapping[str, Any], ...]:
    try:
        listed = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(row for row in listed if isinstance(row, dict)) if isinstance(listed, list) else ()
