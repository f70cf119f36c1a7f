"""A process is known by boot, pid and start time, so that a reused pid is never mistaken for it."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
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


# Needs no right at all: its "environment" is a mapping of 512 MiB that costs it nothing, and ends in a mark.
BLOATED = """
import ctypes, os, struct, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.sbrk.restype = ctypes.c_void_p
fields = [0, 0, 0] + open("/proc/self/stat").read().rsplit(")", 1)[1].split()
code, end_code, stack = map(int, fields[26:29])
data, end_data, brk, arguments, end_arguments = map(int, fields[45:50])
size = 512 << 20
place = libc.mmap(None, size, 1, 0x4022, -1, 0)
numbers = code, end_code, data, end_data, brk, libc.sbrk(0), stack, arguments, end_arguments, place, place + size
wanted = struct.pack("11QQIi", *numbers, 0, 0, -1)
libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
print(libc.prctl(35, 14, ctypes.cast(ctypes.create_string_buffer(wanted), ctypes.c_void_p), len(wanted), 0), flush=True)
time.sleep(300)
"""


def test_an_environment_without_end_is_read_in_pieces_and_not_to_its_end() -> None:
    process = subprocess.Popen([sys.executable, "-I", "-c", BLOATED], stdout=subprocess.PIPE)
    assert process.stdout
    try:
        if process.stdout.readline() != b"0\n":
            pytest.skip("this kernel lets no process say where its environment is")
        assert len(proctable.read(f"/proc/{process.pid}/environ")) == proctable.MOST
        tracemalloc.start()
        ProcessFence(None).survey()
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("before", [0, 1, *range(proctable.PIECE - 24, proctable.PIECE + 1, 4), 100_000])
def test_a_variable_is_found_wherever_it_stands(before: int) -> None:
    filling = {"A": "x" * max(0, before - 3)} if before else {}
    environment = {**filling, "NOT_MARK": "no", "MARK": "yes", "LAST": ""}
    process = subprocess.Popen(["sleep", "300"], env=environment)
    try:
        facts = proctable.stat(process.pid)
        assert facts
        deadline = time.monotonic() + 10
        while proctable.variable(process.pid, facts, b"MARK") is None and time.monotonic() < deadline:
            time.sleep(0.01)  # one that is just starting shows no environment
        assert proctable.variable(process.pid, facts, b"MARK") == b"yes"
        assert proctable.variable(process.pid, facts, b"LAST") == b""
        assert proctable.variable(process.pid, facts, b"ARK") == b""
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
