"""Whatever stands in a file of fake devices: it is devices that hold together, or a `SettingsError`."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus.fake import Layout, parse
from jupyterhub_bkai.gpus.source import SourceOptions

KEYS = [
    "description", "devices", "nodes", "mig", "instances", "faults", "model", "count", "memory_mib",
    "sms", "reserve_mib", "numa", "id", "slot", "divisible", "name", "size", "placements", "cpu",
    "device", "profile", "start", "uuid", "vanished", "unhealthy", "failing", "m",
]  # fmt: skip

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(
        ["m", "1g", "cuda", "none", "local", "../../etc/passwd", "<script>", "fake-local-cuda-0", "a\0b"]
    ),
)
numbers = st.one_of(
    st.integers(-3, 9),
    st.sampled_from([8192, 65_536, 65_537, 2**30, 2**31, 2**63 - 1, -(2**63), 10**30]),
)
leaves = st.one_of(texts, numbers, st.booleans(), st.floats())
keys = st.one_of(st.sampled_from(KEYS), texts)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6)),
    max_leaves=20,
)


def toml(value: Any) -> str:
    """The value in TOML, tables inline, so that any tree can be written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(one)}" for key, one in value.items()) + "}"
    return str(value)  # numbers are written as Python does, nan and inf as well


def outcome(content: bytes) -> Layout | None:
    """What the content describes; None for a refusal, which has a sentence for each place."""
    try:
        return parse(content, "own.toml", SourceOptions())
    except SettingsError as error:
        problems = error.problems
    assert problems
    for place, sentence in problems:
        assert place.startswith("own.toml")
        assert len(place) < 400
        assert sentence.endswith((".", "?"))
        assert place.isprintable()
    return None


def holds_together(layout: Layout) -> None:
    ids = [device.id for device in layout.devices]
    assert len(set(ids)) == len(ids)
    for device in layout.devices:
        assert device.fake
        assert device.memory_mib > 0 < device.sms
        assert 0 <= device.reserve_mib <= device.memory_mib
        assert device.model
        assert device.slot
        assert device.slot != "none"
        for profile in device.mig:
            assert 0 < profile.memory_mib <= device.memory_mib
            assert 0 < profile.sm_milli <= device.sms * 1000
            assert profile.placements
            assert list(profile.placements) == sorted(set(profile.placements))
    for machine in layout.machines:
        assert machine.cpu_milli > 0 < machine.memory_mib


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes(content: bytes) -> None:
    layout = outcome(content)
    assert layout is None or layout.devices


@given(st.dictionaries(keys, trees, max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_tree(tree: dict[str, Any]) -> None:
    layout = outcome("\n".join(f"{toml(key)} = {toml(value)}" for key, value in tree.items()).encode())
    if layout:
        holds_together(layout)


# Nearly right files reach further than any tree does: a good one with one value, or one key, replaced.
GOOD: dict[str, Any] = {
    "description": "good",
    "devices": [
        {
            "model": "A",
            "memory_mib": 8192,
            "sms": 24,
            "count": 2,
            "numa": [0, 1],
            "reserve_mib": 0,
            "mig": "m",
        },
        {
            "model": "B",
            "memory_mib": 4096,
            "sms": 8,
            "slot": "atom",
            "divisible": False,
            "id": "b",
            "numa": 3,
        },
    ],
    "mig": {"m": [{"name": "1g", "size": 1, "placements": [0, 1], "memory_mib": 1024, "sms": 3}]},
    "instances": [{"device": "fake-local-cuda-0", "profile": "1g", "start": 1, "uuid": "MIG-1"}],
    "nodes": [
        {"name": "n", "cpu": 2, "memory_mib": 10, "devices": [{"model": "C", "memory_mib": 1, "sms": 1}]}
    ],
    "faults": {"vanished": ["b"], "unhealthy": {"fake-n-cuda-0": "ill"}},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree but its root."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, one in inner:
        found += places(one, (*path, key))
    return found


def changed(tree: Any, path: tuple[Any, ...], change: Any) -> Any:
    if not path:
        return change
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = changed(tree[path[0]], path[1:], change)
    return copy


def test_the_good_file_is_good() -> None:
    layout = outcome("\n".join(f"{key} = {toml(value)}" for key, value in GOOD.items()).encode())
    assert layout
    holds_together(layout)
    assert [device.id for device in layout.devices] == [
        "fake-local-cuda-0",
        "fake-local-cuda-1",
        "fake-n-cuda-0",
    ]


@given(st.sampled_from(places(GOOD)), trees)
@settings(max_examples=500, deadline=None)
def test_any_value_anywhere_in_a_good_file(path: tuple[Any, ...], value: Any) -> None:
    tree = changed(GOOD, path, value)
    layout = outcome("\n".join(f"{key} = {toml(one)}" for key, one in tree.items()).encode())
    if layout:
        holds_together(layout)


@pytest.mark.parametrize("path", places(GOOD), ids=str)
@pytest.mark.parametrize("value", [-1, 10**30, math.nan, "\0", [], {}, True], ids=str)
def test_hostile_values_are_refused_or_harmless(path: tuple[Any, ...], value: Any) -> None:
    tree = changed(GOOD, path, value)
    layout = outcome("\n".join(f"{key} = {toml(one)}" for key, one in tree.items()).encode())
    if layout:
        holds_together(layout)
