"""A trace: who asked when for what, for how long, and how long it really took. One CSV line a session.

Pure. Owns the columns and what may stand in them; `bkai usage --trace` writes it and `bkai simulate` reads it.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus.slices import number
from jupyterhub_bkai.model import Wish
from jupyterhub_bkai.options import amount, shown

MOST_SECONDS = 10 * 366 * 86400


@dataclass(frozen=True, slots=True)
class Job:
    """One session of a trace. Seconds count from the trace's beginning; `took_s` from when it could be worked in.

    `duration_s` is what was asked for (None: no limit), `patience_s` after what waiting it was withdrawn (None: never).
    """

    asked_s: float
    user: str
    project: str | None
    group: str
    cpu_milli: int
    memory_mib: int
    wish: Wish | None
    duration_s: int | None
    took_s: float
    priority: int = 10
    patience_s: float | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what it means, what stands for an empty cell (None: there must be something), how it is read."""

    name: str
    help: str
    default: str | None
    read: Callable[[str], Any]
    expects: str


def _text(cell: str) -> str | None:
    return cell if cell.isprintable() and len(cell) <= 255 else None


def _seconds(cell: str) -> float | None:
    found = amount(cell)
    return float(found) if found is not None and found <= MOST_SECONDS else None


def _whole(least: int, most: int) -> Callable[[str], int | None]:
    def read(cell: str) -> int | None:
        return int(cell) if cell.isdecimal() and len(cell) < 12 and least <= int(cell) <= most else None

    return read


def _milli(cell: str) -> int | None:
    found = amount(cell)
    return int(found * 1000) if found is not None and 0 < found <= 100_000 else None


def _share(cell: str) -> Fraction | None:
    found = amount(cell)
    return found if found is not None and 0 < found <= 1 else None


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda cell: () if not cell else read(cell)


_SECONDS = "a number of seconds"
COLUMNS = (
    Column("asked_s", "when it was asked for, in seconds from the beginning", None, _seconds, _SECONDS),
    Column("user", "who asked: a name or a number", None, _text, "a name"),
    Column("project", "for which project", "", _text, "a name"),
    Column("group", "the resource group", None, _text, "a name"),
    Column("cpu", "processors", None, _milli, "a number of processors such as 4 or 0.5"),
    Column("memory_mib", "main memory in MiB", None, _whole(1, 1 << 30), "a whole number of MiB"),
    Column("slot", "the kind of device (“cuda”); empty for none", "", _text, "a kind of device"),
    Column("devices", "how many devices", "1", _whole(1, 1024), "a whole number above 0"),
    Column("share", "how much of each: 1/4, 0.25 or 1", "1", _share, "a part such as 1/4, above 0 and at most 1"),
    Column("profile", "or one MIG instance of this profile of each", "", _text, "a profile's name"),
    Column(
        "duration_s", "the duration asked for; empty for none", "", _optional(_whole(1, MOST_SECONDS)),
        "a whole number of seconds",
    ),
    Column("took_s", "how long it was used, if nobody ended it", None, _seconds, _SECONDS),
    Column("priority", "0 to 100, a higher one first", "10", _whole(0, 100), "a whole number from 0 to 100"),
    Column(
        "patience_s", "after this long a wait it was withdrawn; empty for never", "", _optional(_seconds), _SECONDS
    ),
)  # fmt: skip
_NAMES = tuple(column.name for column in COLUMNS)


def read(text: str, name: str = "the trace") -> list[Job]:
    """The sessions of a trace, in the order in which they were asked for. Raises `SettingsError` that names line and
    column.
    """
    try:
        return _read(text, name)
    except csv.Error as error:
        raise SettingsError([(name, f"this is not CSV: {error}.")]) from None


def _read(text: str, name: str) -> list[Job]:
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    heading = next(rows, None)
    if not heading:
        raise SettingsError([(name, f"it is empty; its first line names the columns: {', '.join(_NAMES)}.")])
    places = _places([cell.strip() for cell in heading], name)
    jobs = []
    for cells in rows:
        if not any(cells):
            continue
        where = f"{name}, line {rows.line_num}"
        if len(cells) != len(heading):
            raise SettingsError(
                [(where, f"it has {len(cells)} cells, but there are {len(heading)} columns.")]
            )
        jobs.append(_job(cells, places, where))
    if not jobs:
        raise SettingsError([(name, "it has no sessions: there is nothing below the names of the columns.")])
    return sorted(jobs, key=lambda job: job.asked_s)


def _places(heading: Sequence[str], name: str) -> Mapping[str, int]:
    where = f"{name}, line 1"
    for place, cell in enumerate(heading):
        if cell not in _NAMES:
            near = get_close_matches(cell, _NAMES, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_NAMES)}."
            raise SettingsError([(where, f"there is no column “{shown(cell)}”; {hint}")])
        if cell in heading[:place]:
            raise SettingsError([(where, f"the column {cell} is there twice.")])
    for column in COLUMNS:
        if column.default is None and column.name not in heading:
            raise SettingsError([(where, f"the column {column.name} is missing ({column.help}).")])
    return {cell: place for place, cell in enumerate(heading)}


def _job(cells: Sequence[str], places: Mapping[str, int], where: str) -> Job:
    found: dict[str, Any] = {}
    for column in COLUMNS:
        cell = cells[places[column.name]].strip() if column.name in places else ""
        if not cell and column.default is None:
            raise SettingsError(
                [(f"{where}, column {column.name}", f"it is empty; expected {column.expects}.")]
            )
        value = column.read(cell or column.default or "")
        if value is None:
            raise SettingsError(
                [(f"{where}, column {column.name}", f"“{shown(cell)}” is not {column.expects}.")]
            )
        found[column.name] = value if value != () else None
    wish = None
    if found["slot"]:
        wish = Wish(found["slot"], found["devices"], found["share"], found["profile"] or None)
    return Job(
        found["asked_s"],
        found["user"],
        found["project"] or None,
        found["group"],
        found["cpu"],
        found["memory_mib"],
        wish,
        found["duration_s"],
        found["took_s"],
        found["priority"],
        found["patience_s"],
    )


def write(jobs: Iterable[Job]) -> str:
    """The trace of some sessions; `read` gives them back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_NAMES)
    for job in jobs:
        wish = job.wish
        writer.writerow(
            (
                _figure(job.asked_s),
                job.user,
                job.project or "",
                job.group,
                number(Fraction(job.cpu_milli, 1000)),
                job.memory_mib,
                wish.slot if wish else "",
                wish.count if wish else "",
                str(wish.share) if wish else "",
                (wish.profile or "") if wish else "",
                "" if job.duration_s is None else job.duration_s,
                _figure(job.took_s),
                job.priority,
                "" if job.patience_s is None else _figure(job.patience_s),
            )
        )
    return out.getvalue()


def _figure(seconds: float) -> str:
    return number(Fraction(round(max(0.0, seconds) * 1000), 1000))


def anonymous(jobs: Sequence[Job]) -> list[Job]:
    """The same sessions with numbers in place of the names of people and projects, in the order of their first."""
    people: dict[str, str] = {}
    projects: dict[str, str] = {}
    found = []
    for job in jobs:
        user = people.setdefault(job.user, str(len(people) + 1))
        project = projects.setdefault(job.project, str(len(projects) + 1)) if job.project else None
        found.append(replace(job, user=user, project=project))
    return found
