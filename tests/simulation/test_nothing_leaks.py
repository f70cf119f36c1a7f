"""The live broker through simulated weeks with faults, before a judge that keeps its own books; and that it judges."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyterhub_bkai.errors import PublicError
from jupyterhub_bkai.leasing import reconcile
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.draft import Draft
from jupyterhub_bkai.leasing.lifecycle import State
from jupyterhub_bkai.leasing.queue import Line
from jupyterhub_bkai.leasing.reconcile import Action
from jupyterhub_bkai.leasing.scheduler import Scheduler
from jupyterhub_bkai.simulation import world as worlds_code
from jupyterhub_bkai.simulation.faults import Kind
from jupyterhub_bkai.simulation.world import Pace, Witness
from jupyterhub_bkai.store.database import Batch, Database
from tests.simulation.worlds import a_world, played, seeds

HOURS = float(os.environ.get("BKAI_HOURS", "4000"))


async def test_nothing_leaks_in_simulated_weeks() -> None:
    hours, deaths = 0.0, 0
    for seed in seeds(100_000):
        world = a_world(seed)
        hours += await played(world)
        deaths += world.deaths
        if hours > HOURS:
            break
    print(f"{hours:.0f} simulated hours to seed {seed}, {deaths} deaths of the service")
    assert deaths


@pytest.mark.parametrize("seed", seeds(2))
async def test_nor_in_a_real_database(seed: int, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'bkai.sqlite'}")
    try:
        await played(a_world(seed, days=1.0, fault_rate=2.0, store=database))
    finally:
        database.close()


# -- a judge that finds nothing judges nothing -------------------------------------------------


def grant_before_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Witness.write

    async def forgiving(self: Witness, batch: Batch) -> None:
        try:
            await write(self, batch)
        except PublicError:
            return

    monkeypatch.setattr(Witness, "write", forgiving)


def release_without_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = Broker.ending

    def careless(self: Broker, record_id: str, *args: object) -> Callable[[Draft], object]:
        def command(draft: Draft) -> object:
            ending(self, record_id, *args)(draft)  # type: ignore[arg-type]
            return self.freeing(record_id, "nobody", "it will be gone")(draft)

        return command

    monkeypatch.setattr(Broker, "ending", careless)


def forgotten_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(record: object, *args: object) -> Action:
        stopping = getattr(record, "state", "") == State.STOPPING
        return Action.FENCE if stopping else Action.NOTHING

    monkeypatch.setattr(reconcile, "decide", careless)


def forgotten_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out = Broker._lay_out

    def careless(self: Broker) -> None:
        lay_out(self)
        for record in self.records.values():
            self.scheduler.remove(record.id)

    monkeypatch.setattr(Broker, "_lay_out", careless)


def forgotten_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out = Broker._lay_out

    def careless(self: Broker) -> None:
        lay_out(self)
        for id in [*self.scheduler.held][:1]:
            self.scheduler.free(id, 0)

    monkeypatch.setattr(Broker, "_lay_out", careless)


def lost_answer_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def careless(self: Broker) -> None:
        return None

    monkeypatch.setattr(Broker, "_read", careless)


def given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The books forget every third holder as soon as it holds something."""
    hold, count = Scheduler.hold, iter(range(1 << 30))

    def careless(self: Scheduler, held: object, now_ms: int) -> None:
        hold(self, held, now_ms)  # type: ignore[arg-type]
        if next(count) % 3 == 0:
            self._change(held.node, lambda book: book.give_back(0, 0, held.slices))  # type: ignore[attr-defined]

    monkeypatch.setattr(Scheduler, "hold", careless)


def last_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What calls itself first come, first served is not."""
    monkeypatch.setattr(Line, "key", lambda self, item: (-item.priority, -item.order, item.id))


def metered_by_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    now = worlds_code.VirtualClock.now

    def careless(self: worlds_code.VirtualClock) -> object:
        stamp = now(self)
        return type(stamp)(stamp.wall_ms, stamp.wall_ms * 1_000_000, stamp.boot_id)

    monkeypatch.setattr(worlds_code.VirtualClock, "now", careless)


@pytest.mark.parametrize(
    ("careless", "expected"),
    [
        (grant_before_commit, "believes something else"),
        (release_without_fence, "while it is alive"),
        (forgotten_expiry, "beyond its deadline"),
        (forgotten_waiting, "forgotten|never answered"),
        (forgotten_holders, "other holders|gave|twice|were given"),
        (lost_answer_forgotten, "believes something else|as if it were"),
        (given_twice, "gave|twice|were given"),
        (last_come_first, "overtook"),
        (metered_by_the_wall, "metered is not"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_careless_broker_is_found(
    careless: Callable[[pytest.MonkeyPatch], None], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def played_all() -> None:
        for seed in range(20):
            await played(a_world(seed, "fifo,backfill=false", "two-80gb", days=2.0, nodes=2, fault_rate=1.0))

    careless(monkeypatch)
    with pytest.raises(AssertionError, match=f"BKAI_SEED=.*({expected})"):
        await played_all()


# -- heads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", seeds(8))
async def test_a_heads_reserved_start_is_kept_where_durations_are(seed: int) -> None:
    """Nobody is ended late here: a stop takes no time. First come, first served: nobody new comes before a head."""
    pace = Pace(seed, step_ms=1, launch_ms=0, ready_ms=0, stop_ms=0)
    world = a_world(seed, "fifo", "two-80gb", days=8.0, nodes=4, load=1.5, fault_rate=0.0, pace=pace)
    begin_ms = world.clock.wall_ms
    await played(world)
    kept = 0
    for life in world.lives:
        at_ms = world.promises.get(life.lease or "")
        if at_ms is not None and life.granted_ms is not None:
            late_ms = begin_ms + life.granted_ms - at_ms
            assert late_ms <= 1 + 1, f"BKAI_SEED={seed}: promised for {at_ms}, {late_ms} ms late"
            kept += 1
    assert kept > 10


def test_faults_are_what_they_say() -> None:
    assert {fault.kind for fault in a_world(1, fault_rate=5.0).faults.coming} == set(Kind)
