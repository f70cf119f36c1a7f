"""Figures against cases that can be counted by hand."""

import asyncio

import pytest

from jupyterhub_bkai.model import Wish
from jupyterhub_bkai.simulation.figures import HOUR_MS, Meter, figures, jain, quantile
from jupyterhub_bkai.simulation.trace import Job
from jupyterhub_bkai.simulation.world import Pace
from tests.simulation.worlds import a_world

AT_ONCE = Pace(step_ms=1, launch_ms=0, ready_ms=0, stop_ms=0)


def a_job(asked_h: float, user: str, took_h: float, devices: int = 1) -> Job:
    wish = Wish("cuda", devices) if devices else None
    seconds = int(took_h * 3600)
    return Job(asked_h * 3600, user, None, "default", 1000, 1024, wish, seconds, seconds)


def test_a_day_of_two_devices() -> None:
    jobs = [a_job(0, "ada", 6, 2), a_job(1, "bob", 3), a_job(2, "cyd", 6), a_job(3, "bob", 12, 0)]
    world = a_world(0, "fifo", "two-80gb", nodes=1, fault_rate=0, jobs=jobs, pace=AT_ONCE)
    meter = Meter(24 * HOUR_MS, 2)
    world.observe = meter.observe
    asyncio.run(world.run())
    found = figures(world, meter)
    waits = found.waits[""]
    assert waits.sessions == 4
    assert waits.worst_s == pytest.approx(5 * 3600, abs=1)
    assert found.seconds == pytest.approx([0, 0, 4 * 3600, 5 * 3600], abs=1)
    assert found.allocation == pytest.approx((12 + 3 + 6) / 48, abs=1e-4)
    assert found.idle_h == pytest.approx(0, abs=1e-3)
    assert found.fragmentation == 0
    assert found.hours[0] == pytest.approx(1, abs=1e-3)
    assert found.hours[10] == pytest.approx(0.5, abs=1e-3)
    # ada waited for nothing, bob 5 h for 3 h and nothing, cyd 4 h for 6 h
    bob, cyd = (5 + 3) / 3, (4 + 6) / 6
    slow = [1.0, (bob + 1) / 2, cyd]
    assert found.fairness == pytest.approx(sum(slow) ** 2 / (3 * sum(x * x for x in slow)), abs=1e-3)


def test_fairness_and_quantiles() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
    assert [quantile([1, 2, 3, 4], part) for part in (0.25, 0.5, 0.95, 1.0)] == [1, 2, 4, 4]
    assert quantile([], 0.5) == 0
