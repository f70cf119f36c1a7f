"""Which session somebody means by NAME or ID."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jupyterhub_bkai.client.errors import Refused
from jupyterhub_bkai.names import is_lease_id

if TYPE_CHECKING:
    from jupyterhub_bkai.client import AsyncClient
    from jupyterhub_bkai.client.nouns import Session


async def find(client: "AsyncClient", text: str) -> "Session":
    """The session with this id or name. Among equal names a live one wins, then the newest.

    USER/NAME is another person's, for administrators.
    """
    if is_lease_id(text):
        return await client.session(text)
    user, slash, name = text.partition("/")
    if slash and user:
        return choose(await client.sessions(user=user), name, whose=user)
    return choose(await client.sessions(), text)


def choose(sessions: Iterable["Session"], text: str, whose: str = "") -> "Session":
    """The one of `sessions`, live ones first, that `text` means. The beginning of an id will do.

    `whose` is the person they belong to, where that is not the one who asks.
    """
    known = list(sessions)
    for means in (
        lambda s: text in (s.id, s.title),
        lambda s: text == s.name,
        lambda s: len(text) >= 4 and s.id.startswith(text),
    ):
        found = [session for session in known if means(session)]
        live = [session for session in found if not session.over]
        if len(live) > 1:
            ids = ", ".join(session.id for session in live)
            raise Refused(f"“{text}” could be any of these; give the id: {ids}.", reason="ambiguous")
        if found:
            return (live or sorted(found, key=lambda s: s.id, reverse=True))[0]
    names = ", ".join(session.title for session in known if not session.over)
    hint = names if names else "none"
    if whose:
        raise Refused(f"{whose} has no session “{text}”; {whose} has {hint}.", reason="not-found")
    raise Refused(f"You have no session “{text}”; you have {hint}.", reason="not-found")
