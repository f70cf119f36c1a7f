"""Who starts now: disciplines against their definitions, heads that are passed and not put off, starts together."""

import random
from dataclasses import replace
from fractions import Fraction

import pytest

from jupyterhub_bkai.gpus.fit import NodeBook, Placement
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.leasing.queue import Discipline, Waiting
from jupyterhub_bkai.leasing.scheduler import Rules, Scheduler
from jupyterhub_bkai.leasing.why import standing
from jupyterhub_bkai.model import Device, Node, Request, Wish
from tests.leasing.plain_model import Plain
from tests.unit.test_books import some_nodes, some_wish

MINUTE = 60_000


def request(wish: Wish | None = None, cpu: int = 1000, memory: int = 1024, **changes: object) -> Request:
    raw = {"version": "python/3.11", "group": "lab", "cpu_milli": cpu, "memory_mib": memory, "shm_mib": 64}
    return Request(**{**raw, "wish": wish, **changes})  # type: ignore[arg-type]


def entry(number: int, wish: Wish | None = None, user: str = "ada", **changes: object) -> Waiting:
    given = {key: changes.pop(key) for key in ("cpu", "memory", "duration_s") if key in changes}
    return Waiting(f"r{number}", number, user, request(wish, **given), **changes)  # type: ignore[arg-type]


def cards(count: int, nodes: int = 1, cpu: int = 64_000) -> list[Node]:
    def devices(node: str) -> tuple[Device, ...]:
        return tuple(Device(f"{node}-{i}", node, i, "cuda", "H200", 143_771, 132) for i in range(count))

    return [Node(f"n{n}", cpu, 262_144, devices(f"n{n}")) for n in range(nodes)]


def a_scheduler(nodes: list[Node], **rules: object) -> Scheduler:
    scheduler = Scheduler()
    books = [NodeBook.empty(node) for node in nodes]
    scheduler.lay_out({"lab": (Rules(**rules), [node.name for node in nodes])}, books)  # type: ignore[arg-type]
    return scheduler


def started(scheduler: Scheduler, now_ms: int = 0) -> list[str]:
    return [grant.id for grant in scheduler.decide(now_ms)]


# -- disciplines -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("discipline", Discipline)
def test_the_order_is_that_of_the_definition(discipline: Discipline, seed: int) -> None:
    chance = random.Random(f"{seed} {discipline}")
    nodes = some_nodes(chance, chance.choice((3, 4, 8)))
    half_life_s = chance.choice((600.0, 86_400.0))
    scheduler = a_scheduler(
        nodes, discipline=discipline, placement=Placement.PACK, backfill=False, half_life_s=half_life_s
    )
    plain = Plain(discipline, half_life_s, {node.name: NodeBook.empty(node) for node in nodes})
    now_ms, number, given, waited = 0, 0, 0, 0
    for _ in range(150):
        now_ms += chance.choice((0, 1, MINUTE, 60 * MINUTE))
        for _ in range(chance.choice((0, 1, 3))):
            number += 1
            item = entry(
                number,
                some_wish(chance),
                chance.choice(("ada", "bob", "cyd")),
                priority=chance.choice((10, 10, 10, 50)),
                cpu=chance.choice((500, 4000)),
            )
            if scheduler.halls["lab"].empty.choose(item.request.wish, item.request.cpu_milli, 1024) is None:
                continue  # it would keep everybody waiting for ever
            scheduler.add(item)
            plain.waiting.append(item)
        if plain.waiting and chance.random() < 0.1:
            left = plain.waiting.pop(chance.randrange(len(plain.waiting)))
            scheduler.remove(left.id)
        for id in [id for id in plain.held if chance.random() < 0.15]:
            plain.free(id, now_ms)
            scheduler.free(id, now_ms)
        expected = plain.decide(now_ms)
        assert [(grant.id, grant.choice) for grant in scheduler.decide(now_ms)] == expected
        given, waited = given + len(expected), waited + len(plain.waiting)
        order = [item.id for item in scheduler.order("lab", now_ms)]
        assert sorted(order) == sorted(item.id for item in plain.waiting)
        if plain.waiting:
            head = min(plain.waiting, key=lambda item: plain.key(item, now_ms))
            assert order[0] == head.id == scheduler.halls["lab"].head
            assert [scheduler.place(id, now_ms) for id in order] == list(range(1, len(order) + 1))
    assert given + waited > 5
    assert {book.node: book for book in scheduler.halls["lab"].books} == plain.nodes


