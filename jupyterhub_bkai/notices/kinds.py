"""Which notices there are, to whom they go by which way, when a warning is due, and when a delivery is tried again.

Pure. A notice is written in the transaction of the move that causes it; `outbox` delivers it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

#: how long a delivery is tried before it counts as failed
GIVE_UP_MS = 24 * 3_600_000
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 2_000, 30 * 60_000


_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")


def is_address(text: str) -> bool:
    """Whether mails may go there: a plain address, nothing that a mail server could read as anything else."""
    return len(text) <= 254 and _ADDRESS.match(text) is not None and ".." not in text


class Kind(StrEnum):
    """What a notice is about."""

    ENDING = "ending"
    ENDED = "ended"
    TURN = "turn"
    REFUSED = "refused"
    EXTENDED = "extended"


#: in words, for people who choose
MEANING: Mapping[Kind, str] = {
    Kind.ENDING: "a session ends soon",
    Kind.ENDED: "a session has ended, and not by your own hand",
    Kind.TURN: "a session runs that had to wait",
    Kind.REFUSED: "a request was withdrawn by the system or an administrator",
    Kind.EXTENDED: "a session got more time",
}


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where notices are posted as JSON. `secret_file` holds the key they are signed with."""

    url: str
    secret_file: str | None = None


@dataclass(frozen=True, slots=True)
class Email:
    """The mail server, and whom mails go to: `to` with "{user}" for the Hub's user name. `security` is "starttls",
    "tls" or "none". With `own_address` people may give another address.
    """

    host: str
    port: int
    sender: str
    to: str
    security: str = "starttls"
    user: str | None = None
    password_file: str | None = None
    own_address: bool = False


@dataclass(frozen=True, slots=True)
class Ways:
    """By which ways notices go out, and after how much waiting somebody is told that it is their turn."""

    turn_after_s: int = 300
    webhook: Webhook | None = None
    email: Email | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The ways there are."""
        return tuple(name for name in ("webhook", "email") if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class Choice:
    """What one person wants: the kinds they do not, and an address of their own."""

    off: frozenset[str] = field(default_factory=frozenset)
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Warned:
    """The newest warning of a session's end, or none (`id` is "") where warnings of so early are not needed any more:
    of this deadline, `step_s` before it and everything earlier is done.
    """

    id: str
    at_ms: int
    deadline_ms: int
    step_s: int


def ways(settings: Ways, choice: Choice | None, kind: Kind) -> tuple[str, ...]:
    """By which ways a person is told something of this kind."""
    return () if choice is not None and kind in choice.off else settings.names


def step(steps: Sequence[int], deadline_ms: int, now_ms: int) -> int | None:
    """The last of the steps (seconds before the end) that has been reached; None for none, or after the end."""
    left_ms = deadline_ms - now_ms
    reached = [one for one in steps if left_ms <= one * 1000]
    return min(reached) if reached and left_ms > 0 else None


def due(
    steps: Sequence[int], deadline_ms: int, since_ms: int, last: Warned | None, now_ms: int
) -> int | None:
    """The step that a session is to be warned of now. `since_ms` is when it started: one that is shorter than a step
    is not warned of it, and each step is warned of once.
    """
    found = step(steps, deadline_ms, now_ms)
    if found is None or deadline_ms - since_ms <= found * 1000:
        return None
    done = last is not None and last.deadline_ms == deadline_ms and last.step_s <= found
    return None if done else found


def pause_ms(tries: int) -> int:
    """How long to wait after so many tries."""
    return min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(tries - 1, 20))
