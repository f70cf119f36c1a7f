"""The site: what it is, who the caller is, what can be chosen, usage."""

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import msgspec

from jupyterhub_bkai import options
from jupyterhub_bkai._version import __version__
from jupyterhub_bkai.api import asking
from jupyterhub_bkai.api.operations import Call, Operation, Query, Text
from jupyterhub_bkai.errors import InvalidOptions, NotAllowed
from jupyterhub_bkai.simulation import trace
from jupyterhub_bkai.store import queries
from jupyterhub_bkai.store.records import Record


class Info(msgspec.Struct):
    """What this site is."""

    version: str
    fake_devices: bool
    statement: str
    enforcement: str
    process_users: str


class Me(msgspec.Struct):
    """Who calls; `session` is the id of the session whose token it is."""

    name: str
    admin: bool
    projects: list[str]
    session: str | None


class FieldView(msgspec.Struct):
    """One option as declared."""

    key: str
    label: str
    help: str
    kind: str
    default: str
    choices: str | None


class OptionsView(msgspec.Struct):
    """The declaration of all options, and what this caller can choose from now."""

    fields: list[FieldView]
    offer: dict[str, Any]


async def info(call: Call) -> Info:
    """What this site is."""
    context = call.context
    return Info(__version__, context.fake, context.statement, context.enforcement, context.process_users)


async def me(call: Call) -> Me:
    """Who calls."""
    person, server = call.caller.person, call.caller.server
    record = call.context.broker.of_server(person.name, server) if server is not None else None
    return Me(person.name, person.admin, list(person.groups), record.id if record else None)


async def declared(call: Call) -> OptionsView:
    """All options, and what this caller can choose from now."""
    fields = [FieldView(f.key, f.label, f.help, f.kind, f.default, f.choices) for f in options.FIELDS]
    return OptionsView(fields, offer_json(asking.offer(call.context, call.caller.person)))


def offer_json(offer: options.Offer) -> dict[str, Any]:
    """An offer as JSON gives it (exact fractions as text)."""
    found: dict[str, Any] = msgspec.to_builtins(offer, enc_hook=str)
    return found


# -- usage ------------------------------------------------------------------------------------


class Usage(msgspec.Struct):
    """What was used, summed by user, image or day. Hours are of the booked amounts; `measured_kib` is the largest
    main memory a session was seen to use, null where nothing was measured."""

    key: str
    sessions: int
    seconds: float
    gpu_hours: float
    gpu_mib_hours: float
    cpu_hours: float
    memory_mib_hours: float
    booked_mib: int
    measured_kib: int | None


class UsageReport(msgspec.Struct):
    """A period's usage."""

    by: str
    since: str
    until: str
    rows: list[Usage]


async def usage(call: Call) -> UsageReport | Text:
    """Sums the intervals of a period: one's own, everyone's for administrators."""
    by = call.query.get("by", "user")
    if by not in ("user", "image", "day"):
        raise InvalidOptions({"by": "by: give user, image or day."})
    now = datetime.fromtimestamp(call.context.now_ms() / 1000, UTC)
    until = _moment(call.query.get("to"), "to", now)
    since = _moment(call.query.get("from"), "from", until - timedelta(days=30))
    mine = None if call.caller.person.admin else call.caller.person.name
    if call.query.get("user") not in (None, "", mine):
        if mine is not None:
            raise NotAllowed("This is somebody else's usage.")
        mine = call.query["user"]
    from_ms, to_ms = (int(moment.timestamp() * 1000) for moment in (since, until))
    rows = await call.context.database.read(queries.Overlapping(from_ms, to_ms, mine))
    report = UsageReport(
        by, since.isoformat(), until.isoformat(), _sums(rows, by, from_ms, to_ms, call.context.now_ms())
    )
    if call.query.get("format", "json") == "csv":
        return Text(_csv(report.rows), "text/csv; charset=utf-8", f"usage-by-{by}.csv")
    return report


def _moment(text: str | None, name: str, default: datetime) -> datetime:
    if not text:
        return default
    try:
        found = datetime.fromisoformat(text)
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        if found.year < 1971:  # earlier than any use, and room for the period before it
            raise ValueError
        return found
    except (ValueError, OverflowError):
        raise InvalidOptions(
            {name: f"{name}: give a date such as 2026-03-31 or 2026-03-31T12:00Z."}
        ) from None


