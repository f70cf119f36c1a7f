"""The books in their order of choice against looking at every place, and looks ahead that leave no trace."""

import random
from fractions import Fraction

import pytest

from jupyterhub_bkai.gpus.fit import Books, NodeBook, Placement
from jupyterhub_bkai.model import Device, Node, Slice, Wish
from tests.unit import every_place
from tests.unit.test_fit import H200

MODELS = ("A100", "H200", "RTX 2000")
PROFILES = tuple(profile.name for profile in H200)


def some_nodes(chance: random.Random, count: int) -> list[Node]:
    nodes = []
    for number in range(count):
        name, model = f"n{number}", chance.choice(MODELS)
        mig = H200 if model == "H200" and chance.random() < 0.5 else ()
        devices = tuple(
            Device(
                f"{name}-{i}",
                name,
                i,
                "cuda" if chance.random() < 0.9 else "atom",
                model,
                143_771,
                132,
                mig=mig,
                healthy=chance.random() < 0.95,
                divisible=chance.random() < 0.9,
            )
            for i in range(chance.choice((0, 1, 2, 4, 8)))
        )
        nodes.append(Node(name, 1000 * chance.choice((4, 16, 64)), 1024 * chance.choice((8, 64)), devices))
    return nodes


def some_wish(chance: random.Random) -> Wish | None:
    models = (chance.choice(MODELS),) if chance.random() < 0.2 else ()
    slot = "cuda" if chance.random() < 0.9 else "atom"
    match chance.choice(("part", "part", "part", "whole", "mig", "none")):
        case "part":
            share = Fraction(chance.randrange(1, 10), 10)
            return Wish(slot, chance.choice((1, 1, 1, 2, 3)), share, models=models)
        case "whole":
            return Wish(slot, chance.choice((1, 2, 4, 8)), models=models)
        case "mig":
            return Wish(slot, chance.choice((1, 1, 2)), Fraction(1), chance.choice(PROFILES), models)
    return None


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("placement", Placement)
def test_every_choice_is_the_best_there_is(seed: int, placement: Placement) -> None:
    chance = random.Random(seed)
    nodes = {n.name: NodeBook.empty(n) for n in some_nodes(chance, chance.choice((1, 3, 12)))}
    books = Books(nodes.values())
    held: list[tuple[str, int, int, tuple[Slice, ...]]] = []
    given = 0
    for _ in range(250):
        if held and chance.random() < 0.4:
            node, cpu, memory, slices = held.pop(chance.randrange(len(held)))
            nodes[node] = nodes[node].give_back(cpu, memory, slices)
            books.put(nodes[node])
        if chance.random() < 0.05:
            name = chance.choice(list(nodes))
            nodes[name] = nodes[name].opened(not nodes[name].open)
            books.put(nodes[name])
        wish, cpu, memory = some_wish(chance), chance.choice((100, 1000, 8000)), chance.choice((256, 4096))
        barred = chance.choice(list(nodes)) if chance.random() < 0.2 else ""
        allowed = [node for node in nodes.values() if node.node != barred]
        best = every_place.choose(allowed, wish, cpu, memory, placement)
        found = books.choose(wish, cpu, memory, placement, lambda name, no=barred: name != no)  # type: ignore[misc]
        assert every_place.worth(allowed, found) == every_place.worth(allowed, best), wish
        if found is not None:
            given += 1
            nodes[found.node] = nodes[found.node].take(cpu, memory, found.slices)
            books.put(nodes[found.node])
            held.append((found.node, cpu, memory, found.slices))
    assert given > 10
    assert {book.node: book for book in books} == nodes


