"""Slices and the choice of a device: exact, never over-committed, packed."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_bkai.gpus.fit import Books, Choice, NodeBook, Shortage
from jupyterhub_bkai.gpus.slices import Book, Unit, cut, overlapping
from jupyterhub_bkai.model import Device, MigProfile, Node, Slice, Wish

#: The H200's true geometry: name, slots, where it may begin, MiB, SMs.
H200 = tuple(
    MigProfile(name, size, starts, memory, sms * 1000)
    for name, size, starts, memory, sms in (
        ("1g.18gb", 1, (0, 1, 2, 3, 4, 5, 6), 16_384, 16),
        ("1g.35gb", 2, (0, 2, 4, 6), 33_280, 16),
        ("2g.35gb", 2, (0, 2, 4), 33_280, 32),
        ("3g.71gb", 4, (0, 4), 71_680, 60),
        ("4g.71gb", 4, (0,), 71_680, 64),
        ("7g.141gb", 8, (0,), 143_360, 132),
    )
)


def card(index: int, *, node: str = "local", mig: bool = False, **changes: object) -> Device:
    raw = {"memory_mib": 143_771, "sms": 132, "reserve_mib": 256, "mig": H200 if mig else ()}
    return Device(f"GPU-{node}-{index}", node, index, "cuda", "H200", **{**raw, **changes})  # type: ignore[arg-type]


def book(*devices: Device, node: str = "local") -> NodeBook:
    return NodeBook.empty(Node(node, 16_000, 65_536, devices))


def place(nodes: list[NodeBook], wish: Wish | None, cpu_milli: int, memory_mib: int) -> Choice | Shortage:
    books = Books(nodes)
    return books.choose(wish, cpu_milli, memory_mib) or books.shortage(wish, cpu_milli, memory_mib)


def test_a_fraction_goes_where_the_smallest_remainder_is_left() -> None:
    one, two = card(0), card(1)
    books = book(one, two).take(0, 0, [cut(two, Fraction(1, 2))])
    choice = place([books], Wish("cuda", 1, Fraction(1, 4)), 1000, 1024)
    assert isinstance(choice, Choice)
    assert [piece.device for piece in choice.slices] == [two.id]


def test_a_node_in_use_comes_before_an_idle_one() -> None:
    busy = book(card(0, node="b"), card(1, node="b"), node="b").take(
        0, 0, [cut(card(0, node="b"), Fraction(1))]
    )
    idle = book(card(0, node="a"), card(1, node="a"), node="a")
    choice = place([idle, busy], Wish("cuda", 1, Fraction(1)), 1000, 1024)
    assert isinstance(choice, Choice)
    assert choice.node == "b"


def test_pieces_of_one_wish_lie_on_different_devices_of_one_node() -> None:
    choice = place([book(card(0), card(1), card(2))], Wish("cuda", 2, Fraction(3, 4)), 1000, 1024)
    assert isinstance(choice, Choice)
    assert len({piece.device for piece in choice.slices}) == 2


def test_half_a_card_here_and_half_there_is_not_one_card() -> None:
    one, two = card(0), card(1)
    books = book(one, two).take(0, 0, [cut(one, Fraction(1, 2)), cut(two, Fraction(1, 2))])
    assert place([books], Wish("cuda", 1, Fraction(3, 4)), 1, 1) == Shortage(
        "accelerator", Fraction(3, 4), Fraction(1, 2), 0, 1
    )


@pytest.mark.parametrize(
    ("cpu", "memory", "what"), [(32_000, 1, "cpu"), (1, 1 << 20, "memory"), (32_000, 1 << 20, "cpu")]
)
def test_what_binds_is_named(cpu: int, memory: int, what: str) -> None:
    short = place([book(card(0))], Wish("cuda", 1, Fraction(1)), cpu, memory)
    assert isinstance(short, Shortage)
    assert short.what == what


def test_no_open_node() -> None:
    assert isinstance(short := place([], None, 1, 1), Shortage)
    assert short.what == "node"


def test_mig_instances_never_overlap_and_small_ones_leave_room_for_large() -> None:
    device = Book.empty(card(0, mig=True))
    taken = []
    for profile in ("1g.18gb", "1g.18gb", "3g.71gb"):
        piece = device.room_for_mig(profile)
        assert piece is not None
        taken.append(piece)
        device = device.take(piece)
    assert device.room_for_mig("4g.71gb") is None
    masks = [piece.mig.mask for piece in taken if piece.mig]
    assert masks[0] & masks[1] == masks[0] & masks[2] == masks[1] & masks[2] == 0


def test_seven_small_instances_fill_a_device() -> None:
    device = Book.empty(card(0, mig=True))
    for _ in range(7):
        piece = device.room_for_mig("1g.18gb")
        assert piece is not None
        device = device.take(piece)
    assert device.room_for_mig("1g.18gb") is None
    assert device.free_share > 0
    assert device.left_share == 0


def test_a_sick_device_is_not_given() -> None:
    assert Book.empty(card(0, healthy=False)).room_for(Fraction(1, 2)) is None


def test_what_cannot_be_cut_is_given_whole_only() -> None:
    npu = Book.empty(card(0, divisible=False))
    assert npu.room_for(Fraction(1, 2)) is None
    assert npu.room_for(Fraction(1)) is not None


def test_taking_what_is_not_there_is_refused() -> None:
    device = card(0)
    half = Book.empty(device).take(cut(device, Fraction(1, 2)))
    with pytest.raises(ValueError, match="free"):
        half.take(cut(device, Fraction(3, 4)))


shares = st.fractions(min_value=Fraction(1, 64), max_value=1, max_denominator=64)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(shares, st.booleans()), max_size=40),
    st.integers(1, 1 << 20),
    st.integers(1, 200),
    st.integers(0, 512),
)
def test_slices_never_add_up_to_more_than_the_device(
    moves: list[tuple[Fraction, bool]], memory: int, sms: int, reserve: int
) -> None:
    device = card(0, memory_mib=memory, sms=sms, reserve_mib=reserve)
    now = Book.empty(device)
    held: list[Slice] = []
    for share, give_back in moves:
        if give_back and held:
            now = now.give_back(held.pop(0))
        elif piece := now.room_for(share):
            held.append(piece)
            now = now.take(piece)
        assert overlapping(device, held) is None
        assert sum(piece.share for piece in held) <= 1
        assert now.free_mib >= 0
        assert now.free_sm_milli >= 0
    for piece in held:
        now = now.give_back(piece)
    assert now == Book.empty(device)


@given(st.fractions(min_value=0, max_value=100), st.integers(1, 64), st.integers(1, 100))
def test_neighbours_are_the_nearest_multiples(amount: Fraction, per_device: int, steps: int) -> None:
    unit = Unit(Fraction(per_device), Fraction(per_device, steps))
    near = unit.neighbours(amount)
    if near is None:
        assert (amount / unit.quantum).denominator == 1
    else:
        below, above = near
        assert below < amount < above
        assert above - below == unit.quantum
