"""Where the files that ship with this package lie, in a checkout as in an installation.

Owns the places only; what is inside belongs to its readers.
"""

from pathlib import Path

from jupyterhub_bkai.errors import Unavailable

PACKAGE = Path(__file__).resolve().parent


def images() -> Path:
    """The folder of the shipped image families, `<family>/<version>/`."""
    installed, checkout = PACKAGE / "_images", PACKAGE.parent / "images"
    for place in (installed, checkout):
        if place.is_dir():
            return place
    raise Unavailable(
        f"The image definitions did not come with this installation of jupyterhub-bkai ({installed}): reinstall it.",
        reason="not-installed",
    )
