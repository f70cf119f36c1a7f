"""What people are billed for: sessions that are stopped and killed, a service that is killed, a clock that is set.

`BKAI_SESSIONS` says how many sessions (`make soak` has 100, of which 20 are killed), `BKAI_SEED` repeats a run's
choices.
"""

import os
import random
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.chain.site import ROOT, Site
from tests.soak import checker, evidence
from tests.soak.evidence import FINAL, RUNNING, Books, Lease
from tests.soak.stage import PEOPLE, kill

pytestmark = [pytest.mark.hub, pytest.mark.slow]

SESSIONS = int(os.environ.get("BKAI_SESSIONS", "6"))
SEED = int(os.environ.get("BKAI_SEED", str(random.randrange(10**6))))
UP = (sys.executable, str(ROOT / "tests" / "soak" / "up.py"))
STEP_S = -5400
BOOKED_MIB = 320
#: the first session's program takes this much and says so
TAKEN_MIB = 200
GREEDY = f"import sys, time; taken = b'x' * ({TAKEN_MIB} << 20); print('taken'); time.sleep(600)"
EIGHT_CARDS = """\
[[devices]]
model = "NVIDIA H200"
count = 8
memory_mib = 143771
sms = 132
"""


class Metered:
    """A site whose service has a second meter and a wall clock that can be set."""

    def __init__(self, site: Site, library: Path, sessions: int, way: str = "") -> None:
        self.site, self.sessions = site, sessions
        self.random = random.Random(SEED)
        site.program, site.devices = UP, "fake:cards.toml"
        site.prepare()
        (site.data / "cards.toml").write_text(EIGHT_CARDS)
        self.record, self.step = site.data / "record", site.data / "step"
        self.record.touch()
        self.step.write_bytes(struct.pack("l", 0))
        site.environment = {
            "SOAK_SERVICE": "tests.soak.recorder",
            "SOAK_PRELOAD": str(library),
            "SOAK_RECORD": str(self.record),
            "CLOCK_STEP_FILE": str(self.step),
            "SOAK_WAY": way,
        }
        site.start()
        self.tokens = {name: site.token(name) for name in PEOPLE}

    def books(self) -> Books:
        """The database as it is now."""
        return evidence.read_books(self.site.data / "bkai.sqlite")

    def ask(self, number: int) -> None:
        """One session of an eighth of a card."""
        options = {
            "version": "python/3.11",
            "fgpu": "0.2",
            "cpu": "0.1",
            "memory": f"{BOOKED_MIB}m",
            "name": f"s{number}",
        }
        token = self.tokens[PEOPLE[number % len(PEOPLE)]]
        answer = self.site.call(token, "POST", "/sessions", json={"options": options})
        assert answer.status_code == 201, answer.text

    def take(self, lease: Lease) -> None:
        """A program in the session takes a known amount of memory."""
        with httpx.stream(
            "POST",
            f"{self.site.url}/user/{lease.user}/{lease.server}/bkai/run",
            headers={"Authorization": f"token {self.tokens[lease.user]}"},
            json={"id": "greedy", "command": ["python", "-u", "-c", GREEDY], "cwd": "", "environment": {}},
            timeout=60,
            trust_env=False,
        ) as answer:
            assert any("taken" in line for line in answer.iter_lines()), answer.status_code

    def end(self, lease: Lease, killed: bool) -> None:
        """By its owner, or by SIGKILL to some or all of its processes."""
        if not killed:
            for _ in range(50):  # the service may just have been killed
                answer = self.site.call(self.tokens[lease.user], "DELETE", f"/sessions/{lease.id}")
                if answer.status_code != 503:
                    break
                time.sleep(0.2)
            assert answer.status_code == 202, answer.text
            return
        pids = [process.pid for process in evidence.read_processes() if process.lease == lease.id]
        kill(self.random.choice([pids, [min(pids)], [max(pids)]]))

    def play(self) -> Books:
        """Everything there is to meter; returns the books when the last session has ended."""
        killed = set(self.random.sample(range(1, self.sessions), max(1, self.sessions // 5)))
        acted: dict[str, int] = {}
        due: dict[str, float] = {}
        asked = 0
        deadline = time.monotonic() + 120 + 8 * self.sessions
        while True:
            books = self.books()
            live = [lease for lease in books.leases.values() if lease.state not in FINAL]
            if asked == self.sessions and not live:
                return books
            assert time.monotonic() < deadline, f"{live}\n{self.site.output()}"
            # The first makes the image version, alone.
            for _ in range(
                min(self.sessions - asked, 24 - len(live) if books.intervals and acted else 1 - len(live))
            ):
                asked += 1
                self.ask(asked)
            for lease in books.at(RUNNING):
                moment = due.setdefault(lease.id, time.monotonic() + self.random.uniform(0, 8))
                if time.monotonic() < moment or lease.id in acted:
                    continue
                acted[lease.id] = number = len(acted)
                if number == 0:
                    self.take(lease)
                self.end(lease, number in killed)
                if number == self.sessions // 3:
                    self.step.write_bytes(struct.pack("l", STEP_S))
                if number == self.sessions // 2:
                    self.site.kill("service")
                    self.site.until(self.site._answers, 30, "the service is back")
            time.sleep(0.05)


@pytest.fixture
def library(tmp_path: Path, needs: Callable[..., str]) -> Path:
    """The wall clock that can be set, compiled."""
    made = tmp_path / "clock_step.so"
    source = ROOT / "tests" / "soak" / "clock_step.c"
    subprocess.run([needs("gcc", "cc"), "-shared", "-fPIC", "-O1", "-o", made, source], check=True)
    made.chmod(0o755)
    return made


@pytest.mark.timeout(300 + 12 * SESSIONS)
def test_every_interval_is_right(a_site: Callable[..., Site], library: Path) -> None:
    metered = Metered(a_site(), library, SESSIONS)
    books = metered.play()
    record = evidence.read_record(metered.record)
    assert checker.metered(books, record) == [], f"BKAI_SEED={SEED}"
    assert len(books.intervals) == SESSIONS
    wrong = [abs(checker.off_ms(one, *record[one.lease]) or 0.0) for one in books.intervals.values()]
    peaks = [(interval.measured_kib or 0) / 1024 for interval in books.intervals.values()]
    first, *others = peaks
    print(
        f"{len(wrong)} intervals, {sum(x.cause != 'stopped' for x in books.leases.values())} of sessions that were "
        f"killed, the clock set by {STEP_S} s: at most {max(wrong):.3f} ms wrong, median {statistics.median(wrong):.3f}"
    )
    print(
        f"booked {BOOKED_MIB} MiB; measured {min(others):.0f} to {max(others):.0f}, and {first:.0f} of the one that "
        f"took {TAKEN_MIB} more"
    )
    # All processes of a session, and nothing of the others'. (A server loads most of itself after its first answer.)
    assert TAKEN_MIB + 20 < first < TAKEN_MIB + 2 * max(others)
    moves = [move.at_ms for move in books.moves]
    assert min(b - a for a, b in pairwise(moves)) < STEP_S * 900, "the clock was not set"


@pytest.mark.parametrize(("way", "expected"), [("wall-meter", "ms wrong"), ("open-meter", "left open")])
def test_a_careless_meter_is_found(
    a_site: Callable[..., Site], library: Path, way: str, expected: str
) -> None:
    metered = Metered(a_site(), library, 4, way)
    assert expected in str(checker.metered(metered.play(), evidence.read_record(metered.record)))
