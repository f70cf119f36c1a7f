"""Sets the scene: people who ask, sessions that run, one that is being prepared and one that is stopping.

Acts as people do, through the service's REST and the sessions' own; looks through `evidence`.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chain.site import ADMIN_TOKEN, Site
from tests.soak import checker, evidence
from tests.soak.evidence import FINAL, PREPARING, RUNNING, STOPPING, Lease, Process, Seen

PEOPLE = ("ada", "bob", "cyd")
TWO_CARDS = """\
description = "Two cards, four halves"

[[devices]]
model = "NVIDIA RTX 2000 Ada Generation"
count = 2
memory_mib = 16384
sms = 22
reserve_mib = 0
"""
#: a program that only SIGKILL ends, as some of what people start in their sessions does
STUBBORN = ["sh", "-c", "trap '' TERM INT HUP; exec sleep 86400"]
ROOM = 4
WAITING = 3


class NotReached(Exception):
    """The scene could not be set, or was over before anything was done."""


@dataclass
class Stage:
    """One site with two cards for four sessions, and everything that is random about it."""

    site: Site
    random: random.Random
    tokens: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    stubborn: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.watched = evidence.Site(
            self.site.url, self.site.data / "bkai.sqlite", self.site.data / "cards.toml", ADMIN_TOKEN
        )

    def open(self) -> None:
        """The people, and the first session, which makes the image version for all of them."""
        self.tokens = {name: self.site.token(name) for name in PEOPLE}
        self.ask()
        self.until(lambda books: len(books.at(RUNNING)) == 1, 240, "the first session runs")

    # -- acting ------------------------------------------------------------------------------

    def ask(self) -> None:
        """Somebody asks for one session of half a card."""
        self.asked += 1
        who = self.random.choice(PEOPLE)
        options = {
            "version": "python/3.11",
            "fgpu": "1",
            "cpu": "0.1",
            "memory": "256m",
            "name": f"s{self.asked}",
        }
        answer = self.site.call(self.tokens[who], "POST", "/sessions", json={"options": options})
        assert answer.status_code == 201, answer.text

    def stop(self, lease: Lease) -> None:
        """Its owner stops it."""
        answer = self.site.call(self.tokens[lease.user], "DELETE", f"/sessions/{lease.id}")
        assert answer.status_code == 202, answer.text

    def start_stubborn(self, lease: Lease) -> None:
        """Somebody starts something in a session that does not end when it is asked to."""
        answer = httpx.post(
            f"{self.site.url}/user/{lease.user}/{lease.server}/bkai/run",
            headers={"Authorization": f"token {self.tokens[lease.user]}"},
            json={"id": f"stubborn-{lease.id}", "command": STUBBORN, "cwd": "", "environment": {}},
            timeout=20,
            trust_env=False,
        )
        assert answer.status_code in (201, 409), answer.text
        self.stubborn.add(lease.id)

    # -- the scene ---------------------------------------------------------------------------

    def fill(self) -> None:
        """Four running, four waiting, nothing else moving."""
        books = self.watched.glance().books
        live = [lease for lease in books.leases.values() if lease.state not in FINAL]
        for _ in range(ROOM + WAITING + 1 - len(live)):
            self.ask()
        self.until(
            lambda books: len(books.at(RUNNING)) == ROOM and not books.at(STOPPING, *PREPARING),
            120,
            f"{ROOM} sessions run",
        )
        for lease in self.watched.glance().books.at(RUNNING):
            if lease.id not in self.stubborn and self.random.random() < 0.5:
                self.start_stubborn(lease)

    def play(self) -> Seen:
        """Two run, three wait, one is being prepared, one stops: what is seen of it, a moment ago.

        Raises `NotReached` when it was over too soon.
        """
        self.fill()
        first, second, *_ = self.random.sample(self.watched.glance().books.at(RUNNING), ROOM)
        hung = self.random.random() < 0.7
        full = self.watched.look()
        self.stop(first)
        self.until(lambda books: bool(books.at(*PREPARING)), 40, "the next one is being prepared")
        if hung:
            self.hang(second, full)
        self.stop(second)
        # One that ends when it is asked to has ended soon.
        time.sleep(self.random.uniform(0, 0.6 if hung or second.id in self.stubborn else 0.1))
        seen = self.watched.glance()
        if not complete(seen):
            raise NotReached(str({name: len(found) for name, found in checker.scene(seen.books).items()}))
        return Seen(seen.books, seen.processes, full.hub, full.answers)

    def hang(self, lease: Lease, seen: Seen) -> None:
        """The session's server stops answering, and does not end when it is asked to."""
        for process in seen.of(lease.id):
            if "jupyterhub_bkai.singleuser" in process.line:
                os.kill(process.pid, signal.SIGSTOP)

    def until(self, true: Callable[[evidence.Books], bool], timeout_s: float, what: str) -> None:
        """Waits for something the books say; a failure tells how they stand."""
        deadline = time.monotonic() + timeout_s
        while not true(books := evidence.read_books(self.watched.database)):
            if time.monotonic() > deadline:
                live = [str(lease) for lease in books.leases.values() if lease.state not in FINAL]
                raise AssertionError(f"not within {timeout_s:.0f} s: {what}; {live}\n{self.site.output()}")
            time.sleep(0.03)

    # -- killing -----------------------------------------------------------------------------

    def victims(self, seen: Seen) -> tuple[str, list[Process]]:
        """A live lease and those of its processes that are to be killed."""
        kinds = self.random.choices([(RUNNING,), (STOPPING,), tuple(PREPARING)], (6, 2, 2))[0]
        lease = self.random.choice(seen.books.at(*kinds))
        processes = seen.of(lease.id)
        pids = {process.pid for process in processes}
        keepers = [process for process in processes if process.parent not in pids]
        others = [process for process in processes if process.parent in pids]
        return lease.id, self.random.choice([keepers, others, processes])


def complete(seen: Seen) -> bool:
    """Whether all that is to be going on is going on."""
    found = checker.scene(seen.books)
    return (
        len(found["running"]) >= 2
        and len(found["waiting"]) >= WAITING
        and len(found["preparing"]) == 1
        and len(found["stopping"]) == 1
    )


def kill(pids: list[int]) -> None:
    """SIGKILL to all of them at once."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def a_stage(site: Site, seed: int) -> Stage:
    """A started site with the two cards."""
    site.devices = "fake:cards.toml"
    site.prepare()
    Path(site.data / "cards.toml").write_text(TWO_CARDS)
    site.start()
    stage = Stage(site, random.Random(seed))
    stage.open()
    return stage
