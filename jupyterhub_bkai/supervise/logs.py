"""Log files that several processes append to, kept from growing without end.

Owns opening and rotation. A file is copied and emptied, not renamed: its writers keep it open, and must be
able to outlive the supervisor.
"""

import asyncio
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from jupyterhub_bkai.supervise.console import Console

LARGEST = 10 * 1024 * 1024
KEPT = 3
_EVERY_S = 30.0


def open_log(path: Path) -> int:
    """A descriptor that appends, for a child's output; the file is its owner's only."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def rotate(path: Path, *, largest: int = LARGEST, kept: int = KEPT) -> bool:
    """Move the content of a file that is too large to `.1`, that of `.1` to `.2`, …; say if it was done."""
    try:
        if path.stat().st_size <= largest:
            return False
    except FileNotFoundError:
        return False
    for number in range(kept - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    copy = os.open(path.with_name(f"{path.name}.1"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with path.open("rb+") as source, os.fdopen(copy, "wb") as target:
        shutil.copyfileobj(source, target)
        source.truncate(0)  # writers append, so their next line begins the emptied file
    return True


async def rotate_all(paths: Iterable[Path], console: Console) -> None:
    """Look at the files every now and then, for ever."""
    paths = tuple(paths)
    while True:
        await asyncio.sleep(_EVERY_S)
        for path in paths:
            try:
                rotate(path)
            except OSError as error:
                console.say(f"{path} cannot be rotated ({error.strerror}); it keeps growing until it can.")
