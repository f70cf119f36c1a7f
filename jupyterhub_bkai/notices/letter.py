"""A notice as it goes out: the JSON of a webhook, the mail.

Pure. What comes from people (names of sessions) becomes one line of printable text before it stands in a header or a
body; addresses are only those that `kinds.is_address` takes.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email import policy as forms
from email.message import EmailMessage
from typing import Any

from jupyterhub_bkai.notices.kinds import Choice, Email, is_address

SUBJECTS = {
    "ending": "{name} ends soon",
    "ended": "{name} has ended",
    "turn": "It is your turn: {name} runs",
    "refused": "{name} waits no longer",
    "extended": "{name} goes on",
}


def payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a webhook is told, and administrators see, of a delivery with its notice."""
    body = json.loads(row["body"])
    session = {**body["session"]}
    session["deadline"] = _iso(session.pop("deadline_ms"))
    return {
        "id": row["notice"],
        "kind": row["kind"],
        "at": _iso(row["at_ms"]),
        "user": row["user_name"],
        "message": body["message"],
        "session": session,
    }


def encoded(told: Mapping[str, Any]) -> bytes:
    """The body that is posted and signed."""
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()


def address(email: Email, user: str, choice: Choice | None) -> str | None:
    """Where a person's mails go; None where that is no address."""
    own = choice.address if choice is not None and email.own_address else None
    found = own or email.to.replace("{user}", user)
    return found if is_address(found) else None


def mail(row: Mapping[str, Any], email: Email, to: str, public_url: str) -> EmailMessage:
    """The mail. Its Message-ID is the same at every try."""
    told = payload(row)
    name = line(told["session"]["name"])
    message = EmailMessage(policy=forms.SMTP)
    message["Subject"] = f"[bkai] {SUBJECTS[row['kind']].format(name=name)}"[:150]
    message["From"] = email.sender
    message["To"] = to
    message["Date"] = datetime.fromtimestamp(row["at_ms"] / 1000, UTC)
    message["Message-ID"] = f"<{row['notice']}@bkai.{email.sender.rpartition('@')[2]}>"
    message["X-Bkai-Notice"] = row["notice"]
    message["Auto-Submitted"] = "auto-generated"
    page = f"{public_url.rstrip('/')}/services/bkai/"
    message.set_content(f"{line(told['message'])}\n\nAll your sessions: {page}\n")
    return message


def line(text: str) -> str:
    """One line of printable text."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _iso(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
