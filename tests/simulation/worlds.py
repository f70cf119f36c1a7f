"""Small simulated sites, and how to run them: `await played(a_world(7))`."""

import os
from collections.abc import Sequence

from jupyterhub_bkai import policy
from jupyterhub_bkai.simulation import demand, faults, site
from jupyterhub_bkai.simulation.faults import Kind
from jupyterhub_bkai.simulation.judge import Broken
from jupyterhub_bkai.simulation.short import ShortMemory
from jupyterhub_bkai.simulation.trace import Job
from jupyterhub_bkai.simulation.world import Pace, World
from jupyterhub_bkai.store.database import Store

#: one failure alone: `BKAI_SEED=17 pytest tests/simulation -k ...`
SEED = os.environ.get("BKAI_SEED")
POLICIES = (
    "fifo", "fifo,backfill=false", "lifo,backfill=false", "drf", "drf,backfill=false", "fair", "fair,spread",
    "fifo,skip_after=3", "pack",
)  # fmt: skip
SAMPLES = ("two-80gb", "eight-141gb-mig", "atom-npu", "two-fgpu")


def seeds(count: int) -> Sequence[int]:
    return range(count) if SEED is None else [int(SEED)]


def a_site(name: str, sample: str = "two-80gb", nodes: int = 3) -> site.Site:
    settings = site.variant(policy.Settings(), name)
    return site.Site(name, site.machines(sample, nodes, settings), settings)


def a_world(
    seed: int,
    name: str | None = None,
    sample: str | None = None,
    *,
    days: float = 5.0,
    nodes: int = 0,
    load: float = 1.2,
    fault_rate: float = 0.5,
    kinds: Sequence[Kind] = tuple(Kind),
    store: Store | None = None,
    jobs: Sequence[Job] | None = None,
    pace: Pace | None = None,
) -> World:
    """What differs by seed is demand, faults, policy and machines, unless they are given."""
    place = a_site(
        name or POLICIES[seed % len(POLICIES)], sample or SAMPLES[seed % len(SAMPLES)], nodes or 1 + seed % 3
    )
    # Eight devices of many instances are as many sessions as all the others: a part of that is enough.
    load = load / 4 if place.nodes[0].devices[0].mig else load
    if jobs is None:
        jobs = demand.generate(demand.Demand(days, load, seed=seed), place.settings, place.nodes)
    drawn = faults.draw(seed, fault_rate, days * 24, kinds)
    return World(place, jobs, store or ShortMemory(), pace or Pace(seed, compare=1), drawn)


async def played(world: World) -> float:
    """Runs it; returns the simulated hours. A broken promise names the seed."""
    try:
        await world.run()
    except Broken as error:
        seed = world.pace.seed
        raise AssertionError(f"BKAI_SEED={seed}, {world.site.name}: {error}") from error
    assert all(life.ended_ms is not None or life.refused for life in world.lives), "somebody was not answered"
    return world.clock.even_ms / 3_600_000
