"""What went wrong with the making of an environment, in one sentence for people.

Pure: the installer's last lines go in. The sentence names no address and no path of this machine; the log has those.
"""

import re
from collections.abc import Sequence

from jupyterhub_bkai.errors import Unavailable

_FULL = re.compile(r"no space left on device|os error 28|disk quota exceeded|os error 122", re.I)
_UNREACHABLE = re.compile(
    r"dns error|failed to lookup|connection refused|connection reset|tcp connect|client error \(connect\)|"
    r"network is unreachable|timed? ?out|error sending request|network connectivity is disabled|os error 101",
    re.I,
)
_REFUSED = re.compile(r"\b(401 unauthorized|403 forbidden)\b", re.I)
_PYTHON = re.compile(r"no interpreter found|failed to inspect python|no download found|/cpython-3", re.I)
_BECAUSE = re.compile(r"because (.*?)(?: and (?:you require|your)\b|, we can conclude|\.(?: |$)|$)", re.I)
_UNBUILDABLE = re.compile(r"failed to build [`'“]?([A-Za-z0-9._-]+)", re.I)
_ADDRESS = re.compile(r"\b(?:https?|file)://\S+")
_PATH = re.compile(r"(?<![\w.])/(?:[\w.+-]+/)+[\w.+-]*")
LOG = "the service's log of this image has the details"


def of_tool(image: str, tail: Sequence[str]) -> Unavailable:
    """The error for an installer that failed with these last lines."""
    text = " ".join(" ".join(tail).replace("│", " ").split())
    if _FULL.search(text):
        return full(image)
    if not _PYTHON.search(text) and _UNREACHABLE.search(text):
        return Unavailable(
            f"Image version {image} cannot be made now, because the packages' server does not answer: "
            f"an administrator must look at this machine's network ({LOG}).",
            reason="no-network",
        )
    if _REFUSED.search(text):
        why, reason = (
            "the packages' server refuses us: an administrator must look at its password",
            "no-access",
        )
    elif _PYTHON.search(text):
        why, reason = "the Python it needs is neither on this machine nor to be had", "no-python"
    elif "no solution found" in text.lower():
        because = _BECAUSE.search(text)
        why, reason = (
            f"its packages cannot be had together: {clean(because[1]) if because else text}",
            "unresolvable",
        )
    elif match := _UNBUILDABLE.search(text):
        why, reason = f"its package {match[1]} cannot be built here", "unbuildable"
    else:
        why, reason = f"the installer stopped: {clean(_last(tail))}", "build-failed"
    return Unavailable(f"Image version {image} cannot be made: {why} ({LOG}).", reason=reason)


def of_verify(image: str, tail: Sequence[str]) -> Unavailable:
    """The error for an environment that does not hold what its label says."""
    return Unavailable(
        f"Image version {image} was made but fails its own check: {clean(_last(tail))} ({LOG}).",
        reason="unverified",
    )


def full(image: str) -> Unavailable:
    """The error for a disk without room."""
    return Unavailable(
        f"Image version {image} cannot be made, because the disk is full: an administrator must free some space.",
        reason="disk-full",
    )


def too_long(image: str) -> Unavailable:
    """The error for a step that did not come to an end."""
    return Unavailable(
        f"Image version {image} cannot be made: a step did not end in the time it is given ({LOG}).",
        reason="build-timeout",
    )


def clean(text: str) -> str:
    """Short, printable, without addresses and paths."""
    bare = _PATH.sub("…", _ADDRESS.sub("…", text))
    words = " ".join("".join(c if c.isprintable() else " " for c in bare).split()).rstrip(" .")
    return words if len(words) <= 200 else words[:197] + "…"


def _last(tail: Sequence[str]) -> str:
    return next((line for line in reversed(tail) if line.strip()), "it said nothing")
