"""The Python that environments are made on, and whether session users can get at it.

Owns the choice of a base interpreter. When sessions run as other users than the service, everything an environment
points at must be open to them: a Python in a closed home folder is none.
"""

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_bkai.errors import Unavailable

OLDEST = (3, 11)
NEWEST_TRIED = 14
PLACES = (Path("/usr/local/bin"), Path("/usr/bin"))


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A base Python: where it is and its minor version, such as "3.11"."""

    path: Path
    minor: str


def base(shared: bool) -> Interpreter:
    """Our own interpreter, or, when it is closed to the users of `shared` sessions, the next best of this machine."""
    for candidate in _candidates():
        if candidate.path.is_file() and not (shared and closed_folder(candidate.path)):
            return candidate
    raise Unavailable(
        f"Session users cannot reach this Python, because {closed_folder(_own().path)} is closed to them: "
        "install Python 3.11 or newer for the whole machine.",
        reason="no-python",
    )


def closed_folder(path: Path) -> Path | None:
    """The first folder on the way to `path` (or the file itself) that other users may not enter."""
    real = path.resolve()
    for folder in [*reversed(real.parents), real]:
        needed = stat.S_IXOTH if folder != real or folder.is_dir() else stat.S_IXOTH | stat.S_IROTH
        if os.stat(folder).st_mode & needed != needed:
            return folder
    return None


def _own() -> Interpreter:
    # The interpreter below our own virtual environment, which is not ours to hand on.
    program = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(Path(program).resolve(), f"{sys.version_info[0]}.{sys.version_info[1]}")


def _candidates() -> Iterator[Interpreter]:
    own = _own()
    yield own
    others = [f"3.{minor}" for minor in range(NEWEST_TRIED, OLDEST[1] - 1, -1)]
    for minor in sorted(others, key=lambda minor: minor != own.minor):
        for place in PLACES:
            yield Interpreter(place / f"python{minor}", minor)
