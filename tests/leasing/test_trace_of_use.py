"""A service's own history as a trace, and that the simulator takes it."""

import asyncio
from pathlib import Path

from jupyterhub_bkai.api.site import _job
from jupyterhub_bkai.leasing.lifecycle import Cause
from jupyterhub_bkai.simulation import trace
from jupyterhub_bkai.simulation.run import Plan, simulate
from jupyterhub_bkai.store import queries
from tests.leasing.conftest import ADA, OpenBroker, TestClock, asked


async def test_what_was_asked_for_is_a_trace(a_broker: OpenBroker, tmp_path: Path) -> None:
    clock = TestClock()
    begin_ms = clock.wall_ms
    async with a_broker(clock=clock) as broker:
        clock.advance(1_000)
        (ran,) = await broker.ask(ADA, "ran", asked("1/2", duration_s=3600, priority=7))
        (left,) = await broker.ask(ADA, "left", asked("1"))
        clock.advance(10_000)
        await broker.started(ran.id, {"pid": 1})
        await broker.ready(ran.id)
        clock.advance(60_000, step_ms=7_200_000)  # what is measured is not what the wall says
        await broker.end(left.id, Cause.CANCELLED, "ada", "no more")
        await broker.end(ran.id, Cause.STOPPED, "ada", "done")
        await broker.free(ran.id, "fence", "proof")
        (runs,) = await broker.ask(ADA, "runs", asked(""))
        await broker.started(runs.id, {"pid": 2})
        await broker.ready(runs.id)
        clock.advance(5_000)
        rows = await broker.database.read(queries.asked(begin_ms, clock.wall_ms))
        jobs = [_job(record, held_ms, begin_ms, clock.wall_ms) for record, held_ms in rows]
        assert await broker.database.read(queries.asked(begin_ms, begin_ms + 1000)) == []
    first, second, third = jobs
    assert (first.user, first.asked_s, first.took_s, first.duration_s, first.priority) == (
        "ada",
        1,
        60,
        3600,
        7,
    )
    assert (second.took_s, second.patience_s) == (0, 7_270)
    assert (third.took_s, third.wish, third.patience_s) == (5, None, None)
    path = tmp_path / "trace.csv"
    path.write_text(trace.write(trace.anonymous(jobs)))
    report = await asyncio.to_thread(simulate, Plan(trace=path, devices="fake:one-8gb", policies=("fifo",)))
    assert report.policies[0].waits[""].sessions == 3
    assert report.policies[0].waits[""].worst_s > 0  # a half and a whole of one device do not go together
