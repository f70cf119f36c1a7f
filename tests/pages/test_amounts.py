"""The page's arithmetic against the service's: the same amounts, the same shares, in real JavaScript."""

import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_bkai import nodeproxy, options
from jupyterhub_bkai.gpus.slices import Unit

MODULE = Path(options.__file__).parent / "admin" / "static" / "amounts.js"


def run(expression: str, given: Any = None) -> Any:
    """The value of an expression over the module's functions `a`, with `given`."""
    script = f"""
        const a = await import({json.dumps(MODULE.as_uri())});
        const given = {json.dumps(given)};
        console.log(JSON.stringify({expression}));
    """
    node = subprocess.run(
        [str(nodeproxy.node()), "--input-type=module", "-e", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert node.returncode == 0, node.stderr
    return json.loads(node.stdout)


TYPED = ["0.5", "2", "1/4", "1/3", "0.000001", "999999999", " 3 ", "0"]
NOT_TYPED = ["", "-1", "1e3", "NaN", "1/0", "0.1234567", "1,5", "½", "1.", ".5", "0x1", "a"]


@pytest.mark.parametrize("texts", [TYPED, NOT_TYPED], ids=["amounts", "others"])
def test_reads_the_amounts_that_the_service_reads(texts: list[str]) -> None:
    for text, found in zip(texts, run("given.map((text) => a.parse(text))", texts), strict=True):
        theirs = options.amount(text)
        assert (Fraction(found["n"], found["d"]) if found else None) == theirs, text


def test_writes_what_it_read_and_thirds_as_thirds() -> None:
    texts = ["0.5", "2", "1/3", "0.000001", "10", "2/7", "0.125"]
    assert run("given.map((text) => a.write(a.parse(text)))", texts) == texts


@pytest.mark.parametrize(("per", "quantum"), [("2", "1/10"), ("5", "1"), ("1", "1/8"), ("3", "1/2")])
def test_every_step_of_the_slider_can_be_had(per: str, quantum: str) -> None:
    """Below one device a multiple of the quantum, then whole devices; each share is exact."""
    group = {"unit": {"per_device": per, "quantum": quantum}}
    slot = {"divisible": True, "devices": 4}
    steps = run(
        "(([group, slot]) => { const unit = a.unitOf(group);"
        " return a.steps(slot, unit).map((step) => [step, a.over(step, unit.per)]); })(given)",
        [group, slot],
    )
    unit = Unit(Fraction(per), Fraction(quantum))
    shares = []
    for step, share in steps:
        fgpu = Fraction(step["n"], step["d"])
        shares.append(Fraction(share["n"], share["d"]))
        assert unit.share(fgpu) == shares[-1]
        assert shares[-1].denominator == 1 or unit.neighbours(fgpu) is None
    assert shares == sorted(set(shares))
    assert shares[-4:] == [1, 2, 3, 4]


def test_devices_given_out_whole_have_whole_steps_only() -> None:
    group = {"unit": {"per_device": "2", "quantum": "1/10"}}
    slot = {"divisible": False, "devices": 3}
    steps = run("a.steps(given[1], a.unitOf(given[0])).map(a.write)", [group, slot])
    assert steps == ["2", "4", "6"]


def test_shares_of_the_service_are_read_whatever_their_size() -> None:
    found = run("given.map((text) => a.read(text))", ["71424/143771", "1/4", "0", "2", None])
    assert [Fraction(f["n"], f["d"]) for f in found] == [Fraction(71424, 143771), Fraction(1, 4), 0, 2, 0]


def test_a_mig_profile_says_what_its_name_says() -> None:
    assert run("given.map((name) => a.profile(name))", ["3g.71gb", "1g.18gb+me", "other"]) == [
        {"compute": {"n": 3, "d": 7}, "memory": 71},
        {"compute": {"n": 1, "d": 7}, "memory": 18},
        None,
    ]