def test_use_of_long_ago_counts_less() -> None:
    """Ada used ten hours a week ago, Bob two hours just now."""
    week, hour = 7 * 86_400_000, 3_600_000
    scheduler = a_scheduler(cards(1), discipline=Discipline.FAIR, half_life_s=86_400.0)
    for number, user, from_ms, to_ms in ((1, "ada", 0, 10 * hour), (2, "bob", week, week + 2 * hour)):
        scheduler.add(entry(number, Wish("cuda"), user))
        assert started(scheduler, from_ms) == [f"r{number}"]
        scheduler.free(f"r{number}", to_ms)
    scheduler.add(entry(7, Wish("cuda"), "bob"))
    scheduler.add(entry(8, Wish("cuda"), "ada"))
    assert started(scheduler, week + 2 * hour) == ["r8"]


# -- passing a head that does not fit ----------------------------------------------------------


def test_a_whole_machine_is_not_put_off_by_endless_small_ones() -> None:
    """Eight cards, small sessions of an hour without end; the whole machine starts when the reservation says."""
    chance = random.Random(3)
    scheduler = a_scheduler(cards(8))
    ends: dict[str, int] = {}
    number, promised, begun = 0, None, None
    for minute in range(0, 600, 5):
        now_ms = minute * MINUTE
        for id in [id for id, end in ends.items() if end <= now_ms]:
            scheduler.free(id, now_ms)
            del ends[id]
        for _ in range(2 if minute >= 120 else minute % 2):
            number += 1
            scheduler.add(entry(number, Wish("cuda"), duration_s=chance.choice((1800, 3600))))
        if minute == 115:
            number += 1
            whole = replace(entry(number, Wish("cuda", 8), "bob", duration_s=3600), id="whole")
            scheduler.add(whole)
        for id in started(scheduler, now_ms):
            ends[id] = scheduler.held[id].ends_ms or 0
            begun = minute if id == "whole" else begun
        kept = scheduler.halls["lab"].reservation
        if kept is not None and kept.id == "whole" and promised is None:
            assert kept.at_ms is not None
            promised = kept.at_ms // MINUTE
    assert promised is not None
    assert begun is not None
    assert begun <= promised <= 120 + 60 + 60


@pytest.mark.parametrize("seed", range(8))
def test_every_reserved_start_is_kept(seed: int) -> None:
    """Random demand on random machines, durations as said: no head ever starts after the moment it was promised."""
    chance = random.Random(seed)
    nodes = some_nodes(chance, chance.choice((1, 3, 8)))
    placement = chance.choice(list(Placement))
    scheduler = a_scheduler(nodes, placement=placement)
    ends: dict[str, int] = {}
    promised: dict[str, int] = {}
    passed = number = 0
    for now_ms in range(0, 250 * MINUTE, MINUTE):
        for id in [id for id, end in ends.items() if end <= now_ms]:
            scheduler.free(id, now_ms)
            del ends[id]
        for _ in range(chance.choice((0, 0, 1, 2))):
            number += 1
            together = chance.choice((1, 1, 1, 1, 2))
            ids = tuple(f"r{number}.{n}" for n in range(together)) if together > 1 else ()
            duration_s = 60 * chance.randrange(1, 90)
            item = entry(number, some_wish(chance), duration_s=duration_s, ids=ids, cpu=500)
            if scheduler.halls["lab"].empty.choose(item.request.wish, 500, 1024) is not None:
                scheduler.add(replace(item, id=ids[0] if ids else item.id))
        line = scheduler.halls["lab"].line
        for grant in scheduler.decide(now_ms):
            held = scheduler.held[grant.id]
            assert held.ends_ms is not None
            ends[grant.id] = held.ends_ms
            passed += scheduler.halls["lab"].head is not None
            if grant.id in promised:
                assert now_ms <= promised.pop(grant.id), grant.id
        kept = scheduler.halls["lab"].reservation
        if kept is not None and kept.at_ms is not None:
            promised[kept.id] = min(kept.at_ms, promised.get(kept.id, kept.at_ms))
            assert kept.at_ms >= now_ms
        overdue = {id: at for id, at in promised.items() if id in line.items and at < now_ms}
        assert not overdue
    assert number > 100
    assert passed or len(nodes) == 1


