"""One request with its lease as it is held in memory and as it is stored; nothing about rules.

`Record` is the row of `requests` joined with its lease and slices. The texts of JSON columns are made and read here
only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from jupyterhub_bkai.model import Mount, Person, Placement, Request, SessionType, Slice, Wish


@dataclass(frozen=True, slots=True)
class Record:
    """A request, where it stands, and the lease it holds or held (`node` is None before a grant)."""

    id: str
    order: int
    person: Person
    server: str
    request: Request
    state: str
    since_ms: int
    asked_ms: int
    ended_ms: int | None = None
    cause: str | None = None
    message: str | None = None
    keepalive_s: int | None = None
    remove_server: bool = False
    node: str | None = None
    slices: tuple[Slice, ...] = ()
    granted_ms: int | None = None
    started_ms: int | None = None
    deadline_ms: int | None = None
    handle: Mapping[str, Any] | None = field(default=None)

    @property
    def user(self) -> str:
        """The Hub's name of whose session it is."""
        return self.person.name


def encode_request(request: Request) -> str:
    """The JSON text of the `wish` column."""
    raw = {name: getattr(request, name) for name in _REQUEST}
    raw["folders"] = [{"name": mount.name, "mode": mount.mode} for mount in request.folders]
    raw["environment"] = dict(request.environment)
    if (wish := request.wish) is not None:
        raw["wish"] = {name: getattr(wish, name) for name in _WISH} | {"share": str(wish.share)}
    return json.dumps(raw, separators=(",", ":"), sort_keys=True)


_REQUEST, _WISH = (tuple(one.name for one in fields(kind)) for kind in (Request, Wish))


def decode_request(text: str) -> Request:
    """The other way round."""
    raw = json.loads(text)
    wish = raw["wish"]
    return Request(
        **{
            **raw,
            "wish": _wish(wish) if wish else None,
            "session_type": SessionType(raw["session_type"]),
            "folders": tuple(Mount(**mount) for mount in raw["folders"]),
            "after": tuple(raw.get("after", ())),
        }
    )


def _wish(raw: Mapping[str, Any]) -> Wish:
    return Wish(**{**raw, "share": Fraction(raw["share"]), "models": tuple(raw.get("models", ()))})


def request_row(record: Record) -> dict[str, Any]:
    """The row of `requests`."""
    return {
        "id": record.id,
        "ord": record.order,
        "user_name": record.user,
        "server": record.server,
        "hub_groups": json.dumps(record.person.groups),
        "admin": record.person.admin,
        **wish_columns(record),
        **standing_columns(record),
        "asked_ms": record.asked_ms,
    }


def wish_columns(record: Record) -> dict[str, Any]:
    """What of a row of `requests` changes when a waiting request asks for something else."""
    request = record.request
    return {
        "id": record.id,
        "group_name": request.group,
        "version": request.version,
        "wish": encode_request(request),
    }


def standing_columns(record: Record) -> dict[str, Any]:
    """What of a row of `requests` changes with its moves."""
    return {
        "id": record.id,
        "state": str(record.state),
        "since_ms": record.since_ms,
        "ended_ms": record.ended_ms,
        "cause": str(record.cause) if record.cause else None,
        "message": record.message,
        "keepalive_s": record.keepalive_s,
        "remove_server": record.remove_server,
    }


def lease_row(record: Record) -> dict[str, Any]:
    """The row of `leases`."""
    return {
        "id": record.id,
        "node": record.node,
        "cpu_milli": record.request.cpu_milli,
        "memory_mib": record.request.memory_mib,
        "granted_ms": record.granted_ms,
        "started_ms": record.started_ms,
        "deadline_ms": record.deadline_ms,
        "released_ms": record.ended_ms,
        "handle": json.dumps(record.handle) if record.handle is not None else None,
    }


def slice_rows(record: Record) -> list[dict[str, Any]]:
    """The rows of `slices`."""
    return [
        {
            "lease": record.id,
            "device": piece.device,
            "device_index": piece.index,
            "slot": piece.slot,
            "model": piece.model,
            "share": str(piece.share),
            "memory_mib": piece.memory_mib,
            "sm_milli": piece.sm_milli,
            "mig_profile": piece.mig.profile if piece.mig else None,
            "mig_start": piece.mig.start if piece.mig else None,
            "mig_size": piece.mig.size if piece.mig else None,
        }
        for piece in record.slices
    ]


def read(row: Mapping[str, Any], pieces: Sequence[Mapping[str, Any]]) -> Record:
    """A record from a row of `requests` outer-joined with `leases`, and its rows of `slices`."""
    return Record(
        id=row["id"],
        order=row["ord"],
        person=Person(row["user_name"], tuple(json.loads(row["hub_groups"])), bool(row["admin"])),
        server=row["server"],
        request=decode_request(row["wish"]),
        state=row["state"],
        since_ms=row["since_ms"],
        asked_ms=row["asked_ms"],
        ended_ms=row["ended_ms"],
        cause=row["cause"],
        message=row["message"],
        keepalive_s=row["keepalive_s"],
        remove_server=bool(row["remove_server"]),
        node=row["node"],
        slices=tuple(_slice(piece) for piece in pieces),
        granted_ms=row["granted_ms"],
        started_ms=row["started_ms"],
        deadline_ms=row["deadline_ms"],
        handle=json.loads(row["handle"]) if row["handle"] else None,
    )


def _slice(row: Mapping[str, Any]) -> Slice:
    mig = Placement(row["mig_profile"], row["mig_start"], row["mig_size"]) if row["mig_profile"] else None
    return Slice(
        device=row["device"],
        index=row["device_index"],
        slot=row["slot"],
        model=row["model"],
        share=Fraction(row["share"]),
        memory_mib=row["memory_mib"],
        sm_milli=row["sm_milli"],
        mig=mig,
    )
