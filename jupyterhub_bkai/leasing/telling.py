"""What people are told about their sessions: which moves are worth a notice, its sentence, and its rows.

Knows no way by which it goes out. The sentences are those of a mail: they stand alone.
"""

import json
from collections.abc import Iterable
from typing import Any

from jupyterhub_bkai.leasing.extension import moment_text
from jupyterhub_bkai.leasing.lifecycle import PUBLIC, Cause, Move, State
from jupyterhub_bkai.notices.kinds import Kind
from jupyterhub_bkai.options import duration_text
from jupyterhub_bkai.store.records import Record

#: ends that people bring about themselves: by their own name, or through the Hub's pages
_OWN = (Cause.STOPPED, Cause.CANCELLED, Cause.EXITED)


def of_move(record: Record, move: Move, who: str, turn_after_s: int) -> tuple[Kind, str] | None:
    """The notice for a move that was made (`record` is after it); None where nobody needs one."""
    if move in (Move.WITHDRAW, Move.FAIL, Move.STOP):
        if record.cause in _OWN and who == record.user:
            return None
        if record.cause in (Cause.STOPPED, Cause.CANCELLED) and who == "hub":
            return None
        if record.node is None:
            return (
                Kind.REFUSED,
                f"Your request {title(record)} waits no longer. {record.message or ''}".strip(),
            )
        return Kind.ENDED, f"Your session {title(record)} has ended. {record.message or ''}".strip()
    if move is Move.READY and record.granted_ms is not None:
        waited_s = (record.granted_ms - max(record.asked_ms, record.request.not_before_ms)) // 1000
        if waited_s >= turn_after_s:
            waited = duration_text(waited_s // 60 * 60 or waited_s)
            return Kind.TURN, f"It is your turn: {title(record)} runs, after waiting for {waited}."
    return None


def ending(record: Record, now_ms: int) -> str:
    """The warning before the end."""
    assert record.deadline_ms is not None
    left_s = max(0, record.deadline_ms - now_ms) // 1000
    left = duration_text(round(left_s / 60) * 60 or left_s)
    return (
        f"Your session {title(record)} ends in {left}, at {moment_text(record.deadline_ms, now_ms)}. "
        "Save your work, or ask for more time."
    )


def extended(record: Record, now_ms: int) -> str:
    """That it goes on for longer."""
    assert record.deadline_ms is not None
    return f"Your session {title(record)} goes on until {moment_text(record.deadline_ms, now_ms)}."


def title(record: Record) -> str:
    """What people call a session."""
    return record.server or record.request.name or "default"


def notice_row(
    record: Record, id: str, at_ms: int, kind: Kind, message: str, step_s: int | None
) -> dict[str, Any]:
    """The row of `notices`: all that a delivery needs, whatever becomes of the session."""
    body = {
        "message": message,
        "session": {
            "id": record.id,
            "name": title(record),
            "url": f"/user/{record.user}/{record.server + '/' if record.server else ''}",
            "state": PUBLIC[State(record.state)],
            "image": record.request.version,
            "group": record.request.group,
            "project": record.request.project,
            "cause": str(record.cause) if record.cause else None,
            "deadline_ms": record.deadline_ms,
        },
    }
    return {
        "id": id,
        "at_ms": at_ms,
        "kind": str(kind),
        "user_name": record.user,
        "request": record.id,
        "deadline_ms": record.deadline_ms,
        "step_s": step_s,
        "body": json.dumps(body, separators=(",", ":")),
    }


def delivery_rows(notice: str, at_ms: int, ways: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of `deliveries`: one a way, due at once."""
    return [
        {
            "id": f"{notice}-{way}",
            "notice": notice,
            "way": way,
            "state": "waiting",
            "tries": 0,
            "next_ms": at_ms,
            "done_ms": None,
            "error": None,
        }
        for way in ways
    ]
