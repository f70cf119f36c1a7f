"""What the loop decides about one record, as rows of a table."""

import pytest

from jupyterhub_bkai.leasing.lifecycle import State
from jupyterhub_bkai.leasing.reconcile import TRIES, Action, Facts, decide
from jupyterhub_bkai.store.records import Record
from tests.leasing.conftest import ADA, asked

NOW_MS = 1_700_000_000_000


def record(state: State, **changes: object) -> Record:
    raw = {"asked_ms": NOW_MS - 60_000, "since_ms": NOW_MS - 60_000, "node": "local", **changes}
    return Record("0" * 26, 1, ADA, "a", asked(), state, **raw)  # type: ignore[arg-type]


def facts(**changes: object) -> Facts:
    usual = {"in_state_s": 60.0, "unattended_s": 60.0, "silent_s": 0.0, "hub": "none"}
    return Facts(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "known", "expected"),
    [
        # waiting: the hub is asked only when nobody waits, the hub answers, and it is not at it already
        (State.QUEUED, {}, Action.START),
        (State.QUEUED, {"unattended_s": 0.0}, Action.NOTHING),
        (State.QUEUED, {"unattended_s": 0.3}, Action.NOTHING),
        (State.QUEUED, {"hub": None}, Action.NOTHING),
        (State.QUEUED, {"hub": "spawn"}, Action.NOTHING),
        # nobody but us starts what was asked for through the service
        (State.QUEUED, {"fresh": True, "unattended_s": 0.1}, Action.START),
        (State.GRANTED, {"fresh": True, "unattended_s": 0.1}, Action.START),
        (State.GRANTED, {"fresh": True, "hub": "spawn"}, Action.NOTHING),
        # a start that a killed hub lost is asked for again, a few times
        (State.GRANTED, {"gone_s": 5.0}, Action.RESTART),
        (State.PULLING, {"gone_s": 5.0}, Action.RESTART),
        (State.STARTING, {"gone_s": 5.0}, Action.RESTART),
        (State.STARTING, {"gone_s": 1.0}, Action.NOTHING),
        (State.STARTING, {"gone_s": 5.0, "tries": TRIES}, Action.LOST),
        (State.STARTING, {"hub": "spawn"}, Action.NOTHING),
        (State.GRANTED, {"hub": None}, Action.NOTHING),
        (State.GRANTED, {"unattended_s": 0.0}, Action.NOTHING),
        # running: gone only when nothing has been seen of it for a while
        (State.RUNNING, {"hub": "ready"}, Action.NOTHING),
        (State.RUNNING, {"hub": None}, Action.NOTHING),
        (State.RUNNING, {"hub": "none", "gone_s": 1.0}, Action.NOTHING),
        (State.RUNNING, {"hub": "none", "gone_s": 10.0}, Action.LOST),
        (State.RUNNING, {"hub": "ready", "gone_s": 10.0}, Action.LOST),
        # stopping: through the hub first, behind the fence in the end
        (State.STOPPING, {"hub": "ready", "in_state_s": 3.0}, Action.STOP_SERVER),
        (State.STOPPING, {"hub": "spawn", "in_state_s": 3.0}, Action.STOP_SERVER),
        (State.STOPPING, {"hub": "ready"}, Action.FENCE),
        (State.STOPPING, {"hub": "check", "in_state_s": 3.0}, Action.NOTHING),
        (State.STOPPING, {"hub": "check", "in_state_s": 15.0}, Action.FENCE),
        (State.STOPPING, {"hub": "stop", "in_state_s": 3.0}, Action.NOTHING),
        (State.STOPPING, {"hub": "stop"}, Action.FENCE),
        (State.STOPPING, {"hub": "none"}, Action.FENCE),
        (State.STOPPING, {"hub": "ready", "released": True}, Action.FENCE),
        (State.STOPPING, {"hub": None, "hub_silent_s": 1.0}, Action.NOTHING),
        (State.STOPPING, {"hub": None, "hub_silent_s": 60.0}, Action.FENCE),
    ],
)
def test_decision(state: State, known: dict[str, object], expected: Action) -> None:
    assert decide(record(state), facts(**known), NOW_MS, 3600) is expected


def test_a_request_waits_no_longer_than_the_site_allows() -> None:
    old = record(State.QUEUED, asked_ms=NOW_MS - 3_601_000)
    assert decide(old, facts(unattended_s=0.0), NOW_MS, 3600) is Action.TOO_LONG


def test_the_deadline_counts_whatever_the_hub_says() -> None:
    late = record(State.RUNNING, deadline_ms=NOW_MS - 1)
    assert decide(late, facts(hub=None), NOW_MS, 3600) is Action.DEADLINE


def test_who_promised_to_keep_a_session_alive_and_fell_silent() -> None:
    watched = record(State.RUNNING, keepalive_s=60)
    assert decide(watched, facts(hub="ready", silent_s=61.0), NOW_MS, 3600) is Action.SILENT
    assert decide(watched, facts(hub="ready", silent_s=59.0), NOW_MS, 3600) is Action.NOTHING
