"""Every generated name in one place.

Guarantees
- `server_name` gives 1–30 characters of `a-z0-9-`, no hyphen at either end or doubled: what the Hub accepts
  in a URL. Names that already are such pass unchanged; others get a digest, so that two different texts do
  not meet.
- `numbered` keeps that form and is injective in the number for one base.
- `lease_id` is 26 characters of `0-9a-z`, sorts by time, and cannot be guessed (80 random bits).
"""

import hashlib
import re

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
SERVER_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9])*\Z")
SERVER_NAME_LENGTH = 30


def is_server_name(text: str) -> bool:
    """True for the names of sessions: 1–30 of `a-z0-9-`, single hyphens inside only."""
    return len(text) <= SERVER_NAME_LENGTH and SERVER_NAME.match(text) is not None


def server_name(text: str) -> str:
    """The session name nearest to `text`."""
    if is_server_name(text):
        return text
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{slug[: SERVER_NAME_LENGTH - 7].strip('-')}-{digest}".strip("-")


def numbered(base: str, number: int) -> str:
    """The name of the `number`-th of several sessions asked for together (the first keeps `base`)."""
    if number == 1:
        return base
    tail = f"-{number}"
    return (base or "session")[: SERVER_NAME_LENGTH - len(tail)].rstrip("-") + tail


def lease_id(time_ms: int, entropy: bytes) -> str:
    """A new id from the time (milliseconds) and 10 random bytes."""
    number = (time_ms << 80) | int.from_bytes(entropy[:10], "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def run_folder(lease: str) -> str:
    """Where `bkai run` puts a session's files, below the home folder; the session removes it when it ends."""
    return f".bkai-run/{lease}"


LEASE_ID = re.compile(rf"[{_ALPHABET}]{{26}}\Z")


def is_lease_id(text: str) -> bool:
    """True for what `lease_id` makes."""
    return LEASE_ID.match(text) is not None