def _sums(rows: Any, by: str, from_ms: int, to_ms: int, now_ms: int) -> list[Usage]:
    found: dict[str, Usage] = {}
    for row in rows:
        for key, ms in _parts(row, by, from_ms, to_ms, now_ms):
            one = found.setdefault(key, Usage(key, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, None))
            hours = ms / 3_600_000
            one.sessions += 1
            one.seconds += ms / 1000
            one.gpu_hours += float(Fraction(row["share"])) * hours
            one.gpu_mib_hours += row["gpu_memory_mib"] * hours
            one.cpu_hours += row["cpu_milli"] / 1000 * hours
            one.memory_mib_hours += row["memory_mib"] * hours
            one.booked_mib = max(one.booked_mib, row["memory_mib"])
            if row["measured_kib"] is not None:
                one.measured_kib = max(one.measured_kib or 0, row["measured_kib"])
    return [found[key] for key in sorted(found)]


def _parts(row: Mapping[str, Any], by: str, from_ms: int, to_ms: int, now_ms: int) -> list[tuple[str, int]]:
    """The keys an interval counts under, with its milliseconds in each. A closed interval has the length that was
    measured; wall time only says where on the calendar it lies."""
    length = row["duration_ms"] if row["duration_ms"] is not None else max(0, now_ms - row["opened_ms"])
    start, end = row["opened_ms"], row["opened_ms"] + length
    start, end = max(start, from_ms), min(end, to_ms)
    if end < start:
        return []
    if by != "day":
        return [(row["user_name"] if by == "user" else row["version"], end - start)]
    parts = []
    day = 86_400_000
    while True:
        edge = min(end, (start // day + 1) * day)
        parts.append((datetime.fromtimestamp(start / 1000, UTC).date().isoformat(), edge - start))
        if edge >= end:
            return parts
        start = edge


def _csv(rows: list[Usage]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Usage.__struct_fields__)
    for row in rows:
        values = msgspec.structs.astuple(row)
        writer.writerow([_cell(value) for value in values])
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A spreadsheet must not take a name for a formula."""
    if isinstance(value, float):
        return f"{value:.6f}"
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


async def usage_trace(call: Call) -> Text:
    """What was asked for in a period, as the simulator reads it."""
    if not call.caller.person.admin:
        raise NotAllowed("Only administrators see what everybody asked for.")
    anonymous = call.query.get("anonymous", "0").lower()
    if anonymous not in (*_YES, *_NO):  # not taken for no: then it would give names
        raise InvalidOptions({"anonymous": "anonymous: give 1 or 0."})
    now = datetime.fromtimestamp(call.context.now_ms() / 1000, UTC)
    until = _moment(call.query.get("to"), "to", now)
    since = _moment(call.query.get("from"), "from", until - timedelta(days=30))
    from_ms, to_ms = (int(moment.timestamp() * 1000) for moment in (since, until))
    rows = await call.context.database.read(queries.asked(from_ms, to_ms))
    jobs = [_job(record, held_ms, from_ms, call.context.now_ms()) for record, held_ms in rows]
    if anonymous in _YES:
        jobs = trace.anonymous(jobs)
    return Text(trace.write(jobs), "text/csv; charset=utf-8", "trace.csv")


def _job(record: Record, held_ms: int | None, from_ms: int, now_ms: int) -> trace.Job:
    """A request as it went: what still runs has taken as long as it has so far, who left waited that long."""
    request, took_s, patience_s = record.request, 0.0, None
    end_ms = record.ended_ms if record.ended_ms is not None else now_ms
    if record.granted_ms is None:
        patience_s = max(0.0, (end_ms - record.asked_ms) / 1000) if record.ended_ms is not None else None
    elif record.started_ms is not None:
        length = held_ms if held_ms is not None else end_ms - record.granted_ms
        took_s = max(0.0, (length - (record.started_ms - record.granted_ms)) / 1000)
    return trace.Job(
        (record.asked_ms - from_ms) / 1000,
        record.user,
        request.project,
        request.group,
        request.cpu_milli,
        request.memory_mib,
        request.wish,
        request.duration_s,
        took_s,
        request.priority,
        patience_s,
    )


_TRACE = (
    Query("from", "ISO date or time; 30 days ago by default."),
    Query("to", "ISO date or time; now by default."),
    Query("anonymous", "1 for numbers in place of the names of people and projects."),
)
_PERIOD = (
    Query("by", "user, image or day."),
    Query("from", "ISO date or time; 30 days ago by default."),
    Query("to", "ISO date or time; now by default."),
    Query("user", "Only this person's (administrators)."),
    Query("format", "json or csv."),
)
OPERATIONS = (
    Operation("GET", "/info", "What this site is", info, Info),
    Operation("GET", "/me", "Who you are here", me, Me),
    Operation("GET", "/options", "All options, and what you can choose from now", declared, OptionsView),
    Operation("GET", "/usage", "Usage of a period, summed", usage, UsageReport, query=_PERIOD),
    Operation(
        "GET",
        "/usage/trace",
        "What was asked for in a period, for the simulator (administrators)",
        usage_trace,
        text="text/csv",
        query=_TRACE,
    ),
)
