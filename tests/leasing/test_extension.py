"""Over many random states: who is first in the queue starts no later for any extension that is granted, also when
several are granted one after the other; and one minute more than what is granted is refused with the moment.
"""

import random
from dataclasses import replace
from fractions import Fraction

import pytest

from jupyterhub_bkai import policy
from jupyterhub_bkai.leasing import extension
from jupyterhub_bkai.leasing.scheduler import Scheduler
from jupyterhub_bkai.model import Person, Wish
from tests.leasing.test_scheduler import a_scheduler, cards, entry, request, started

MINUTE = 60_000
WISHES = (None, *(Wish("cuda", 1, Fraction(share)) for share in ("1/4", "1/2", "3/4", "1")), Wish("cuda", 2))
SETTINGS = policy.Settings(groups=(policy.Group("lab", "Lab", max_duration_s=300 * 86400),))


def crowded(chance: random.Random) -> Scheduler:
    """Nodes on which something runs, nearly all of it with an end, and people who wait."""
    scheduler = a_scheduler(cards(2, chance.choice((1, 3)), 8000), backfill=chance.random() < 0.9)
    for number in range(chance.choice((12, 40))):
        hours = None if chance.random() < 0.02 else chance.choice((1, 2, 3, 5, 8))
        item = entry(
            number,
            chance.choice(WISHES),
            chance.choice(("ada", "bob", "cyd", "dan")),
            cpu=chance.choice((500, 500, 3000)),
            duration_s=hours * 3600 if hours else None,
        )
        scheduler.add(item)
        started(scheduler, number * MINUTE)
    return scheduler


def moment(scheduler: Scheduler) -> int | None:
    reservation = scheduler.halls["lab"].reservation
    return reservation.at_ms if reservation is not None else None


def most(scheduler: Scheduler, id: str, now_ms: int) -> extension.Bound:
    who = Person(scheduler.held[id].user), request()
    return extension.bound(scheduler, SETTINGS, id, who, 0, now_ms)


@pytest.mark.parametrize("seed", range(150))
def test_the_first_of_the_queue_starts_when_it_would_have(seed: int) -> None:
    chance, now_ms = random.Random(seed), 30 * MINUTE
    scheduler = crowded(chance)
    started(scheduler, now_ms)
    head, before = scheduler.halls["lab"].head, moment(scheduler)
    owner = scheduler.waiting(head).user if head is not None else ""
    ends = {id: held.ends_ms for id, held in scheduler.held.items() if held.ends_ms is not None}
    for id in chance.sample(sorted(ends), len(ends)):
        if scheduler.held[id].user == owner:
            continue  # those put off nobody but themselves
        bound = most(scheduler, id, now_ms)
        assert bound.until_ms >= ends[id]
        held = replace(scheduler.held[id], ends_ms=chance.choice((bound.until_ms, ends[id])))
        scheduler.hold(held, now_ms)
        assert started(scheduler, now_ms) == []
        assert (scheduler.halls["lab"].head, moment(scheduler)) == (head, before), (id, bound)


def test_these_states_are_worth_it() -> None:
    """In many of them somebody has a reserved start, and in many of those it bounds somebody."""
    reserved = bounded = 0
    for seed in range(150):
        scheduler = crowded(random.Random(seed))
        started(scheduler, 30 * MINUTE)
        at = moment(scheduler)
        ids = [id for id, held in scheduler.held.items() if held.ends_ms is not None]
        reserved += at is not None
        bounded += at is not None and any(most(scheduler, id, 30 * MINUTE).until_ms == at for id in ids)
    assert reserved > 50
    assert bounded > 25
