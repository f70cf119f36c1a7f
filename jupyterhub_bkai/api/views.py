"""The shapes of answers: what a record, a device, a queue look like outside.

Times are ISO 8601 in UTC with milliseconds. Shares are exact fractions as text ("1/4").
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import msgspec

from jupyterhub_bkai.gpus.slices import Unit, number
from jupyterhub_bkai.leasing import telling
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.lifecycle import HOLDING, PUBLIC, State
from jupyterhub_bkai.leasing.when import Range
from jupyterhub_bkai.model import Slice
from jupyterhub_bkai.options import wish_text
from jupyterhub_bkai.policy import Settings
from jupyterhub_bkai.store.records import Record


class ErrorDetail(msgspec.Struct):
    """Why something was refused: a stable reason, a sentence, and sentences by field."""

    reason: str
    message: str
    fields: dict[str, str]


class Error(msgspec.Struct):
    """The body of every refusal."""

    error: ErrorDetail


class Mig(msgspec.Struct):
    """A MIG instance's place, in memory slots."""

    profile: str
    start: int
    size: int


class SliceView(msgspec.Struct):
    """A part of one device that a session holds."""

    device: str
    index: int
    slot: str
    model: str
    share: str
    fgpu: str
    memory_mib: int
    sm_milli: int
    mig: Mig | None = None


class ProgressView(msgspec.Struct):
    """What a starting session is doing."""

    percent: int | None
    message: str


class When(msgspec.Struct):
    """Between which moments it starts, in nine of ten cases."""

    earliest: str
    latest: str


class Warning(msgspec.Struct):
    """That a session ends soon, as its owner was told."""

    id: str
    at: str
    message: str


class Session(msgspec.Struct):
    """A session, from request to end."""

    id: str
    user: str
    server: str
    name: str
    url: str
    image: str
    group: str
    project: str | None
    session_type: str
    priority: int
    #: it starts at this time at the earliest, and after these sessions (ids) have ended
    not_before: str | None
    after: list[str]
    state: str
    state_since: str
    position: int | None
    why: str | None
    when: When | None
    progress: ProgressView | None
    accelerator: str
    fgpu: str | None
    share: str | None
    slices: list[SliceView]
    cpu: float
    memory_mib: int
    shm_mib: int
    asked: str
    granted: str | None
    started: str | None
    ended: str | None
    deadline: str | None
    #: the newest warning of this deadline
    warning: Warning | None
    cause: str | None
    message: str | None
    #: what is wrong with a session that runs: a device that is gone
    trouble: str | None
    node: str | None
    enforcement: str
    fake: bool


def iso(ms: int | None) -> str | None:
    """Milliseconds since the epoch as ISO 8601."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def slice_view(piece: Slice, unit: Unit) -> SliceView:
    """A slice with its amount in the administrator's unit beside the share."""
    return SliceView(
        device=piece.device,
        index=piece.index,
        slot=piece.slot,
        model=piece.model,
        share=str(piece.share),
        fgpu=number(unit.fgpu(piece.share)),
        memory_mib=piece.memory_mib,
        sm_milli=piece.sm_milli,
        mig=Mig(piece.mig.profile, piece.mig.start, piece.mig.size) if piece.mig else None,
    )


def accelerator_text(record: Record, unit: Unit) -> str:
    """The accelerator in words: what is held, or what is asked for while it waits."""
    if not record.slices:
        return wish_text(record.request.wish, unit)
    total = sum((piece.share for piece in record.slices), Fraction(0))
    memory = sum(piece.memory_mib for piece in record.slices)
    first = record.slices[0]
    if first.mig:
        return f"{len(record.slices)} × {first.mig.profile} of {first.model} ({memory:,} MiB)"
    percent = f"{number(first.share * 100, 1)} % of " if first.share < 1 else ""
    device = first.model if len(record.slices) == 1 else f"{len(record.slices)} × {first.model}"
    return f"{number(unit.fgpu(total))} fGPU ({percent}{device}, {memory:,} MiB)"


def when(found: Range | None) -> When | None:
    """A range as it is shown."""
    return When(iso(found.earliest_ms) or "", iso(found.latest_ms) or "") if found is not None else None


def session(
    record: Record,
    broker: Broker,
    settings: Settings,
    *,
    fake: bool,
    enforcement: str,
    starts: Range | None = None,
) -> Session:
    """A record as everybody who may see it sees it; `starts` is when, for one that waits."""
    group = settings.group(record.request.group)
    unit = group.unit if group else Unit()
    standing = broker.standing(record)
    progress = broker.progress.get(record.id)
    wish = record.request.wish
    total = wish.share * wish.count if wish and not wish.profile else None
    if record.slices:
        total = sum((piece.share for piece in record.slices), Fraction(0))
    return Session(
        id=record.id,
        user=record.user,
        server=record.server,
        # Unique among a person's live ones, unlike the name that was asked for, which several may share (count).
        name=record.server or record.request.name or "default",
        url=f"/user/{record.user}/{record.server + '/' if record.server else ''}",
        image=record.request.version,
        group=record.request.group,
        project=record.request.project,
        session_type=str(record.request.session_type),
        priority=record.request.priority,
        not_before=iso(record.request.not_before_ms or None),
        after=list(record.request.after),
        state=PUBLIC[State(record.state)],
        state_since=iso(record.since_ms) or "",
        position=standing.position if standing else None,
        why=standing.why if standing else None,
        when=when(starts),
        progress=ProgressView(progress.percent, progress.message) if progress else None,
        accelerator=accelerator_text(record, unit),
        fgpu=number(unit.fgpu(total)) if total is not None else None,
        share=str(total) if total is not None else None,
        slices=[slice_view(piece, unit) for piece in record.slices],
        cpu=record.request.cpu_milli / 1000,
        memory_mib=record.request.memory_mib,
        shm_mib=record.request.shm_mib,
        asked=iso(record.asked_ms) or "",
        granted=iso(record.granted_ms),
        started=iso(record.started_ms),
        ended=iso(record.ended_ms),
        deadline=iso(record.deadline_ms),
        warning=_warning(record, broker),
        cause=str(record.cause) if record.cause else None,
        message=record.message,
        trouble=trouble(record, broker),
        node=record.node,
        enforcement=enforcement,
        fake=fake,
    )


def trouble(record: Record, broker: Broker) -> str | None:
    """What is wrong with what a session holds; None while all of it is there and works."""
    if record.state not in HOLDING or record.state == State.STOPPING:
        return None
    for piece in record.slices:
        device = broker.device(piece.device)
        if device is None or not device.healthy:
            what = "is gone from" if device is None else "does not work in"
            return (
                f"Card {piece.index} ({piece.model}) {what} the machine {record.node}, and programs that use it fail. "
                "Save your work, stop this session and start another."
            )
    return None


def _warning(record: Record, broker: Broker) -> Warning | None:
    told = broker.warned.get(record.id)
    if told is None or not told.id or told.deadline_ms != record.deadline_ms or record.state != State.RUNNING:
        return None
    return Warning(told.id, iso(told.at_ms) or "", telling.ending(record, told.at_ms))


class Transition(msgspec.Struct):
    """One move a session made."""

    at: str
    source: str | None = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    who: str
    why: str


def transition(row: Mapping[str, Any]) -> Transition:
    """A row of the story; inner states, since the story is for those who want to know exactly."""
    return Transition(iso(row["at_ms"]) or "", row["source"], row["target"], row["who"], row["why"])
