"""`current_session`: which session is this notebook running in?"""

import os
from collections.abc import Mapping

from jupyterhub_bkai.client.errors import BkaiError
from jupyterhub_bkai.client.nouns import Session
from jupyterhub_bkai.client.sync import Client

VARIABLES = ("BKAI_LEASE_ID", "BKAI_SERVICE_URL", "JUPYTERHUB_API_TOKEN")


def current_session(environment: Mapping[str, str] = os.environ) -> Session:
    """The session this program runs in, as the service's books have it at this moment."""
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing:
        raise BkaiError(
            f"This program does not run in a session: {', '.join(missing)} is not set.", reason="no-session"
        )
    lease, url, token = (environment[name] for name in VARIABLES)
    with Client(url, token) as client:
        return client.session(lease)