def test_beside_the_first_on_the_very_machine_that_is_kept_for_it() -> None:
    """Two of three cards are for the first; of the third, half of which is in use, a quarter is for whoever asks."""
    scheduler = a_scheduler(cards(3))
    for item in (
        entry(1, Wish("cuda"), duration_s=600),
        entry(2, Wish("cuda", 1, Fraction(1, 2))),
        entry(3, Wish("cuda", 2), "bob"),
        entry(4, Wish("cuda", 1, Fraction(1, 4)), "cyd"),
        entry(5, Wish("cuda", 1, Fraction(3, 4)), "dan"),
    ):
        scheduler.add(item)
    assert started(scheduler) == ["r1", "r2", "r4"]
    scheduler.free("r1", 600_000)
    assert started(scheduler, 600_000) == ["r3"]


def test_without_an_accelerator_one_passes_where_processors_and_memory_are_left_for_the_first() -> None:
    scheduler = a_scheduler(cards(1, cpu=8000))
    scheduler.add(entry(1, Wish("cuda")))
    scheduler.add(entry(2, Wish("cuda"), "bob", cpu=4000))
    scheduler.add(entry(3, None, "cyd", cpu=2000))
    scheduler.add(entry(4, None, "dan", cpu=2000))
    assert started(scheduler) == ["r1", "r3"]  # with r4 too few would be left for r2


def test_what_would_start_now_is_what_starts() -> None:
    chance = random.Random(11)
    for _ in range(30):
        scheduler = a_scheduler(some_nodes(chance, 3), backfill=chance.random() < 0.7)
        for number in range(1, 60):
            item = entry(number, some_wish(chance), duration_s=chance.choice((None, 60, 600)))
            expected = scheduler.starts_now(item, 0)
            scheduler.add(item)
            assert (item.id in started(scheduler)) == expected
            if scheduler.held and chance.random() < 0.3:
                scheduler.free(chance.choice(sorted(scheduler.held)), 0)
                started(scheduler)


def test_use_is_remembered_through_a_new_layout_and_from_the_past() -> None:
    scheduler = a_scheduler(cards(2), discipline=Discipline.FAIR, half_life_s=3600.0)
    scheduler.add(entry(1, Wish("cuda"), "ada"))
    assert started(scheduler, 0) == ["r1"]
    again = Scheduler()
    books = [NodeBook.empty(node) for node in cards(2)]
    again.lay_out({"lab": (scheduler.halls["lab"].rules, ["n0"])}, books)
    again.hold(scheduler.held["r1"], 7_200_000)
    again.inherit(scheduler, 7_200_000)
    scheduler.free("r1", 7_200_000)
    again.free("r1", 7_200_000)
    score = scheduler.score(scheduler.halls["lab"], 7_200_000)("ada")
    assert again.score(again.halls["lab"], 7_200_000)("ada") == score > 0.3
    fresh = a_scheduler(cards(2), discipline=Discipline.FAIR, half_life_s=3600.0)
    fresh.charge("lab", "ada", (1000, 1024, 1.0), (0, 7_200_000), 7_200_000)
    assert fresh.score(fresh.halls["lab"], 7_200_000)("ada") == score


def test_without_backfill_nobody_passes() -> None:
    scheduler = a_scheduler(cards(2), backfill=False)
    for item in (entry(1, Wish("cuda")), entry(2, Wish("cuda", 2)), entry(3, Wish("cuda"), duration_s=60)):
        scheduler.add(item)
    assert started(scheduler) == ["r1"]


def test_where_nothing_says_when_it_ends_one_machine_is_kept_free_of_newcomers() -> None:
    scheduler = a_scheduler(cards(2, nodes=2))
    scheduler.add(entry(1, Wish("cuda")))
    scheduler.add(entry(2, Wish("cuda"), "bob"))
    assert started(scheduler) == ["r1", "r2"]
    assert {scheduler.held[id].node for id in ("r1", "r2")} == {"n0"}
    scheduler.add(entry(3, Wish("cuda")))
    assert started(scheduler) == ["r3"]
    scheduler.add(entry(4, Wish("cuda", 2), "cyd"))
    scheduler.add(entry(5, Wish("cuda"), "dan"))
    assert started(scheduler) == []  # n1 is kept for r4, which has one card there already
    said = standing(scheduler, "r5", Unit(), 0)
    assert said.why == (
        "1 request is ahead of it in lab. The first of them waits: It needs 2 idle devices on one machine; 1 are idle."
        " There is room for yours, but then the first would start later."
    )
    scheduler.free("r1", 0)
    assert started(scheduler) == ["r5"]  # on n0, which is not kept
    scheduler.free("r3", 0)
    assert started(scheduler) == ["r4"]


