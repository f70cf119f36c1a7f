"""Words and tables for a terminal. Pure, apart from asking how wide it is.

Text that comes from elsewhere passes `plain`: no control character, no escape sequence reaches the terminal.
"""

import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from jupyterhub_bkai.options import duration_text

if TYPE_CHECKING:
    from jupyterhub_bkai.client.nouns import When

#: CSI and OSC sequences, then any other two-character escape
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b.?"
)
_COLOURS: Mapping[str, Mapping[str, object]] = {
    "RUNNING": {"fg": "green"},
    "PENDING": {"fg": "yellow"},
    "PREPARING": {"fg": "cyan"},
    "PULLING": {"fg": "cyan"},
    "TERMINATING": {"fg": "cyan"},
    "ERROR": {"fg": "red"},
    "TERMINATED": {"dim": True},
    "CANCELLED": {"dim": True},
}
NARROWEST = 8
INDENT = "    "

Style = Callable[[str], str]


def plain(text: object, keep: str = "") -> str:
    """`text` without escape sequences and control characters (those in `keep` excepted); blanks become spaces."""
    cleaned = _ESCAPES.sub("", str(text))
    return "".join(c if c.isprintable() or c in keep else " " if c.isspace() else "" for c in cleaned)


def gist(text: str) -> str:
    """What a sentence says apart from its numbers, to tell news from progress."""
    return re.sub(r"[0-9][0-9.,]*", "#", text)


def coloured(state: str) -> str:
    """A session's state in its colour (which goes away where there is no terminal)."""
    return click.style(state, **_COLOURS.get(state.strip(), {}))  # type: ignore[arg-type]  # names of click's styles


def width(text: str) -> int:
    """How many columns `text` takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def cut(text: str, columns: int) -> str:
    """`text`, shortened with an ellipsis when it is wider than `columns`."""
    if width(text) <= columns:
        return text
    kept = ""
    for c in text:
        if width(kept + c) > columns - 1:
            break
        kept += c
    return kept + "…"


def available() -> int | None:
    """The columns of the terminal that reads us; None when it is no terminal, and nothing need be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    columns: int | None = None,
    right: Sequence[str] = (),
    styles: Mapping[str, Style] | None = None,
    prose: str = "",
) -> str:
    """Aligned columns; empty ones are left out. What does not fit into `columns` is cut, the widest column first.

    Only the column `prose`, the last, is never cut: where there is no room beside the others, it goes below.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    shown = [n for n, _ in enumerate(headings) if any(row[n] for row in cells)]
    widths = {n: max(width(r[n]) for r in [list(headings), *cells]) for n in shown}
    below = headings.index(prose) if prose and _total(widths) > (columns or _total(widths)) else None
    if below is not None:
        widths.pop(below, None)
    _fit(widths, columns)

    def line(row: Sequence[str], paint: Callable[[int], Style]) -> str:
        parts = []
        for n, wide in widths.items():
            cell = cut(row[n], wide)
            blank = " " * (wide - width(cell))
            parts.append(blank + paint(n)(cell) if headings[n] in right else paint(n)(cell) + blank)
        return "  ".join(parts).rstrip()

    text = [line(headings, lambda n: _heading)]
    for row in cells:
        text.append(line(row, lambda n: (styles or {}).get(headings[n], str)))
        if below is not None and columns:
            text += textwrap.wrap(
                row[below], max(columns, 20), initial_indent=INDENT, subsequent_indent=INDENT
            )
    return "\n".join(text)


def _heading(text: str) -> str:
    return click.style(text, bold=True)


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _fit(widths: dict[int, int], columns: int | None) -> None:
    """Take columns from the widest until all fit."""
    spare = _total(widths) - (columns or _total(widths))
    while spare > 0 and max(widths.values()) > NARROWEST:
        widths[max(widths, key=lambda n: widths[n])] -= 1
        spare -= 1


def facts(rows: Sequence[tuple[str, object]]) -> str:
    """Name and value, one pair a line; pairs without a value are left out."""
    shown = [(name, plain(value)) for name, value in rows if value not in (None, "")]
    wide = max((width(name) for name, _ in shown), default=0)
    return "\n".join(
        f"{click.style(name, bold=True)}{' ' * (wide - width(name))}  {value}" for name, value in shown
    )


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, or in how long: "3 min ago", "in 2 h 5 min"."""
    if moment is None:
        return ""
    seconds = round(((now or datetime.now(UTC)) - moment).total_seconds())
    if abs(seconds) < 2:
        return "just now"
    return f"{duration_text(seconds)} ago" if seconds > 0 else f"in {duration_text(-seconds)}"


def between(when: "When | None") -> str:
    """Between which moments something starts, in local time: "14:20–15:05"; "?" where nobody can say."""
    if when is None:
        return "?"
    first, last = when.earliest.astimezone(), when.latest.astimezone()
    today = datetime.now().astimezone().date()

    def text(moment: datetime) -> str:
        return moment.strftime("%H:%M" if moment.date() == today else "%a %H:%M")

    return f"{text(first)}–{text(last)}"


def memory(mib: float) -> str:
    """An amount of memory: "512 MiB", "1.5 GiB"."""
    return f"{mib / 1024:.1f} GiB".replace(".0 ", " ") if mib >= 1024 else f"{mib:g} MiB"
