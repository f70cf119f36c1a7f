"""Runs in the session, sent there as text: a place for packages on top of the image's, then pip installs into it.

The place is a virtual environment in the run's folder that also sees the packages of the image. pip takes those as
installed, adds only what is missing, and never changes the image itself. Standard library only, no relative names.
"""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PLACE = Path(".bkai") / "venv"
QUIET = ("--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off")


def make(place: Path) -> None:
    """The virtual environment, with the packages of this python's environment below its own."""
    has_pip = importlib.util.find_spec("pip") is not None
    venv.create(place, with_pip=not has_pip, symlinks=True)
    image = sysconfig.get_path("purelib")
    site = next((place / "lib").glob("python*/site-packages"))
    (site / "bkai-image.pth").write_text(f"import site; site.addsitedir({image!r})\n")
    if has_pip:  # the image's pip installs into the environment whose python runs it
        shim = place / "bin" / "pip"
        shim.write_text('#!/bin/sh\nexec "${0%/*}/python" -m pip "$@"\n')
        shim.chmod(0o755)


def main(arguments: list[str]) -> int:
    """Make the place; with arguments, let pip install them."""
    try:
        make(PLACE)
    except (subprocess.CalledProcessError, OSError, StopIteration) as error:
        print(f"This image cannot take packages: {error}. Ask for one with pip in it.", file=sys.stderr)
        return 1
    if not arguments:
        return 0
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    return subprocess.call(
        [PLACE / "bin" / "python", "-m", "pip", "install", *QUIET, *arguments], env=environment
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
