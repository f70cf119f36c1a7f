"""The sessions' logs, one file for each lease: read from the end, kept from growing without end, removed in the end.

Owns the files in one folder and what `.1` means. Knows no lease: which ones live comes in as an argument.
"""

import contextlib
import os
import time
from collections.abc import Container
from pathlib import Path

#: A log that is larger becomes the former part (`.1`, of this size at most), and a new part begins.
LARGEST = 10 * 1024 * 1024
#: so long the logs of ended sessions are kept
KEPT_S = 14 * 86400
_PIECE = 1 << 20


def tail(folder: Path, lease_id: str, lines: int, most: int) -> str:
    """The last lines of a log, of its last `most` bytes, also where a new part has just begun."""
    log = folder / f"{lease_id}.log"
    now = _end(log, most)
    before = _end(_former(log), most - len(now)) if len(now) < most else b""
    text = (before + now).decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:]) + "\n" if text else ""


def tidy(folder: Path, living: Container[str], now_s: float | None = None) -> None:
    """Cap every log, and remove those of sessions that ended long ago. Reads and writes files: use a thread."""
    oldest = (time.time() if now_s is None else now_s) - KEPT_S
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            lease_id, mark, _ = entry.name.partition(".log")
            if not mark or not entry.is_file(follow_symlinks=False):
                continue
            path = folder / entry.name
            with contextlib.suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if lease_id not in living and facts.st_mtime < oldest:
                    path.unlink()
                elif entry.name.endswith(".log") and facts.st_size > LARGEST:
                    _cap(path)


def _cap(log: Path) -> None:
    """Keep the end of a log as its former part and empty it: its writers append, and keep it open."""
    with log.open("rb+") as source:
        source.seek(max(0, source.seek(0, os.SEEK_END) - LARGEST))
        draft = os.open(_former(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(draft, "wb") as target:
            left = LARGEST
            while left > 0 and (piece := source.read(min(_PIECE, left))):
                target.write(piece)
                left -= len(piece)
        source.truncate(0)


def _former(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


def _end(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read(most)  # and not to the end, which may be further away by now
    except FileNotFoundError:
        return b""
