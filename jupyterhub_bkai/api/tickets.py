"""Passes for the Hub's form: who may ask, for whom, what would happen to a request.

The form is a page of the Hub and has no login to the service, so the Hub asks for a ticket over the trusted socket
and writes it into the page. It opens nothing but the form's live answer, for twelve hours.

Why not the browser's login: a script can follow the Hub's OAuth redirects only as a `no-cors` request (otherwise the
Hub wants its XSRF token on the way and the redirects go round), which every page of the same origin can make, other
people's sessions included; and an administrator who asks for somebody else would be answered for themselves.
"""

import base64
import hashlib
import hmac
import json
import os

from jupyterhub_bkai.model import Person

VALID_MS = 12 * 3_600_000


class Tickets:
    """Issues and reads tickets; only the one who issued a ticket can read it."""

    def __init__(self, key: bytes | None = None) -> None:
        # With a lasting key an open form keeps its live answer over a restart of the service.
        self._key = key or os.urandom(32)

    def issue(self, person: Person, now_ms: int) -> str:
        """A ticket for `person`, good for twelve hours."""
        claims = [person.name, list(person.groups), person.admin, now_ms + VALID_MS]
        body = base64.urlsafe_b64encode(json.dumps(claims).encode())
        return f"{body.decode()}.{self._seal(body)}"

    def read(self, ticket: str, now_ms: int) -> Person | None:
        """Whom the ticket was issued for; None when it is not one of ours or too old."""
        body, _, seal = ticket.partition(".")
        if not hmac.compare_digest(self._seal(body.encode()).encode(), seal.encode()):
            return None
        name, groups, admin, until = json.loads(base64.urlsafe_b64decode(body))
        return Person(name, tuple(groups), admin) if now_ms < until else None

    def _seal(self, body: bytes) -> str:
        return hmac.new(self._key, body, hashlib.sha256).hexdigest()
