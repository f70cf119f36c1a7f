"""Draws the pictures of docs/queue: who waits and who runs, under each way to serve a queue, by the real scheduler.

`python docs/pictures.py` writes them; `make test` fails when they are not what the scheduler decides.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from xml.sax.saxutils import escape

from jupyterhub_bkai.gpus.fit import NodeBook
from jupyterhub_bkai.leasing.caps import Amounts
from jupyterhub_bkai.leasing.queue import Discipline, Waiting
from jupyterhub_bkai.leasing.scheduler import Rules, Scheduler
from jupyterhub_bkai.model import Device, Node, Request, Wish

FOLDER = Path(__file__).with_name("queue")
HOUR_MS = 3_600_000
CARDS = 2
COLOURS = {"ada": "#2f6fde", "bob": "#c2571a", "cyd": "#2c8a4b"}


@dataclass(frozen=True)
class Ask:
    """A wish in a picture: who asks when (hours), for how many cards, and how long it takes."""

    name: str
    user: str
    at: float
    hours: float
    cards: int = 1
    cpu: int = 1
    priority: int = 10
    not_before: float = 0.0
    after: tuple[str, ...] = ()
    together: int = 1
    caps: Mapping[str, tuple[str, Amounts]] = field(default_factory=dict)


@dataclass
class Bar:
    """What became of a wish."""

    ask: Ask
    begun: float
    ended: float


def play(asks: list[Ask], rules: Rules) -> list[Bar]:
    """The wishes in the order in which they came, with the times at which they began and ended."""
    devices = tuple(Device(f"card-{n}", "lab", n, "cuda", "card", 80_000, 100) for n in range(CARDS))
    book = NodeBook.empty(Node("lab", 64_000, 512_000, devices))
    scheduler = Scheduler()
    scheduler.lay_out({"lab": (rules, ["lab"])}, [book])
    by_id = {ask.name: ask for ask in asks}
    bars: list[Bar] = []
    ends: list[tuple[float, str]] = []
    coming = sorted(asks, key=lambda ask: ask.at)
    while coming or ends or len(bars) < len(asks):
        moments = [c.at for c in coming[:1]] + [end for end, _ in ends[:1]]
        moments += [a.not_before for a in asks if a.not_before and a.name not in {b.ask.name for b in bars}]
        now = min(moments)
        while ends and ends[0][0] <= now:
            scheduler.free(ends.pop(0)[1], int(now * HOUR_MS))
        while coming and coming[0].at <= now:
            scheduler.add(waiting(coming.pop(0), asks))
        for grant in scheduler.decide(int(now * HOUR_MS)):
            ask = by_id[grant.id.split("+")[0]]
            if "+" not in grant.id:
                bars.append(Bar(ask, now, now + ask.hours))
            ends.append((now + ask.hours, grant.id))
            ends.sort()
    return sorted(bars, key=lambda bar: asks.index(bar.ask))


def waiting(ask: Ask, asks: list[Ask]) -> Waiting:
    """A wish as the scheduler has it."""
    wish = Wish("cuda", ask.cards, Fraction(1)) if ask.cards else None
    request = Request("python/3.11", "lab", ask.cpu * 1000, 1024, 64, wish, duration_s=int(ask.hours * 3600))
    ids = (
        tuple(ask.name if not n else f"{ask.name}+{n}" for n in range(ask.together))
        if ask.together > 1
        else ()
    )
    return Waiting(
        ask.name,
        asks.index(ask) + 1,
        ask.user,
        request,
        priority=ask.priority,
        ids=ids,
        not_before_ms=int(ask.not_before * HOUR_MS),
        after=frozenset(ask.after),
        caps=ask.caps,
    )


def draw(bars: list[Bar], title: str) -> str:
    """The picture: a row for each wish, thin while it waits, thick while it runs. Reads on light and dark grounds."""
    hours = max(bar.ended for bar in bars)
    left, scale, row = 150, 560 / hours, 30
    height = len(bars) * row + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 {height}" font-family="sans-serif" '
        f'font-size="13" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        "<style>text{fill:#24292f}.w{fill:#8b949e}.g{stroke:#8b949e;stroke-opacity:.35}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}.i{fill:#fff}</style>",
    ]
    step = 1 if hours <= 12 else 2
    for hour in range(0, int(hours) + 1, step):
        x = left + hour * scale
        parts.append(f'<line class="g" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{height - 40}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 24}" text-anchor="middle">{hour} h</text>')
    for number, bar in enumerate(bars):
        parts += _row(bar, left, scale, 8 + number * row)
    parts.append(f'<text x="{left}" y="{height - 5}" class="w">thin: waits · thick: runs</text></svg>')
    return "\n".join(parts) + "\n"


def _row(bar: Bar, left: int, scale: float, y: int) -> Iterator[str]:
    ask, colour = bar.ask, COLOURS[bar.ask.user]
    cards = ask.cards * ask.together
    what = f"{cards} card{'s' if cards > 1 else ''}" if cards else f"{ask.cpu} cores"
    label = f"{ask.user}: {what}" + (f", priority {ask.priority}" if ask.priority != 10 else "")
    yield f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>'
    x0, x1, x2 = (left + moment * scale for moment in (ask.at, bar.begun, bar.ended))
    if bar.begun > ask.at:
        yield f'<rect x="{x0:.1f}" y="{y + 9}" width="{x1 - x0:.1f}" height="4" fill="{colour}" fill-opacity=".45"/>'
    yield f'<rect x="{x1:.1f}" y="{y + 1}" width="{x2 - x1:.1f}" height="20" rx="3" fill="{colour}"/>'
    if (x2 - x1) > 16:
        yield f'<text class="i" x="{x1 + 5:.1f}" y="{y + 16}">{escape(ask.name)}</text>'


PEOPLE = [
    Ask("a1", "ada", 0, 3), Ask("a2", "ada", 0, 3), Ask("a3", "ada", 0.5, 2), Ask("a4", "ada", 0.6, 2),
    Ask("b1", "bob", 1, 2), Ask("c1", "cyd", 1.5, 2), Ask("b2", "bob", 2, 1),
]  # fmt: skip
LARGE = [
    Ask("a1", "ada", 0, 4), Ask("a2", "ada", 0, 2), Ask("b1", "bob", 1, 2, cards=2),
    Ask("c1", "cyd", 1.5, 2), Ask("c2", "cyd", 1.6, 4), Ask("a3", "ada", 2, 1.5),
]  # fmt: skip
MIXED = [
    Ask("a1", "ada", 0, 3, cards=2), Ask("a2", "ada", 0.2, 2), Ask("b1", "bob", 0.4, 3, cards=0, cpu=40),
    Ask("b2", "bob", 0.6, 2), Ask("c1", "cyd", 0.8, 2), Ask("a3", "ada", 1, 2),
]  # fmt: skip
ONE = {"ada": ("Your policy allows you", {"sessions": Fraction(1)})}
GANG = [
    Ask("a1", "ada", 0, 3), Ask("a2", "ada", 0, 1.5), Ask("b1", "bob", 0.5, 2, together=2), Ask("c1", "cyd", 1, 1),
]  # fmt: skip
CAPPED = [
    Ask("a1", "ada", 0, 2, caps=ONE), Ask("a2", "ada", 0, 2, caps=ONE),
    Ask("b1", "bob", 0.5, 2), Ask("c1", "cyd", 1, 1),
]  # fmt: skip
PICTURES: dict[str, tuple[str, Callable[[], list[Bar]]]] = {
    "fifo": ("First come, first served", lambda: play(PEOPLE, Rules(Discipline.FIFO, backfill=False))),
    "lifo": ("Last come, first served", lambda: play(PEOPLE, Rules(Discipline.LIFO, backfill=False))),
    "drf": ("Dominant resource fairness", lambda: play(MIXED, Rules(Discipline.DRF, backfill=False))),
    "fair": (
        "Fair share over time",
        lambda: play(PEOPLE, Rules(Discipline.FAIR, backfill=False, half_life_s=6 * 3600)),
    ),
    "priority": (
        "Priority",
        lambda: play([Ask(**{**vars(a), "priority": 50 if a.name == "b2" else 10}) for a in PEOPLE], Rules()),
    ),
    "no-backfill": ("Nobody passes the first", lambda: play(LARGE, Rules(backfill=False))),
    "backfill": ("Backfill with a reservation for the first", lambda: play(LARGE, Rules())),
    "skip": ("The first is passed after two tries", lambda: play(LARGE, Rules(skip_after=1))),
    "together": (
        "Together or not at all",
        lambda: play(
            GANG,
            Rules(),
        ),
    ),
    "later": (
        "Not before a time, and after another",
        lambda: play(
            [Ask("a1", "ada", 0, 2), Ask("a2", "ada", 0, 1.5, after=("a1",)), Ask("b1", "bob", 0, 2, not_before=3)],
            Rules(),
        ),
    ),
    "running": (
        "One at a time of each person",
        lambda: play(
            CAPPED,
            Rules(),
        ),
    ),
}  # fmt: skip


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    return {f"{name}.svg": draw(make(), title) for name, (title, make) in PICTURES.items()}


if __name__ == "__main__":
    for file, text in pictures().items():
        (FOLDER / file).write_text(text)
        sys.stdout.write(f"{file} is written\n")
