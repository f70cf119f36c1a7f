"""A process is known by boot, pid and start time, so that a reused pid is never mistaken for it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from jupyterhub_bkai.fences import proctable
from jupyterhub_bkai.fences.process import Identity, ProcessFence, boot_id, process_identity


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def identity(pid: int) -> Identity:
    found = process_identity(pid)
    assert found
    return found


def test_of_a_running_process(sleeper: subprocess.Popen[bytes]) -> None:
    who = identity(sleeper.pid)
    assert (who.boot_id, who.pid) == (boot_id(), sleeper.pid)
    assert who.alive()
    assert who.signal(signal.SIGTERM)
    assert sleeper.wait() == -signal.SIGTERM
    assert not who.alive()
    assert not who.signal(signal.SIGTERM)
    assert process_identity(sleeper.pid) is None


@pytest.mark.parametrize("other", [{"start_time": 1}, {"boot_id": "an earlier boot"}])
def test_the_next_owner_of_a_pid_is_left_alone(
    sleeper: subprocess.Popen[bytes], other: dict[str, str]
) -> None:
    stranger = identity(sleeper.pid)._replace(**other)  # type: ignore[arg-type]  # one of two fields
    assert not stranger.alive()
    assert not stranger.signal(signal.SIGKILL)
    assert sleeper.poll() is None


def test_zombies_are_not_alive() -> None:
    process = subprocess.Popen(["true"])
    deadline = time.monotonic() + 5
    while (facts := proctable.stat(process.pid)) and facts.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert facts is not None
    assert not facts.alive
    assert process_identity(process.pid) is None
    process.wait()
    assert proctable.stat(process.pid) is None


def test_a_program_may_have_any_name(tmp_path: os.PathLike[str]) -> None:
    program = os.path.join(tmp_path, "a) Z 1 (")
    os.symlink("/bin/sleep", program)
    process = subprocess.Popen([program, "300"])
    try:
        facts = proctable.stat(process.pid)
        assert facts is not None
        assert facts.parent == os.getpid()
        assert facts.alive
    finally:
        process.kill()
        process.wait()


def test_a_look_at_five_hundred_processes_is_cheap() -> None:
    """One look has to fit many times into a second, also on a busy machine."""
    shells = [
        subprocess.Popen(
            ["sh", "-c", "for i in $(seq 50); do sleep 300 & done; wait"],
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "BKAI_LEASE_ID": f"measure{number}"},
        )
        for number in range(10)
    ]
    fence = ProcessFence.of_this_machine()
    try:
        deadline = time.monotonic() + 20
        while sum(map(len, fence.survey().values())) < 510 and time.monotonic() < deadline:
            time.sleep(0.05)
        begun = time.process_time()
        survey = fence.survey()
        spent = time.process_time() - begun
        print(f"{len(list(proctable.pids()))} processes: {spent * 1000:.1f} ms")
        assert sum(len(found) for lease, found in survey.items() if lease.startswith("measure")) == 510
        assert spent < 0.25
    finally:
        for number, shell in enumerate(shells):
            assert fence.end(f"measure{number}", 0)
            shell.wait()
