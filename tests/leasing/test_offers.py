"""What is offered to one who waits is granted at once, and there is no smaller change that would be."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest

from jupyterhub_bkai.gpus.fit import NodeBook, Placement
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.leasing import offers
from jupyterhub_bkai.leasing.offers import Room
from jupyterhub_bkai.leasing.queue import Discipline, Waiting
from jupyterhub_bkai.leasing.scheduler import Rules, Scheduler
from jupyterhub_bkai.model import Request, Wish
from tests.leasing.test_scheduler import cards, entry, started
from tests.unit.test_books import some_nodes

STATES = int(os.environ.get("BKAI_STATES", "2000"))
UNIT = Unit(Fraction(4), Fraction(1, 5))
ROOM = Room({"lab": UNIT, "annex": UNIT}, {"lab": "Lab", "annex": "Annex"}, cpu_milli=200, memory_mib=512)


def some_state(seed: int) -> tuple[Scheduler, int]:
    """A small site in the middle of its work, with two groups and people who wait."""
    chance = random.Random(seed)
    nodes = some_nodes(chance, chance.choice((1, 2, 3)))
    scheduler = Scheduler(chance.choice((0, 600_000)))
    groups = {}
    for name in ("lab", "annex"):
        rules = Rules(
            discipline=chance.choice(list(Discipline)),
            placement=chance.choice(list(Placement)),
            backfill=chance.random() < 0.7,
        )
        groups[name] = (rules, [node.name for node in nodes if chance.random() < 0.8])
    scheduler.lay_out(groups, [NodeBook.empty(node) for node in nodes])
    now_ms = 0
    for number in range(1, 16):
        now_ms += chance.choice((0, 60_000))
        scheduler.add(some_entry(chance, number))
        scheduler.decide(now_ms)
        if scheduler.held and chance.random() < 0.15:
            scheduler.free(chance.choice(sorted(scheduler.held)), now_ms)
    scheduler.decide(now_ms)
    return scheduler, now_ms


def some_entry(chance: random.Random, number: int) -> Waiting:
    wish = None
    if chance.random() < 0.85:
        share, count = Fraction(chance.randrange(1, 21), 20), chance.choice((1, 1, 1, 2, 4))
        wish = Wish("cuda", count, share)
    request = Request(
        version="python/3.11",
        group=chance.choice(("lab", "lab", "annex")),
        cpu_milli=chance.choice((500, 4000, 16_000)),
        memory_mib=chance.choice((512, 4096, 60_000)),
        shm_mib=64,
        wish=wish,
        duration_s=chance.choice((None, 600, 7200)),
    )
    return Waiting(f"r{number}", number, chance.choice(("ada", "bob")), request)


def granted(scheduler: Scheduler, id: str, request: Request, now_ms: int) -> bool:
    """Whether it starts when it really asks for this instead, at its place."""
    copy = scheduler.copy()
    item = copy.waiting(id)
    copy.remove(id)
    copy.add(replace(item, request=request))
    return id in [grant.id for grant in copy.decide(now_ms)]


def waiting(scheduler: Scheduler) -> list[str]:
    return [id for hall in scheduler.halls.values() for id in hall.line.items]


@pytest.mark.timeout(900)
def test_every_offer_is_granted_at_once() -> None:
    states = made = helped = 0
    for seed in range(STATES):
        scheduler, now_ms = some_state(seed)
        ids = waiting(scheduler)
        if not ids:
            continue
        states += 1
        before = (list(scheduler.halls["lab"].books), waiting(scheduler))
        id = ids[seed % len(ids)]
        found = offers.offers(scheduler, id, ROOM, now_ms)
        assert (list(scheduler.halls["lab"].books), waiting(scheduler)) == before, seed
        helped += bool(found)
        for offer in found:
            made += 1
            assert granted(scheduler, id, offer.request, now_ms), (seed, id, offer)
    print(f"{states} states, {made} offers, in {helped} states at least one")
    assert made > states // 4


def smaller(request: Request) -> Iterator[tuple[str, Request]]:
    """Every change of one kind, the smallest first."""
    wish = request.wish
    if wish is not None:
        for steps in range(1, 40):
            share = wish.share - steps * UNIT.share(UNIT.quantum)
            if share > 0:
                yield "fgpu", replace(request, wish=replace(wish, share=share))
        for count in range(wish.count - 1, 0, -1):
            yield "spread", replace(request, wish=replace(wish, count=count))
    for cpu in range(request.cpu_milli - 100, 199, -100):
        yield "cpu", replace(request, cpu_milli=cpu)
    for memory in range((request.memory_mib - 1) // 256 * 256, 511, -256):
        yield "memory", replace(request, memory_mib=memory)
    yield "group", replace(request, group="annex" if request.group == "lab" else "lab")


@pytest.mark.timeout(300)
def test_no_smaller_change_would_do_and_none_is_missed() -> None:
    compared = missed = 0
    for seed in range(STATES // 30):
        scheduler, now_ms = some_state(seed)
        for id in waiting(scheduler)[:2]:
            found = {}
            for offer in offers.offers(scheduler, id, ROOM, now_ms):
                key = next(iter(offer.options))
                found["spread" if key == "gpu" else key] = offer.request
            found.pop("duration", None)
            best: dict[str, Request] = {}
            for kind, request in smaller(scheduler.waiting(id).request):
                if kind not in best and granted(scheduler, id, request, now_ms):
                    best[kind] = request
            compared += len(best)
            missed += len(best.keys() - found.keys())
            assert {kind: best.get(kind) for kind in found} == found, (seed, id)
    print(f"{compared} changes would do, {missed} were not offered")
    assert compared > STATES // 100
    assert missed <= compared // 100


def test_the_words_and_options_of_an_offer() -> None:
    scheduler = Scheduler()
    node = cards(2)[0]
    books = [NodeBook.empty(node)]
    scheduler.lay_out({"lab": (Rules(), ["n0"]), "annex": (Rules(), [])}, books)
    scheduler.add(entry(1, Wish("cuda"), duration_s=3600))
    assert started(scheduler) == ["r1"]
    scheduler.add(entry(2, Wish("cuda", 2), "bob"))
    scheduler.add(entry(3, Wish("cuda", 1, Fraction(1, 2)), "cyd"))
    assert started(scheduler) == []
    assert [(dict(o.options), o.text) for o in offers.offers(scheduler, "r2", ROOM, 0)] == [
        ({"gpu": "1"}, "Start now with 1 device")
    ]
    assert [(dict(o.options), o.text) for o in offers.offers(scheduler, "r3", ROOM, 0)] == [
        ({"duration": "3600s"}, "Start now, and end after 1 h at the latest")
    ]
