"""Routes of the pages."""

from typing import Any

from jupyterhub_bkai.api.context import Context


def routes(context: Context, prefix: str) -> list[Any]:
    """The pages under `prefix`."""
    return []
