"""What people want to be told, and what went out."""

import json
from typing import Annotated, Any

import msgspec

from jupyterhub_bkai.api import views
from jupyterhub_bkai.api.operations import Call, Operation, Query
from jupyterhub_bkai.api.switches import administrators
from jupyterhub_bkai.errors import InvalidOptions, NotAllowed
from jupyterhub_bkai.leasing.draft import Draft
from jupyterhub_bkai.notices import letter
from jupyterhub_bkai.notices.kinds import MEANING, Choice, Kind, is_address
from jupyterhub_bkai.options import shown
from jupyterhub_bkai.store import queries

MOST = 500
STATES = ("waiting", "delivered", "failed")


class KindView(msgspec.Struct):
    """One kind of notice: what it is about, and whether one wants it."""

    kind: str
    about: str
    wanted: bool


class Choices(msgspec.Struct):
    """What one is told, by which ways ("webhook", "email"), and where mails go; `own_address`: one may say where."""

    kinds: list[KindView]
    ways: list[str]
    address: str | None
    own_address: bool


class Choose(msgspec.Struct):
    """The kinds one does not want, and where mails go (null: where the administrator says)."""

    off: Annotated[list[str], msgspec.Meta(max_length=20)] = []
    address: Annotated[str, msgspec.Meta(max_length=254)] | None = None


class Delivery(msgspec.Struct):
    """One notice by one way: "waiting", "delivered" or "failed", after how many tries, and what was wrong last."""

    id: str
    kind: str
    at: str
    user: str
    message: str
    session: str
    way: str
    state: str
    tries: int
    next: str | None
    done: str | None
    error: str | None


class Deliveries(msgspec.Struct):
    """What went out, newest first."""

    notices: list[Delivery]


async def choices(call: Call) -> Choices:
    """What one is told."""
    broker, name = call.context.broker, call.caller.person.name
    choice, email = broker.choices.get(name) or Choice(), call.context.settings.notices.email
    return Choices(
        [KindView(str(kind), MEANING[kind], kind not in choice.off) for kind in Kind],
        list(call.context.settings.notices.names),
        letter.address(email, name, choice) if email is not None else None,
        email is not None and email.own_address,
    )


async def choose(call: Call) -> Choices:
    """Changes what one is told."""
    if call.caller.server is not None:
        raise NotAllowed("A session's own token cannot change what you are told; use your own.")
    off, address, name = call.body.off, call.body.address, call.caller.person.name
    for kind in off:
        if kind not in list(Kind):
            raise InvalidOptions({"off": f"off: “{shown(kind)}” is none of {', '.join(Kind)}."})
    email = call.context.settings.notices.email
    if address is not None and (email is None or not email.own_address):
        raise NotAllowed("This site does not let people choose where their mails go.")
    if address is not None and not is_address(address):
        raise InvalidOptions({"address": f"address: “{shown(address)}” is no mail address."})
    body = json.dumps({"off": sorted(set(off)), "address": address})

    def command(draft: Draft) -> None:
        draft.batch.choices.append({"kind": "notices", "name": name, "body": body})

    await call.context.broker.submit(command)
    return await choices(call)


async def told(call: Call) -> Deliveries:
    """What went out to everybody, and what did not."""
    administrators(call)
    state = call.query.get("state") or None
    if state is not None and state not in STATES:
        raise InvalidOptions({"state": f"state: give one of {', '.join(STATES)}."})
    user = call.query.get("user") or None
    if user is not None and not user.isprintable():  # which a database may not take
        return Deliveries([])
    rows = await call.context.database.read(queries.told(user, state, MOST))
    return Deliveries([_delivery(row) for row in rows])


def _delivery(row: Any) -> Delivery:
    said = letter.payload(row)
    return Delivery(
        id=said["id"],
        kind=said["kind"],
        at=said["at"],
        user=said["user"],
        message=said["message"],
        session=said["session"]["id"],
        way=row["way"],
        state=row["state"],
        tries=row["tries"],
        next=views.iso(row["next_ms"]) if row["state"] == "waiting" else None,
        done=views.iso(row["done_ms"]),
        error=row["error"],
    )


OPERATIONS = (
    Operation("GET", "/me/notices", "What you are told, and by which ways", choices, Choices),
    Operation("PUT", "/me/notices", "Change what you are told", choose, Choices, Choose),
    Operation(
        "GET",
        "/notices",
        "What people were told, newest first, and what could not be delivered (administrators)",
        told,
        Deliveries,
        query=(
            Query("state", "waiting, delivered or failed."),
            Query("user", "Only what this person was told."),
        ),
    ),
)
