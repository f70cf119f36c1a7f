"""Identical work joins, late askers hear everything, and the limit holds."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from jupyterhub_bkai.builds.progress import Progress
from jupyterhub_bkai.builds.queue import Queue, Report
from jupyterhub_bkai.errors import Conflict, PublicError, Unavailable


class Work:
    """Says one and two, waits to be let go, and says three."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.times = 0
        self.error = error

    async def __call__(self, tell: Report) -> None:
        self.times += 1
        tell(Progress(1, "one"))
        tell(Progress(1, "one"))
        tell(Progress(2, "two"))
        self.begun.set()
        await self.go.wait()
        if self.error:
            raise self.error
        tell(Progress(3, "three"))


async def heard(events: AsyncIterator[Progress]) -> list[str]:
    return [progress.message async for progress in events]


async def test_late_askers_hear_the_same() -> None:
    queue, work = Queue(1), Work()
    first = asyncio.create_task(heard(queue.ask("a", work)))
    await work.begun.wait()
    second = asyncio.create_task(heard(queue.ask("a", work)))
    assert queue.under_way() == {"a"}
    work.go.set()
    assert await first == await second == ["one", "two", "three"]
    assert work.times == 1
    assert queue.under_way() == frozenset()


async def test_it_goes_on_when_its_askers_leave() -> None:
    queue, work = Queue(1), Work()
    asker = asyncio.create_task(heard(queue.ask("a", work)))
    await work.begun.wait()
    asker.cancel()
    await asyncio.wait([asker])
    later = asyncio.create_task(heard(queue.ask("a", work)))
    work.go.set()
    assert await later == ["one", "two", "three"]
    assert work.times == 1


async def test_everybody_is_told_of_a_failure_and_the_next_tries_again() -> None:
    queue, work = Queue(1), Work(Conflict("No."))
    work.go.set()
    both = await asyncio.gather(
        heard(queue.ask("a", work)), heard(queue.ask("a", work)), return_exceptions=True
    )
    assert [str(error) for error in both if isinstance(error, Conflict)] == ["No.", "No."]
    work.error = None
    assert await heard(queue.ask("a", work)) == ["one", "two", "three"]
    assert work.times == 2


async def test_a_fault_of_ours_is_logged_and_told_as_such(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(ZeroDivisionError("oops"))
    work.go.set()
    with pytest.raises(
        Unavailable, match=r"^Making a failed by a fault of ours: the service's log names it.$"
    ):
        await heard(Queue(1).ask("a", work))
    assert "ZeroDivisionError: oops" in caplog.text


async def test_the_limit_holds_and_is_told() -> None:
    queue, one, two = Queue(1), Work(), Work()
    first = asyncio.create_task(heard(queue.ask("one", one)))
    await one.begun.wait()
    events = queue.ask("two", two)
    assert (await anext(events)).message == "Waiting for other image versions that are being made"
    assert two.times == 0
    one.go.set()
    two.go.set()
    assert await first == await heard(events) == ["one", "two", "three"]


@pytest.mark.parametrize("begun", [True, False])
async def test_closing_tells_everybody(begun: bool) -> None:
    queue, work = Queue(1), Work()
    asker = asyncio.create_task(heard(queue.ask("a", work)))
    if begun:
        await work.begun.wait()
    else:
        # The asker has asked, the work has not begun.
        events = queue.ask("a", work)
        asker.cancel()
        asker = asyncio.create_task(heard(events))
    await queue.aclose()
    with pytest.raises(PublicError, match="stopped meanwhile"):
        await asker
    assert queue.under_way() == frozenset()