@pytest.mark.parametrize("seed", range(12))
def test_balance_finds_a_place_wherever_there_is_one(seed: int) -> None:
    chance = random.Random(seed)
    nodes = {n.name: NodeBook.empty(n) for n in some_nodes(chance, chance.choice((1, 3, 12)))}
    books = Books(nodes.values())
    books.cpu_per_device = chance.choice((500.0, 2000.0, 12_000.0))
    given = 0
    for _ in range(250):
        wish, cpu, memory = some_wish(chance), chance.choice((100, 1000, 8000)), chance.choice((256, 4096))
        best = every_place.choose(nodes.values(), wish, cpu, memory, Placement.PACK)
        found = books.choose(wish, cpu, memory, Placement.BALANCE)
        assert (found is None) == (best is None), wish
        if found is None:
            name = chance.choice(list(nodes))
            nodes[name] = NodeBook.empty(
                Node(name, 16_000, 65_536, tuple(b.device for b in nodes[name].devices))
            )
        else:
            given += 1
            assert len(found.slices) == (wish.count if wish else 0)
            assert len({piece.device for piece in found.slices}) == len(found.slices)
            nodes[found.node] = nodes[found.node].take(cpu, memory, found.slices)
        books.put(nodes[name if found is None else found.node])
    assert given > 10


def test_balance_looks_past_nodes_that_will_not_do() -> None:
    """Of three nodes with two idle devices the outermost have a sick one each."""
    nodes = []
    for name, cpu, healthy in (("few", 8_000, False), ("middle", 16_000, True), ("many", 64_000, False)):
        devices = (
            Device(f"{name}-0", name, 0, "cuda", "A", 1000, 1),
            Device(f"{name}-1", name, 1, "cuda", "A", 1000, 1, healthy=healthy),
        )
        nodes.append(NodeBook.empty(Node(name, cpu, 65_536, devices)))
    books = Books(nodes)
    books.cpu_per_device = 8_000
    found = books.choose(Wish("cuda", 2), 1_000, 1_024, Placement.BALANCE)
    assert found is not None
    assert found.node == "middle"


def test_balance_keeps_processors_beside_free_devices() -> None:
    """Two nodes with a free device each: what asks for many processors goes where there are many."""
    few = NodeBook.empty(Node("few", 8_000, 65_536, (Device("f", "few", 0, "cuda", "A", 1000, 1),)))
    many = NodeBook.empty(Node("many", 64_000, 65_536, (Device("m", "many", 0, "cuda", "A", 1000, 1),)))
    books = Books((few, many))
    books.cpu_per_device = 8_000
    for wish, cpu, node in (
        (None, 4_000, "many"),
        (Wish("cuda"), 8_000, "few"),
        (Wish("cuda"), 1_000, "few"),
    ):
        found = books.choose(wish, cpu, 1024, Placement.BALANCE)
        assert found is not None
        assert found.node == node, (wish, cpu)


def test_a_look_ahead_leaves_no_trace() -> None:
    chance = random.Random(7)
    books = Books(map(NodeBook.empty, some_nodes(chance, 6)))

    def some_takes(depth: int) -> None:
        for _ in range(8):
            choice = books.choose(wish := some_wish(chance), 1000, 1024)
            if choice is not None:
                books.put(books[choice.node].take(1000, 1024, choice.slices))
            if depth and chance.random() < 0.3:
                before = list(books)
                with books.rehearse():
                    some_takes(depth - 1)
                assert list(books) == before
            assert wish is None or wish.count

    before = list(books)
    with pytest.raises(ZeroDivisionError), books.rehearse():  # noqa: PT012
        some_takes(3)
        assert list(books) != before
        _ = 1 / 0
    assert list(books) == before
    again = Books(before)
    for _ in range(100):
        wish = some_wish(chance)
        assert books.choose(wish, 1000, 1024) == again.choose(wish, 1000, 1024)


def test_a_node_that_is_dropped_is_not_chosen() -> None:
    books = Books(map(NodeBook.empty, some_nodes(random.Random(1), 3)))
    with books.rehearse():
        for name in [book.node for book in books]:
            books.drop(name)
        assert books.choose(None, 100, 100) is None
    assert books.choose(None, 100, 100) is not None
