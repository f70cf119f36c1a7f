"""A hundred thousand simulated hours with faults. A failure names its seed: `BKAI_SEED=… pytest -k simulated_hours`."""

from pathlib import Path

import pytest

from jupyterhub_bkai.store.database import Database
from tests.simulation.worlds import a_world, played, seeds

HOURS = 100_000


async def test_nothing_leaks_in_a_hundred_thousand_simulated_hours() -> None:
    hours, deaths, faults, sessions = 0.0, 0, 0, 0
    for seed in seeds(1_000_000):
        world = a_world(seed, days=7.0)
        hours += await played(world)
        deaths, faults = deaths + world.deaths, faults + len(world.faults.coming)
        sessions += len(world.lives)
        if hours > HOURS:
            break
    print(
        f"{hours:,.0f} simulated hours, {sessions:,} sessions, {faults:,} faults, {deaths:,} deaths of the service"
    )
    assert deaths > 1000


@pytest.mark.parametrize("seed", seeds(20))
async def test_nor_in_a_real_database(seed: int, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'bkai.sqlite'}")
    try:
        await played(a_world(seed, days=3.0, fault_rate=2.0, store=database))
    finally:
        database.close()
