"""The receipt: what this session was given and how it is enforced, in a file that the user may keep.

Owns the file's form and place: `~/.local/share/bkai/receipts/<lease>.json` (below `$XDG_DATA_HOME` where that is
set), for the owner's eyes only. It is written twice: at the start from the session's environment, and again when the
service has told the rest. It repeats what it was told and measures nothing.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyterhub_bkai.singleuser.place import Place

#: files of former sessions that are kept beside the newest
KEPT = 50
_FROM_SERVICE = (
    "user",
    "server",
    "name",
    "group",
    "project",
    "session_type",
    "node",
    "accelerator",
    "fgpu",
    "share",
    "cpu",
    "memory_mib",
    "shm_mib",
    "granted",
    "started",
    "deadline",
    "fake",
)


def folder(environment: Mapping[str, str], home: Path) -> Path:
    """Where receipts lie."""
    data = environment.get("XDG_DATA_HOME", "")
    root = Path(data) if data.startswith("/") else home / ".local" / "share"
    return root / "bkai" / "receipts"


def receipt(place: Place, session: Mapping[str, Any] | None, now: datetime) -> dict[str, Any]:
    """The content: from the environment alone, or with what the service knows of the session."""
    told = session or {}
    return {
        "receipt": 1,
        "session": place.lease,
        "written": now.astimezone(UTC).isoformat(timespec="milliseconds"),
        "source": "service" if session else "environment",
        "image": told.get("image") or place.image,
        "slices": told.get("slices") or list(place.slices),
        "enforcement": told.get("enforcement") or place.enforcement,
        **{name: told[name] for name in _FROM_SERVICE if name in told},
    }


def write(folder: Path, lease: str, content: Mapping[str, Any]) -> Path:
    """Put the receipt in its place whole or not at all, and let the oldest ones go."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target, fresh = folder / f"{lease}.json", folder / f".{lease}.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
    os.replace(fresh, target)
    _forget(folder, target)
    return target


def _forget(folder: Path, newest: Path) -> None:
    # Lease ids sort by time.
    former = sorted(file for file in folder.glob("*.json") if file != newest)
    for file in former[:-KEPT]:
        file.unlink(missing_ok=True)
