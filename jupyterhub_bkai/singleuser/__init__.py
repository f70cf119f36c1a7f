"""What runs inside a session: the server extension, and the launcher in `__main__`.

Imports nothing at import time: the launcher must be the first to load Jupyter.
"""

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where Jupyter Server finds the extension."""
    from jupyterhub_bkai.singleuser.extension import SessionExtension

    return [{"module": "jupyterhub_bkai.singleuser", "app": SessionExtension}]
