"""Rules in the database: seeded from the file, changed while the service runs, and what they do to who waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from fractions import Fraction

import pytest

from jupyterhub_bkai import rulebook, settings
from jupyterhub_bkai.errors import Conflict, InvalidOptions, PolicyDenied, SettingsError, Unavailable
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.lifecycle import Cause, State
from jupyterhub_bkai.model import Node, Person, Request
from jupyterhub_bkai.store.database import Batch, Database
from tests.leasing.conftest import CARD, TestClock, asked

ADA, BOB = Person("ada", ("vision",)), Person("bob", ("vision",))
FILE = """
groups:
  default: {title: Lab, fgpu_per_gpu: 2}
users:
  "*": {limits: {total: {sessions: 5}}}
"""
OpenSite = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest.fixture
def a_site(database_url: str) -> OpenSite:
    @asynccontextmanager
    async def opened(text: str = FILE, clock: TestClock | None = None) -> AsyncIterator[Broker]:
        database = Database(database_url)
        broker = Broker(database, settings.load(text), clock or TestClock(), file=settings.split(text))
        task = None
        try:
            await broker.load([Node("local", 8000, 16_384, (CARD,))])
            task = asyncio.create_task(broker.run())
            yield broker
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            database.close()

    return opened


async def put(broker: Broker, **kinds: dict[str, dict[str, object] | None]) -> list[rulebook.Difference]:
    return await broker.change_rules(kinds, rulebook.revision(broker.rules), "root")


def states(broker: Broker) -> dict[str, str]:
    return {record.server: str(record.state) for record in broker.records.values()}


# -- the file and the database -------------------------------------------------------------------


async def test_what_was_changed_by_hand_stays_until_it_is_changed_in_the_file(a_site: OpenSite) -> None:
    async with a_site() as broker:
        await put(broker, groups={"default": {"title": "By hand"}}, users={"ada": {"max_priority": 50}})
        assert broker.settings.groups[0].title == "By hand"
    async with a_site() as broker:
        assert broker.settings.groups[0].title == "By hand"
        assert broker.settings.users["ada"].max_priority == 50
    async with a_site(FILE.replace("Lab", "In the file")) as broker:
        assert broker.settings.groups[0].title == "In the file"
        assert broker.settings.users["ada"].max_priority == 50
        assert set(broker.settings.users) == {"*", "ada"}
    async with a_site("groups: {default: {title: In the file, fgpu_per_gpu: 2}}") as broker:
        assert set(broker.settings.users) == {"ada"}, "what left the file is gone"


async def test_what_was_removed_by_hand_does_not_come_back_by_itself(a_site: OpenSite) -> None:
    async with a_site() as broker:
        await put(broker, users={"*": None})
    async with a_site() as broker:
        assert broker.settings.users == {}
    async with a_site(FILE.replace("sessions: 5", "sessions: 6")) as broker:
        assert broker.settings.users["*"].limits.total == {"sessions": 6}


async def test_a_file_that_contradicts_what_is_kept_changes_nothing(a_site: OpenSite) -> None:
    async with a_site() as broker:
        await put(broker, presets={"small": {"options": {"cpu": 1}, "groups": ["default"]}})
    with pytest.raises(SettingsError, match=r"presets\.small\.groups"):
        async with a_site("groups: {other: {}}"):
            pass
    async with a_site() as broker:
        assert [group.name for group in broker.settings.groups] == ["default"]


async def test_who_saw_old_rules_changes_nothing(a_site: OpenSite) -> None:
    async with a_site() as broker:
        seen = rulebook.revision(broker.rules)
        await broker.change_rules({"users": {"ada": {"max_priority": 50}}}, seen, "root")
        with pytest.raises(Conflict, match="Somebody else"):
            await broker.change_rules({"users": {"ada": {"max_priority": 60}}}, seen, "eve")
        seen = rulebook.revision(broker.rules)
        answers = await asyncio.gather(
            broker.change_rules({"users": {"ada": {"max_priority": 60}}}, seen, "root"),
            broker.change_rules({"users": {"ada": {"max_priority": 70}}}, seen, "eve"),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [list, Conflict]
        assert broker.settings.users["ada"].max_priority == 60


async def test_wrong_rules_name_every_place_and_change_nothing(a_site: OpenSite) -> None:
    async with a_site() as broker:
        before = rulebook.revision(broker.rules)
        with pytest.raises(InvalidOptions) as refused:
            await put(
                broker,
                groups={"default": {"queue": {"discipline": "random"}}, "../x": {}},
                users={"ada": {"limits": {"total": {"fgpu": 1}}, "priority": 50, "max_priority": 20}},
                people={"x": {}},
            )
        assert "people" in refused.value.fields
        with pytest.raises(InvalidOptions) as refused:
            await put(
                broker,
                groups={"default": {"queue": {"discipline": "random"}}, "../x": {}},
                users={"ada": {"limits": {"total": {"fgpu": 1}}, "priority": 50, "max_priority": 20}},
            )
        assert set(refused.value.fields) == {
            "groups.default.queue.discipline",
            "groups.../x",
            "users.ada.limits.total.fgpu",
            "users.ada.priority",
        }
        assert rulebook.revision(broker.rules) == before


async def test_a_write_whose_end_is_unknown_leaves_what_is_on_disk(
    a_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_site() as broker:
        write = broker.database.write

        async def lost(batch: Batch) -> None:
            await write(batch)
            monkeypatch.undo()
            raise Unavailable("The answer was lost.", reason="database")

        monkeypatch.setattr(broker.database, "write", lost)
        with pytest.raises(Unavailable):
            await put(broker, groups={"default": {"title": "Written"}})
        await broker.ask(ADA, "a", asked(""))
        assert broker.settings.groups[0].title == "Written"


async def test_a_group_that_is_removed_refuses_who_waits_and_leaves_who_runs(a_site: OpenSite) -> None:
    async with a_site("groups: {default: {fgpu_per_gpu: 2}, other: {}}") as broker:
        (runs,) = await broker.ask(ADA, "runs", asked("1", group="other"))
        (waits,) = await broker.ask(ADA, "waits", asked("1", group="other"))
        (third,) = await broker.ask(BOB, "third", asked("1"))
        await put(broker, groups={"other": None})
        for _ in range(200):
            if waits.id not in broker.records:
                break
            await asyncio.sleep(0.01)
        assert waits.id not in broker.records
        assert broker.records[runs.id].state == State.GRANTED
        await broker.end(runs.id, Cause.STOPPED, "ada", "")
        await broker.free(runs.id, "fence", "proof")
        assert broker.records[third.id].state == State.GRANTED


# -- what may be asked for, and what runs at a time ------------------------------------------------


async def test_more_than_may_run_waits_says_so_and_goes_on(a_site: OpenSite) -> None:
    text = FILE + "projects: {vision: {limits: {running: {sessions: 3}}}}"
    async with a_site(text.replace("total: {sessions: 5}", "running: {sessions: 2}")) as broker:
        mine = [(await broker.ask(ADA, f"a{n}", asked("", project="vision")))[0] for n in range(3)]
        others = [(await broker.ask(BOB, f"b{n}", asked("", project="vision")))[0] for n in range(2)]
        assert list(states(broker).values()) == ["granted", "granted", "queued", "granted", "queued"]
        told = broker.standing(broker.records[mine[2].id])
        assert told is not None
        assert told.position == 0
        assert told.why.startswith("Your policy allows you 2 sessions running at a time, and 2 sessions run;")
        told = broker.standing(broker.records[others[1].id])
        assert told is not None
        assert "The project vision allows its members together 3 sessions" in told.why
        await broker.end(mine[0].id, Cause.STOPPED, "ada", "")
        assert states(broker)["a2"] == "queued", "what is stopping still holds"
        await broker.free(mine[0].id, "fence", "proof")
        assert states(broker) == {"a1": "granted", "a2": "granted", "b0": "granted", "b1": "queued"}
        # An administrator allows more; who waited starts, and it could be seen before.
        _, _, future = broker.proposed({"projects": {"vision": None}})
        assert broker.would_start(future) == [others[1].id]
        await put(broker, projects={"vision": None})
        for _ in range(200):
            if states(broker)["b1"] == "granted":
                break
            await asyncio.sleep(0.01)
        assert states(broker)["b1"] == "granted"


async def test_what_never_could_run_is_refused(a_site: OpenSite) -> None:
    text = FILE.replace("total: {sessions: 5}", "running: {cuda: 0.5}, size: {memory: 2g}")
    async with a_site(text) as broker:
        with pytest.raises(
            PolicyDenied, match=r"0\.5 cuda devices running at a time; one session of this asks"
        ):
            await broker.ask(ADA, "a", asked("3/4"))
        with pytest.raises(
            PolicyDenied, match="2 GiB of memory in a session; this asks for 3 GiB"
        ) as refused:
            await broker.ask(ADA, "a", asked("1/4", memory_mib=3072))
        assert list(refused.value.fields) == ["memory"]


async def test_more_together_than_may_ever_run_is_refused(a_site: OpenSite) -> None:
    async with a_site(FILE.replace("total: {sessions: 5}", "running: {sessions: 1}")) as broker:
        with pytest.raises(
            PolicyDenied, match="1 session running at a time; these 2 together ask for 2 sessions"
        ):
            await broker.ask(ADA, "two", together("1/4"))
        await broker.ask(ADA, "two", asked("1/4", count=2))


async def test_a_priority_of_one_group_is_none_of_another(a_site: OpenSite) -> None:
    """Somebody waits where they may ask for much, and would pass all others where they may not."""
    text = FILE.replace("fgpu_per_gpu: 2}", "fgpu_per_gpu: 2, max_priority: 10}\n  fast: {title: Fast}")
    text = text.replace("sessions: 5}}}", "sessions: 5}}, max_priority: 90}")
    async with a_site(text) as broker:
        await broker.ask(BOB, "fills", asked("1"))
        urgent = asked("1", group="fast", priority=90)
        (waits,) = await broker.ask(ADA, "urgent", urgent)
        with pytest.raises(PolicyDenied, match="at most 10"):
            await broker.change(waits.id, replace(urgent, group="default"), "ada", "elsewhere")
        await broker.change(waits.id, replace(urgent, cpu_milli=500), "ada", "less")


async def test_who_has_left_a_group_of_the_hub_changes_nothing_into_its_own(a_site: OpenSite) -> None:
    text = FILE.replace("2}", "2}\n  closed: {title: Closed, public: false, hub_groups: [vision]}")
    async with a_site(text) as broker:
        await broker.ask(BOB, "fills", asked("1"))
        (waits,) = await broker.ask(ADA, "waits", asked("1"))
        there = asked("1", group="closed")
        with pytest.raises(PolicyDenied, match="may not use the resource group"):
            await broker.change(waits.id, there, "ada", "elsewhere", Person("ada"))
        await broker.change(waits.id, there, "ada", "elsewhere", ADA)


async def test_priority_and_duration_have_their_limits(a_site: OpenSite) -> None:
    text = FILE + "projects: {vision: {max_priority: 30, max_duration: 1h}}"
    async with a_site(text) as broker:
        with pytest.raises(PolicyDenied, match="at most 10"):
            await broker.ask(ADA, "a", asked("", priority=20))
        with pytest.raises(PolicyDenied, match="at most 1 h"):
            await broker.ask(ADA, "a", asked("", project="vision"))
        await broker.ask(ADA, "a", asked("", project="vision", priority=30, duration_s=3600))


async def test_a_higher_priority_is_served_first(a_site: OpenSite) -> None:
    async with a_site(FILE + 'projects: {"*": {max_priority: 90}}') as broker:
        (runs,) = await broker.ask(ADA, "runs", asked("1"))
        await broker.ask(ADA, "early", asked("1"))
        await broker.ask(BOB, "late", asked("1", priority=50, project="vision"))
        await broker.end(runs.id, Cause.STOPPED, "ada", "")
        await broker.free(runs.id, "fence", "proof")
        assert states(broker) == {"early": "queued", "late": "granted"}


# -- together, later, afterwards --------------------------------------------------------------------


def together(share: str) -> Request:
    return asked(share, count=2, gang="together")


async def test_together_or_not_at_all_also_after_a_restart(a_site: OpenSite) -> None:
    async with a_site() as broker:
        (small,) = await broker.ask(BOB, "small", asked("1/2"))
        two = await broker.ask(ADA, "two", together("1/2"))
        assert len({record.request.gang for record in two}) == 1
        assert states(broker) == {"small": "granted", "two": "queued", "two-2": "queued"}
        told = broker.standing(broker.records[two[1].id])
        assert told is not None
        assert told.why == "Its 2 sessions start together, and there is not yet room for all of them."
    async with a_site() as broker:
        assert states(broker) == {"small": "granted", "two": "queued", "two-2": "queued"}
        await broker.end(small.id, Cause.STOPPED, "bob", "")
        await broker.free(small.id, "fence", "proof")
        assert states(broker) == {"two": "granted", "two-2": "granted"}


async def test_those_behind_are_told_that_they_start_together(a_site: OpenSite) -> None:
    async with a_site() as broker:
        await broker.ask(BOB, "all", asked("1"))
        await broker.ask(BOB, "next", asked("1"))
        two = await broker.ask(ADA, "two", together("1/2"))
        told = broker.standing(broker.records[two[1].id])
        assert told is not None
        assert told.why.endswith(" It starts together with 1 other.")


async def test_of_some_that_start_together_one_may_leave(a_site: OpenSite) -> None:
    async with a_site() as broker:
        await broker.ask(BOB, "small", asked("1/2"))
        two = await broker.ask(ADA, "two", together("1/2"))
        await broker.end(two[0].id, Cause.CANCELLED, "ada", "")
        assert states(broker) == {"small": "granted", "two-2": "granted"}


async def test_not_before_its_time(a_site: OpenSite) -> None:
    clock = TestClock()
    async with a_site(clock=clock) as broker:
        await broker.ask(ADA, "later", asked("", not_before_ms=clock.wall_ms + 60_000))
        broker.nudge()
        await asyncio.sleep(0.05)
        assert states(broker) == {"later": "queued"}
        clock.advance(60_000)
        broker.nudge()
        for _ in range(100):
            if states(broker) == {"later": "granted"}:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(states(broker))


async def test_after_another_and_stopped_with_it(a_site: OpenSite) -> None:
    async with a_site() as broker:
        (first,) = await broker.ask(ADA, "first", asked(""))
        (second,) = await broker.ask(ADA, "second", asked("", after=(first.id,)))
        (third,) = await broker.ask(ADA, "third", asked("", after=(second.id,)))
        with pytest.raises(InvalidOptions, match="no live session of yours"):
            await broker.ask(BOB, "thief", asked("", after=(first.id,)))
        told = broker.standing(broker.records[second.id])
        assert told is not None
        assert (told.position, told.why) == (0, "It starts after another session has ended.")
        assert [one.server for one in broker.followers(first.id)] == ["second", "third"]
        await broker.end(first.id, Cause.STOPPED, "ada", "")
        await broker.free(first.id, "fence", "proof")
        assert states(broker) == {"second": "granted", "third": "queued"}
        assert third.request.after == (second.id,)


def test_a_waiting_limit_of_a_group_counts_from_the_time_it_may_start() -> None:
    text = "queue_limit: 5d\ngroups: {default: {pending_timeout: 2d}, other: {}}"
    found = settings.load(text)
    assert (found.queue_limit_of("default"), found.queue_limit_of("other")) == (2 * 86400, 5 * 86400)
    with pytest.raises(SettingsError, match="longer than the site's queue_limit"):
        settings.load("groups: {default: {pending_timeout: 30d}}")


def test_amounts_of_any_accelerator() -> None:
    found = settings.load('users: {"*": {limits: {total: {atom: 2, memory: 1t, cpu: 0.5}}}}')
    assert found.users["*"].limits.total == {
        "atom": Fraction(2),
        "memory": Fraction(1 << 20),
        "cpu": Fraction(1, 2),
    }
    assert replace(found.users["*"], name="x").limits == found.users["*"].limits


HOSTILE = {
    "references": "a: &a [1]\ngroups: {default: {images: *a}}",
    "stands here twice": "groups: {default: {}, default: {}}",
    "expected names with values": "[1, 2]",
    "this is not YAML": "groups: {default: {title: !!python/object/apply:os.system [id]}}",
    "unknown setting": "groups: {default: {titel: Lab}}",
    "is not a time": "groups: {default: {max_duration: soon}}",
    "it is longer than max_duration": "groups: {default: {max_duration: 1h, default_duration: 2h}}",
    "it is more than total allows": "groups: {default: {limits: {running: {cpu: 4}, total: {cpu: 2}}}}",
    "there is no group “x”": "presets: {p: {options: {cpu: 1}, groups: [x]}}",
    "at least one option": "presets: {p: {options: {}}}",
    "unknown setting; known are accelerator": "presets: {p: {options: {environment: {A: b}}}}",
    "from 0 to 100": "users: {ada: {max_priority: 101}}",
    "too many digits": "users: {ada: {priority: 0x" + "f" * 5000 + "}}",
    "too many digits ": "users: {ada: {priority: 1" + ":59" * 100_000 + "}}",
    "too many  digits": "users: {ada: {priority: 1" + ":59" * 1000 + ".5}}",
    "without control characters": 'groups: {default: {title: "\\ud800"}}',
    "without control  characters": 'groups: {default: {title: "a\\0b"}}',
    "expected a list of names": 'groups: {default: {users: ["\\ud800"]}}',
}


@pytest.mark.parametrize("said", HOSTILE)
def test_each_mistake_in_a_file_has_its_place_and_sentence(said: str) -> None:
    with pytest.raises(SettingsError, match=" ".join(said.split())):
        settings.load(HOSTILE[said])


def test_a_file_of_nothing_but_brackets_is_refused() -> None:
    with pytest.raises(SettingsError):
        settings.load("[" * 100_000)


def test_differences_name_each_place() -> None:
    before: settings.Bodies = {
        "groups": {"a": {"title": "A", "limits": {"total": {"cpu": 1}}}},
        "users": {"x": {}},
    }
    after = {"groups": {"a": {"title": "A", "limits": {"total": {"cpu": 2}}}, "b": {}}}
    found = rulebook.differences(before, after)
    assert [(d.kind, d.name, d.change) for d in found] == [
        ("groups", "a", "changed"),
        ("groups", "b", "added"),
        ("users", "x", "removed"),
    ]
    assert found[0].lines == (("limits.total.cpu", "1", "2"),)