def test_after_some_tries_a_head_is_passed_without_more_ado() -> None:
    scheduler = a_scheduler(cards(2), backfill=False, skip_after=2)
    scheduler.add(entry(1, Wish("cuda")))
    scheduler.add(entry(2, Wish("cuda", 2)))
    scheduler.add(entry(3, Wish("cuda")))
    assert started(scheduler) == ["r1"]
    for number in (4, 5):  # each time there is room for more, and not enough
        scheduler.free(f"r{number - 3 if number == 4 else 3}", 0)
        scheduler.add(entry(number, Wish("cuda")))
        begun = started(scheduler)
        if "r2" in begun:
            return
    assert "r3" in begun or "r4" in begun


# -- together, later, after --------------------------------------------------------------------


def test_together_or_not_at_all() -> None:
    scheduler = a_scheduler(cards(1, nodes=3))
    scheduler.add(entry(1, Wish("cuda"), duration_s=600))
    scheduler.add(entry(2, Wish("cuda"), "bob", ids=("r2", "r2b", "r2c")))
    scheduler.add(entry(3, Wish("cuda"), "cyd", duration_s=300))
    scheduler.add(entry(4, Wish("cuda"), "dan", duration_s=900))
    assert started(scheduler) == ["r1", "r3"]  # r3 ends before the three can start, r4 does not
    kept = scheduler.halls["lab"].reservation
    assert kept is not None
    assert (kept.id, kept.at_ms, len(kept.nodes)) == ("r2", 600_000, 3)
    scheduler.free("r3", 300_000)
    assert started(scheduler, 300_000) == []
    scheduler.free("r1", 600_000)
    assert started(scheduler, 600_000) == ["r2", "r2b", "r2c"]
    for id in ("r2", "r2b", "r2c"):
        assert scheduler.held[id].user == "bob"


def test_who_can_never_start_together_keeps_nobody_waiting() -> None:
    scheduler = a_scheduler(cards(2))
    scheduler.add(entry(1, Wish("cuda"), ids=("r1", "r1b", "r1c")))
    scheduler.add(entry(2, Wish("cuda"), "bob"))
    assert started(scheduler) == ["r2"]
    told = standing(scheduler, "r1", Unit(), 0, "Lab")
    assert (
        told.why
        == "Its 3 sessions start together, and Lab has not room for all of them even when nothing else runs; "
        "ask for fewer, or not together."
    )


def test_not_before_its_time_and_not_before_others_have_ended() -> None:
    scheduler = a_scheduler(cards(4))
    scheduler.add(entry(1, Wish("cuda")))
    scheduler.add(entry(2, Wish("cuda"), not_before_ms=10 * MINUTE))
    scheduler.add(entry(3, Wish("cuda"), after=frozenset({"r1", "long-gone"})))
    assert started(scheduler, 0) == ["r1"]
    assert scheduler.place("r2", 0) == 0
    assert standing(scheduler, "r2", Unit(), 0).why == "It is to start in 10 min at the earliest."
    assert standing(scheduler, "r3", Unit(), 0).why == "It starts after another session has ended."
    assert not scheduler.due(9 * MINUTE)
    assert scheduler.due(10 * MINUTE)
    assert started(scheduler, 10 * MINUTE) == ["r2"]
    scheduler.free("r1", 11 * MINUTE)
    assert started(scheduler, 11 * MINUTE) == ["r3"]
    scheduler.add(entry(4, Wish("cuda"), after=frozenset({"r2"})))
    scheduler.remove("r4")
    scheduler.free("r2", 12 * MINUTE)
    assert started(scheduler, 12 * MINUTE) == []


def test_a_held_group_starts_nothing_and_says_so() -> None:
    scheduler = a_scheduler(cards(1), on_hold=True)
    scheduler.add(entry(1, Wish("cuda", 1, Fraction(1, 2))))
    assert started(scheduler) == []
    assert (
        standing(scheduler, "r1", Unit(), 0).why
        == "The administrator holds lab: nothing new starts at present."
    )


def test_the_head_says_by_when_it_starts() -> None:
    scheduler = a_scheduler(cards(1))
    scheduler.add(entry(1, Wish("cuda"), duration_s=5400))
    scheduler.add(entry(2, Wish("cuda", 1, Fraction(1, 2)), "bob"))
    assert started(scheduler) == ["r1"]
    assert standing(scheduler, "r2", Unit(Fraction(4)), 600_000).why == (
        "It needs 2 fGPU on one device; no fGPU is free. It starts in 1 h 20 min at the latest, if nothing takes longer"
        " than said."
    )
