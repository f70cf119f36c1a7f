"""The states of a request and its lease, the moves between them, and the words people see.

Pure. The table is the whole truth: a move that is not in it raises `InvalidMove` with the story so far.

    queued ──grant──▶ granted ──pull──▶ pulling ──prepare──▶ granted ──start──▶ starting ──ready──▶ running
       │                 │                 │                               │                │
       ├─withdraw─▶ withdrawn               └──────── stop / lose / fail ──┴────────────────┴──▶ stopping
       └─fail────▶ failed                                                                          │
                                                                   released / failed / withdrawn ◀─free─┘

`stopping` still holds its slices: only `free`, which needs the fence's proof that nothing of the lease is alive,
gives them back; what the lease ends as was decided by the cause that started the stopping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a request is; one adjective each."""

    QUEUED = "queued"
    GRANTED = "granted"
    PULLING = "pulling"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RELEASED = "released"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


class Move(StrEnum):
    """What can happen to a request."""

    GRANT = "grant"
    PULL = "pull"
    PREPARE = "prepare"
    START = "start"
    READY = "ready"
    STOP = "stop"
    FREE = "free"
    WITHDRAW = "withdraw"
    FAIL = "fail"


#: The words of the faces; the only place where they are decided.
PUBLIC: Mapping[State, str] = {
    State.QUEUED: "PENDING",
    State.GRANTED: "PREPARING",
    State.PULLING: "PULLING",
    State.STARTING: "PREPARING",
    State.RUNNING: "RUNNING",
    State.STOPPING: "TERMINATING",
    State.RELEASED: "TERMINATED",
    State.WITHDRAWN: "CANCELLED",
    State.FAILED: "ERROR",
}

#: States in which slices are held (a lease is live).
HOLDING = frozenset({State.GRANTED, State.PULLING, State.STARTING, State.RUNNING, State.STOPPING})
#: States from which nothing leads away.
FINAL = frozenset({State.RELEASED, State.WITHDRAWN, State.FAILED})
LIVE = HOLDING | {State.QUEUED}


class Cause(StrEnum):
    """Why a request or lease ended; decides what it ends as."""

    STOPPED = "stopped"
    EXITED = "exited"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    UNATTENDED = "unattended"
    SERVER_GONE = "server-gone"
    START_FAILED = "start-failed"
    IMAGE_FAILED = "image-failed"
    QUEUE_LIMIT = "queue-limit"
    REFUSED = "refused"


ENDS_AS: Mapping[Cause, State] = {
    Cause.STOPPED: State.RELEASED,
    Cause.EXITED: State.RELEASED,
    Cause.CANCELLED: State.WITHDRAWN,
    Cause.DEADLINE: State.RELEASED,
    Cause.UNATTENDED: State.RELEASED,
    Cause.SERVER_GONE: State.FAILED,
    Cause.START_FAILED: State.FAILED,
    Cause.IMAGE_FAILED: State.FAILED,
    Cause.QUEUE_LIMIT: State.FAILED,
    Cause.REFUSED: State.FAILED,
}

_TABLE: Mapping[tuple[State, Move], State] = {
    (State.QUEUED, Move.GRANT): State.GRANTED,
    (State.QUEUED, Move.WITHDRAW): State.WITHDRAWN,
    (State.QUEUED, Move.FAIL): State.FAILED,
    (State.GRANTED, Move.PULL): State.PULLING,
    (State.PULLING, Move.PREPARE): State.GRANTED,
    (State.GRANTED, Move.START): State.STARTING,
    (State.STARTING, Move.READY): State.RUNNING,
    (State.GRANTED, Move.READY): State.RUNNING,
    (State.GRANTED, Move.STOP): State.STOPPING,
    (State.PULLING, Move.STOP): State.STOPPING,
    (State.STARTING, Move.STOP): State.STOPPING,
    (State.RUNNING, Move.STOP): State.STOPPING,
}


@dataclass(frozen=True, slots=True)
class Transition:
    """One move that was made: who made it and why, in words."""

    at_ms: int
    source: State | None
    target: State
    who: str
    why: str


class InvalidMove(Exception):
    """A move that the table does not have. Carries the story, so that the log tells how it came to this."""

    def __init__(self, state: State, move: Move, story: Sequence[Transition] = ()) -> None:
        self.state, self.move, self.story = state, move, tuple(story)
        steps = " → ".join(str(step.target) for step in story)
        super().__init__(f"a {state} request cannot {move} (story: {steps or 'none'})")


def target(state: State, move: Move, cause: Cause | None = None, story: Sequence[Transition] = ()) -> State:
    """The state after `move`. `free` ends as the cause says. Raises `InvalidMove`."""
    if (state, move) == (State.STOPPING, Move.FREE):
        return ENDS_AS[cause or Cause.STOPPED]
    try:
        return _TABLE[state, move]
    except KeyError:
        raise InvalidMove(state, move, story) from None
