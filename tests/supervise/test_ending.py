"""Ctrl-C once stops the sessions and leaves nothing; twice leaves them running for the next start."""

import signal

import httpx
import pytest

from tests.supervise.running import PARTS, Running, alive, until

pytestmark = pytest.mark.hub


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_interrupt_leaves_nothing(running: Running, number: signal.Signals) -> None:
    running.up()
    sessions = [
        running.start_session("ada"),
        running.start_session("ada", "two"),
        running.start_session("bob"),
    ]
    running.supervisor.send_signal(number)
    assert running.wait() == 0
    assert not any(alive(pid) for pid in sessions)
    assert running.site.leftovers() == []
    assert "Stopping 3 sessions: ada, ada/two, bob." in running.said()
    assert running.said().endswith("Ended.\n")
    assert not any((running.site.data / "run" / f"{part}.json").exists() for part in PARTS)
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.site.url, trust_env=False)


def test_a_session_that_still_starts_is_cancelled(running: Running) -> None:
    running.site.more += "c.Spawner.cmd = ['sleep', '1000']\nc.Spawner.http_timeout = 900\n"
    running.up()
    running.site.hub("POST", "/users/ada")
    assert running.site.hub("POST", "/users/ada/server").status_code == 202
    until(lambda: "server" in running.site.hub("GET", "/users/ada").text, 90, "it is pending")
    running.interrupt()
    assert running.wait() == 0
    assert running.site.leftovers() == []


def test_two_interrupts_leave_the_sessions_for_the_next_start(running: Running) -> None:
    # One that takes its time to end, so that there is a moment for the second Ctrl-C.
    stubborn = "import signal, runpy; signal.signal(2, 1); signal.signal(15, 1); runpy.run_path(sys.argv[1])"
    running.site.more += (
        f"c.Spawner.cmd = [sys.executable, '-c', 'import sys; {stubborn}', *c.Spawner.cmd[1:]]\n"
        "c.LocalProcessSpawner.interrupt_timeout = 60\n"
    )
    running.up()
    session = running.start_session("ada")
    parts = running.pids().values()
    running.interrupt()
    until(lambda: "Ctrl-C again leaves them running" in running.said(), 90, "it asks")
    running.interrupt()
    assert running.wait() == 0
    assert alive(session)
    assert "Left running: ada." in running.said()
    assert not any(alive(pid) for pid in parts)
    running.up()
    assert running.session_pid("ada") == session


def test_interrupted_while_it_starts(running: Running) -> None:
    running.up(ready=False)
    until(lambda: (running.site.data / "run" / "hub.json").exists(), 90, "the hub is being started")
    running.interrupt()
    assert running.wait() == 0
    assert running.site.leftovers() == []
