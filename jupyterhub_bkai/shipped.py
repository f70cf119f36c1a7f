"""Where the files that ship with this package lie, in a checkout as in an installation.

Owns the places only; what is inside belongs to its readers.
"""

import sys
from pathlib import Path

from jupyterhub_bkai.errors import Unavailable

PACKAGE = Path(__file__).resolve().parent
_LABEXTENSION = Path("share/jupyter/labextensions/jupyterhub-bkai")


def images() -> Path:
    """The folder of the shipped image families, `<family>/<version>/`."""
    return _first("image definitions", PACKAGE / "_images", PACKAGE.parent / "images")


def labextension() -> Path:
    """The built JupyterLab extension, the folder that a Jupyter installation calls `jupyterhub-bkai`."""
    installed = [Path(prefix) / _LABEXTENSION for prefix in (PACKAGE.parents[3], sys.prefix)]
    return _first("built labextension", PACKAGE.parent / "labextension" / "prebuilt", *installed)


def _first(what: str, *places: Path) -> Path:
    for place in places:
        if place.is_dir() and any(place.iterdir()):
            return place
    raise Unavailable(
        f"The {what} did not come with this installation of jupyterhub-bkai: "
        f"reinstall it, or run `make build` in a checkout (looked in {places[0]}).",
        reason="not-installed",
    )
