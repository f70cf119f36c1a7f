"""Whatever is killed comes back, and no session notices."""

import os
import signal

import pytest

from tests.supervise.running import PARTS, Running, alive, run_up, until

pytestmark = pytest.mark.hub


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_comes_back_and_its_routes_too(kept: Running, part: str) -> None:
    session = kept.session_pid("ada") or kept.start_session("ada")
    before = kept.pids()
    killed = kept.site.kill(part)
    until(lambda: kept.pids()[part] != killed, 90, f"another {part}")
    until(lambda: kept.answers("/hub/login"), 90, "the login page answers")
    until(lambda: kept.answers("/services/bkai/api/v1/info", 401), 90, "the service's route is there")
    assert until(lambda: kept.session_pid("ada"), 90, "the session's route is there") == session
    assert {name: pid for name, pid in kept.pids().items() if name != part} == {
        name: pid for name, pid in before.items() if name != part
    }
    assert f"The {part} was ended by SIGKILL; starting it again in 1 s." in kept.said()


def test_a_part_that_ends_again_and_again_is_started_slower_each_time(running: Running) -> None:
    running.up()
    for pause in (1, 2, 4):
        killed = running.site.kill("service")
        until(lambda: f"starting it again in {pause} s" in running.said(), 90, f"a pause of {pause} s")  # noqa: B023
        until(lambda: running.site.pid("service") != killed, 90, "another service")  # noqa: B023


def test_all_three_killed_at_once(kept: Running) -> None:
    session = kept.session_pid("ada") or kept.start_session("ada")
    before = kept.pids()
    for part in PARTS:
        kept.site.kill(part)
    until(lambda: not set(kept.pids().values()) & set(before.values()), 90, "three others")
    assert until(lambda: kept.session_pid("ada"), 90, "the session's route is there") == session


def test_a_second_up_is_refused_and_names_the_first(kept: Running) -> None:
    data, port = str(kept.site.data), str(kept.site.port)
    before = kept.pids()
    for arguments in (("--port", port), ("--port", "0")):
        second = run_up("--data", data, *arguments)
        assert second.returncode == 2
        assert f"already runs on {data} (pid {kept.supervisor.pid})" in second.stdout
        assert len(second.stdout.splitlines()) == 1
    assert kept.pids() == before


def test_the_next_supervisor_adopts_what_a_killed_one_left(running: Running) -> None:
    running.up()
    session = running.start_session("ada")
    before = running.pids()
    running.kill_supervisor()
    assert running.session_pid("ada") == session
    running.up()
    assert running.pids() == before
    assert running.session_pid("ada") == session
    assert "Already running and taken over: proxy" in running.said()
    # Adopted ones are watched like children.
    killed = running.site.kill("hub")
    until(lambda: running.site.pid("hub") != killed and running.answers("/hub/login"), 90, "another hub")
    running.interrupt()
    assert running.wait() == 0
    assert not alive(session)
    assert running.site.leftovers() == []


def test_a_part_that_died_without_a_supervisor_is_started_anew(running: Running) -> None:
    running.up()
    before = running.pids()
    running.kill_supervisor()
    running.site.kill("service")
    running.up()
    after = running.pids()
    assert after["service"] != before["service"]
    assert (after["proxy"], after["hub"]) == (before["proxy"], before["hub"])


def test_a_process_without_a_record_is_found_and_replaced(running: Running) -> None:
    """A supervisor that is killed right after starting a process has not written it down."""
    running.up()
    before = running.pids()
    running.kill_supervisor()
    (running.site.data / "run" / "hub.json").unlink()
    running.up()
    assert not alive(before["hub"])
    assert running.pids()["proxy"] == before["proxy"]


def test_a_reused_pid_is_not_taken_for_ours(running: Running) -> None:
    running.up()
    running.kill_supervisor()
    record = running.site.data / "run" / "service.json"
    pid = running.site.kill("service")
    record.write_text(record.read_text().replace(f'"pid": {pid}', f'"pid": {os.getpid()}'))
    running.up()
    assert running.site.pid("service") not in {pid, os.getpid()}


def test_with_other_settings_a_leftover_is_replaced(running: Running) -> None:
    """New secrets: parts that know the old ones would not understand each other."""
    running.up()
    before = running.pids()
    running.kill_supervisor()
    (running.site.data / "secrets.json").unlink()
    running.up()
    assert not set(running.pids().values()) & set(before.values())
    assert not any(alive(pid) for pid in before.values())


def test_the_end_of_the_terminal_ends_nothing(running: Running) -> None:
    running.up()
    running.supervisor.send_signal(signal.SIGHUP)
    killed = running.site.kill("service")
    until(lambda: running.site.pid("service") != killed, 90, "still watched")
    assert running.supervisor.poll() is None
