"""The picture of a comparison: how long people wait, and how much is given away over time, a line for each policy.

One SVG file without anything outside it, for light and dark surroundings.
"""

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from jupyterhub_bkai.simulation.figures import Figures, below

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 760, 240, 62, 20, 64, 74
#: told apart without seeing red and green, on white and on black
COLOURS = ("#2a78d6", "#e07b1f", "#1f9e78", "#b455c4", "#c9a100", "#d6456b", "#5b8def", "#7d8590")
DASHES = ("", "7 4", "2 3", "10 3 2 3")
TICKS_S = (
    (0, "at once"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (14_400, "4 h"), (43_200, "12 h"),
    (86_400, "1 d"), (259_200, "3 d"), (604_800, "7 d"), (1_814_400, "21 d"),
)  # fmt: skip
STYLE = """\
text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:12px;fill:#57606a}
.grid{stroke:#d0d7de;stroke-width:1}.ground{fill:#fff}path{fill:none;stroke-width:2;stroke-linejoin:round}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9aa4ae}.grid{stroke:#363d46}.ground{fill:#0d1117}}"""


def draw(policies: Sequence[Figures]) -> str:
    """The SVG text."""
    legend = 22 * ((len(policies) + 1) // 2)
    height = TOP + legend + 2 * PANEL + GAP + 52
    title = "Waiting and allocation under " + ", ".join(one.policy for one in policies)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">',
        f'<title>{escape(title)}</title><style>{STYLE}</style><rect class="ground" width="100%" height="100%"/>',
        *_legend(policies),
        *_waits(policies, TOP + legend),
        *_allocation(policies, TOP + legend + PANEL + GAP),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _line(number: int) -> str:
    dash = DASHES[number // len(COLOURS) % len(DASHES)] or DASHES[number % len(DASHES)]
    return f'stroke="{COLOURS[number % len(COLOURS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _legend(policies: Sequence[Figures]) -> Iterable[str]:
    for number, one in enumerate(policies):
        x, y = LEFT + (number % 2) * 340, 24 + 22 * (number // 2)
        yield f'<path d="M{x} {y - 4}h30" {_line(number)}/>'
        yield _text(x + 38, y, one.policy if len(one.policy) <= 38 else one.policy[:37] + "…")


def _rows(top: float, title: str) -> Iterable[str]:
    yield _text(LEFT, top - 12, title)
    for part in (0, 25, 50, 75, 100):
        y = top + PANEL * (1 - part / 100)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 8, y + 4, f"{part} %", "end", "small")


def _path(points: Iterable[tuple[float, float]], number: int) -> str:
    return f'<path d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}" {_line(number)}/>'


def _waits(policies: Sequence[Figures], top: float) -> Iterable[str]:
    """The distribution: the part of the sessions (up) that waited no longer than so long (along, not to scale)."""
    yield from _rows(top, "Sessions that had started after waiting this long")
    worst = max((one.waits[""].worst_s for one in policies), default=0.0)
    last = next((n for n, (seconds, _) in enumerate(TICKS_S) if n > 3 and seconds >= worst), len(TICKS_S) - 1)
    step = (WIDTH - LEFT - RIGHT) / last
    for number, (_, words) in enumerate(TICKS_S[: last + 1]):
        x = LEFT + step * number
        yield f'<path class="grid" d="M{x:.1f} {top + PANEL}v5"/>'
        yield _text(x, top + PANEL + 20, words, "middle" if number < last else "end", "small")
    for number, one in enumerate(policies):
        points = []
        for tick in range(last):
            begin, end = TICKS_S[tick][0], TICKS_S[tick + 1][0]
            for part in range(16):
                seconds = begin + (end - begin) * part / 16
                points.append(
                    (LEFT + step * (tick + part / 16), top + PANEL * (1 - below(one.seconds, seconds)))
                )
        points.append((LEFT + step * last, top + PANEL * (1 - below(one.seconds, TICKS_S[last][0]))))
        yield _path(points, number)


def _allocation(policies: Sequence[Figures], top: float) -> Iterable[str]:
    """Devices that were held, hour by hour."""
    yield from _rows(top, "Devices held")
    hours = max((len(one.hours) for one in policies), default=0) or 1
    width = WIDTH - LEFT - RIGHT
    every = next((n for n in (1, 2, 6, 12, 24, 48, 168, 336, 672, 2016) if hours / n <= 10), 8760)
    for hour in range(0, hours + 1, every):
        x = LEFT + width * hour / hours
        yield f'<path class="grid" d="M{x:.1f} {top + PANEL}v5"/>'
        words = f"day {hour // 24}" if every % 24 == 0 else f"{hour} h"
        yield _text(x, top + PANEL + 20, words, "middle" if hour < hours else "end", "small")
    for number, one in enumerate(policies):
        points = [
            (LEFT + width * (hour + 0.5) / hours, top + PANEL * (1 - min(1.0, part)))
            for hour, part in enumerate(one.hours)
        ]
        if points:
            yield _path(points, number)
