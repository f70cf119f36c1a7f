"""SIGKILL of hub, service, proxy and sessions, each at random and all together, in the middle of everything.

Each round: at least two sessions run, three wait, one is being prepared and one stops; then the kill; then the judge,
who knows nothing of the product's code, has 30 seconds to be content. `BKAI_ROUNDS` says how many rounds (`make soak`
plays 50), `BKAI_SEED` repeats a run's choices.
"""

import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.chain.site import ROOT, Site
from tests.soak import checker
from tests.soak.evidence import RUNNING, Process, Seen
from tests.soak.stage import NotReached, Stage, a_stage, kill

pytestmark = [pytest.mark.hub, pytest.mark.slow]

PARTS = ("hub", "service", "proxy")
TARGETS = ("hub", "service", "proxy", "session", "all")
JUDGED_WITHIN_S = 30.0
#: of a machine with twice the work it can do, or more, as much more patience is asked (and told)
LOAD_ALLOWED = 2.0
ROUNDS = int(os.environ.get("BKAI_ROUNDS", "4"))
SEED = int(os.environ.get("BKAI_SEED", str(random.randrange(10**6))))
UP = (sys.executable, str(ROOT / "tests" / "soak" / "up.py"))


@dataclass
class Round:
    """One kill and what came of it."""

    number: int
    target: str
    scene: dict[str, int]
    victims: str = ""
    patience_s: float = JUDGED_WITHIN_S
    settled_s: float = 0.0
    problems: list[checker.Problem] = field(default_factory=list)

    def __str__(self) -> str:
        playing = ", ".join(f"{count} {name}" for name, count in self.scene.items())
        words = f"round {self.number}: {self.target}{self.victims} with {playing}: {self.settled_s:.1f} s"
        if self.patience_s > JUDGED_WITHIN_S:
            times = self.patience_s / JUDGED_WITHIN_S
            words += f" (of {self.patience_s:.0f} s: the machine is {times:.1f} times too busy)"
        return words


@contextmanager
def watching(stage: Stage) -> Iterator[list[checker.Problem]]:
    """What is wrong at any moment from now on, looked for several times a second."""
    found: list[checker.Problem] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            found.extend(checker.moment(stage.watched.glance(), stage.watched.cards))
            over.wait(0.2)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def played(stage: Stage) -> Seen:
    """The scene, set again when it was over before the kill."""
    for _ in range(20):
        try:
            return stage.play()
        except NotReached as missed:
            print(f"the scene was over too soon ({missed}); it is set again")
    raise AssertionError("the scene cannot be set")


def one_round(stage: Stage, number: int, target: str) -> Round:
    """Set the scene, kill, judge."""
    with watching(stage) as at_any_moment:
        before = played(stage)
        scene = {name: len(found) for name, found in checker.scene(before.books).items()}
        this = Round(number, target, scene, patience_s=patience())
        victims: list[Process] = []
        killed: list[str] = []
        if target in ("session", "all"):
            lease, victims = stage.victims(before)
            killed.append(lease)
            state = before.books.leases[lease].state
            this.victims = f" ({len(victims)} of {len(before.of(lease))} processes of one that was {state})"
        parts = PARTS if target == "all" else (target,) if target in PARTS else ()
        since_ms = time.time_ns() // 1_000_000
        kill([*(stage.site.pid(part) for part in parts), *(process.pid for process in victims)])
        began = time.monotonic()
        while True:
            this.problems = checker.settled(
                before, stage.watched.look(), killed, stage.watched.cards, since_ms
            )
            this.settled_s = time.monotonic() - began
            if not this.problems or this.settled_s > this.patience_s:
                break
            time.sleep(0.3)
    this.problems += at_any_moment
    return this


def patience() -> float:
    """How long the judge waits: 30 seconds, on a machine that is not busy with something else altogether."""
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    return JUDGED_WITHIN_S * max(1.0, busy / LOAD_ALLOWED)


def report(stage: Stage, this: Round, since: float) -> str:
    """The whole story of a failed round."""
    lines = [f"BKAI_SEED={SEED}: {this}", *dict.fromkeys(words for _, words in this.problems)]
    books = stage.watched.glance().books
    for lease in dict.fromkeys(name for name, _ in this.problems if name in books.leases):
        lines.append(f"--- {books.leases[lease]}")
        lines += [
            f"{(move.at_ms / 1000 - since):+9.3f} s  {move.source} → {move.target}  {move.who}: {move.why}"
            for move in books.story(lease)
        ]
    return "\n".join([*lines, stage.site.output()])


def targets(rounds: int, chance: random.Random) -> list[str]:
    """Each kind of kill equally often, in random order."""
    found = [TARGETS[number % len(TARGETS)] for number in range(rounds)]
    chance.shuffle(found)
    return found


@pytest.mark.timeout(240 + 120 * ROUNDS)
def test_nothing_is_lost_whatever_is_killed(a_site: Callable[..., Site]) -> None:
    stage = a_stage(a_site(program=UP), SEED)
    print(f"BKAI_SEED={SEED}")
    rounds = []
    for number, target in enumerate(targets(ROUNDS, stage.random), 1):
        began = time.time()
        this = one_round(stage, number, target)
        print(this)
        rounds.append(this)
        assert not this.problems, report(stage, this, began)
    times = [this.settled_s for this in rounds]
    print(f"settled after {statistics.median(times):.1f} s (median), {max(times):.1f} s (most)")
    stage.site.stop()
    left = checker.ended(stage.watched.glance(), stage.watched.cards)
    assert not left, left


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("fence", "has ended, and process"),
        ("order", "overtook"),
        ("books", "granted twice"),
        ("queue", "waits while"),
    ],
)
def test_a_careless_build_is_found(a_site: Callable[..., Site], way: str, expected: str) -> None:
    careless = {"SOAK_SERVICE": "tests.soak.careless", "SOAK_WAY": way}
    stage = a_stage(a_site(program=UP, environment=careless), SEED)
    with watching(stage) as problems:
        stage.fill()
        before = stage.watched.look()
        since_ms = time.time_ns() // 1_000_000
        stopped = stage.random.choice(before.books.at(RUNNING))
        stage.stop(stopped)
        kill([stage.site.pid("service")])
        deadline = time.monotonic() + 2 * JUDGED_WITHIN_S
        while expected not in str(problems) and time.monotonic() < deadline:
            time.sleep(1)
            problems += checker.settled(
                before, stage.watched.look(), [stopped.id], stage.watched.cards, since_ms
            )
    assert expected in str(problems), dict(problems)
