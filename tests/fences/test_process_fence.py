"""What carries a lease is found and ended, however it tries to get away; nothing else is touched."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_bkai.fences import private
from jupyterhub_bkai.fences.process import MARKER, ProcessFence, process_identity
from tests.fences.conftest import Launch

SLEEP = "import time; print('up', flush=True); time.sleep(300)"

NOHUP = """
import os, time, signal
if os.fork() == 0:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    print('up', flush=True); time.sleep(300)
time.sleep(300)
"""

# The classical daemon: its parent ends at once, so it is nobody's child.
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print('up', flush=True); time.sleep(300)
    os._exit(0)
os.wait()
"""

SCRUBBED_CHILD = """
import os, time
if os.fork() == 0:
    os.execve('/bin/sh', ['sh', '-c', 'echo up; exec sleep 300'], {})
time.sleep(300)
"""

SCRUBBED_DAEMON = """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve('/bin/sh', ['sh', '-c', 'echo $$; exec sleep 300'], {})
    os._exit(0)
os.wait()
"""

DEAF = "import signal; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]\n" + SLEEP

# A dozen processes of which each replaces itself fifty times a second; never more, and not for ever.
STORM = """
import os, signal, time
for number in (signal.SIGCHLD, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
end = time.monotonic() + 10
for _ in range(12):
    if os.fork() == 0:
        while time.monotonic() < end:
            time.sleep(0.02)
            if os.fork():
                os._exit(0)
        os._exit(0)
print('up', flush=True)
while time.monotonic() < end:
    time.sleep(0.1)
"""

# The first thread is gone, which the process table shows as a zombie, but another still works.
HEADLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
print('up', flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def up(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    assert process.stdout.readline() == b"up\n"


def test_nothing_is_alive_of_a_lease_that_never_ran(fence: ProcessFence, lease_id: str) -> None:
    assert fence.alive(lease_id) == []
    assert lease_id not in fence.survey()
    assert fence.end(lease_id, 1)


@pytest.mark.parametrize(
    "code",
    [SLEEP, NOHUP, DAEMON, SCRUBBED_CHILD, DEAF, HEADLESS],
    ids=["plain", "nohup", "daemon", "scrubbed-child", "deaf", "headless"],
)
def test_found_and_ended(
    fence: ProcessFence, lease_id: str, launch: Launch, bystander: subprocess.Popen[bytes], code: str
) -> None:
    process = launch(code)
    up(process)
    alive = fence.alive(lease_id)
    assert alive
    surveyed = set(fence.survey()[lease_id])  # one that only started another may have ended by now
    assert surveyed
    assert surveyed <= set(alive)
    assert fence.end(lease_id, 0.3)
    assert fence.alive(lease_id) == []
    # Not yet buried is dead as well.
    assert not any(identity.alive() for pid in alive if (identity := process_identity(pid)))
    assert lease_id not in fence.survey()


def test_a_daemon_that_emptied_its_environment_is_found_by_its_cgroup(
    fence: ProcessFence, lease_id: str, launch: Launch
) -> None:
    process = launch(SCRUBBED_DAEMON)
    assert process.stdout
    daemon = int(process.stdout.readline())
    process.wait()
    if fence.groups is None:
        # The stated limit: no ancestor, no environment. (A keeper beside the session would be its ancestor.)
        assert fence.alive(lease_id) == []
        os.kill(daemon, signal.SIGKILL)
        return
    assert fence.alive(lease_id) == [daemon]
    assert fence.end(lease_id, 0)
    assert process_identity(daemon) is None


@pytest.fixture
def forger(fence: ProcessFence, lease_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in another lease's cgroup, which says that it carries this one; it must live on."""
    if fence.groups is None:
        pytest.skip("no cgroup in this variant")
    other = f"{lease_id}-other"
    fence.groups.create(other)
    process = subprocess.Popen(
        ["sh", "-c", "read _; sleep 300 & echo up; wait"],
        env={MARKER: lease_id, "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    fence.groups.enter(other, process.pid)
    assert process.stdin
    assert process.stdout
    with process.stdin, process.stdout:
        process.stdin.write(b"\n")
        process.stdin.flush()
        up(process)
        yield process
        assert len(fence.alive(other)) == 2, "the fence touched a process of another lease"
        assert fence.end(other, 0)
        process.wait()


def test_a_mark_in_another_leases_cgroup_is_not_believed(
    fence: ProcessFence, lease_id: str, launch: Launch, forger: subprocess.Popen[bytes]
) -> None:
    """Otherwise any session could keep any other's slices from ever being free."""
    assert fence.alive(lease_id) == []
    assert lease_id not in fence.survey()
    process = launch(DAEMON)
    up(process)
    process.wait()
    assert forger.pid not in fence.alive(lease_id)
    assert len(fence.alive(lease_id)) == 1
    assert len(fence.survey()[lease_id]) == 1
    assert fence.end(lease_id, 0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of others")
def test_a_mark_of_another_user_is_not_believed(
    lease_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no cgroups; who the lease is for says the owner of its private folder."""
    monkeypatch.setattr(private, "parent", lambda: str(tmp_path / "leases"))
    private.make(lease_id, (12345, 12345))
    started = {
        user: subprocess.Popen(["sleep", "300"], env={MARKER: lease_id}, user=user, start_new_session=True)
        for user in (0, 12345, 12346)
    }
    fence = ProcessFence(None)
    try:
        assert fence.alive(lease_id) == sorted([started[0].pid, started[12345].pid])
        assert fence.survey()[lease_id] == fence.alive(lease_id)
        assert fence.end(lease_id, 0.1)
        assert started[12346].poll() is None
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def test_a_fork_storm_is_ended(
    fence: ProcessFence, lease_id: str, launch: Launch, bystander: subprocess.Popen[bytes]
) -> None:
    process = launch(STORM)
    up(process)
    begun = time.monotonic()
    assert fence.end(lease_id, 0.1)
    assert time.monotonic() - begun < 8
    assert fence.alive(lease_id) == []


def test_one_that_always_is_another_is_always_seen(
    fence: ProcessFence, lease_id: str, launch: Launch
) -> None:
    """A proof must not come from having looked at the wrong moment."""
    process = launch(
        STORM.replace("range(80)", "range(1)").replace(
            "while time.monotonic() < end:\n    time.sleep(0.1)", ""
        )
    )
    up(process)
    process.wait()
    assert all(fence.alive(lease_id) for _ in range(40))


def test_one_that_listens_ends_within_the_grace_and_unkilled(
    fence: ProcessFence, lease_id: str, launch: Launch
) -> None:
    process = launch(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), sys.exit(7)))\n" + SLEEP
    )
    up(process)
    begun = time.monotonic()
    assert fence.end(lease_id, 5)
    assert time.monotonic() - begun < 9
    assert process.wait() == 7


def test_stopped_processes_are_ended(fence: ProcessFence, lease_id: str, launch: Launch) -> None:
    process = launch(SLEEP)
    up(process)
    process.send_signal(signal.SIGSTOP)
    assert fence.end(lease_id, 0.1)


def test_a_zombie_is_not_alive(fence: ProcessFence, lease_id: str, launch: Launch) -> None:
    process = launch("print('up', flush=True)")
    up(process)
    deadline = time.monotonic() + 10
    while process_identity(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{process.pid}")
    assert fence.alive(lease_id) == []


def test_a_cgroup_goes_with_its_lease(fence: ProcessFence, lease_id: str, launch: Launch) -> None:
    if fence.groups is None:
        pytest.skip("no cgroup in this variant")
    up(launch(SLEEP))
    nested = os.path.join(fence.groups.path(lease_id), "made-by-the-session")
    os.mkdir(nested)
    assert fence.end(lease_id, 0)
    assert not os.path.exists(fence.groups.path(lease_id))
    assert all(not os.path.exists(os.path.join(root, "bkai", lease_id)) for root in fence.groups.others)


def test_a_lease_that_is_started_again_may_fork_again(
    fence: ProcessFence, lease_id: str, launch: Launch
) -> None:
    up(launch(SLEEP))
    assert fence.end(lease_id, 0, tidy=False)
    if fence.groups:
        fence.groups.create(lease_id)
    up(launch(NOHUP))
    assert fence.alive(lease_id)


@pytest.mark.parametrize("evil", ["../..", "", ".", "a/b", "-x", "a" * 65, "a\n", "é"])
def test_a_lease_id_never_becomes_a_path(fence: ProcessFence, evil: str) -> None:
    if fence.groups is None:
        pytest.skip("no cgroup in this variant")
    with pytest.raises(ValueError, match="not the id of a lease"):
        fence.groups.path(evil)


def test_the_one_who_asks_is_never_ended(fence: ProcessFence, lease_id: str, launch: Launch) -> None:
    """Somebody may start a hub of their own inside a session; its fence must not end itself."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    process = launch(
        f"import sys; sys.path.insert(0, {root!r})\n"
        "from jupyterhub_bkai.fences.process import ProcessFence\n"
        f"print(ProcessFence(None).alive({lease_id!r}), flush=True)\n" + SLEEP
    )
    assert process.stdout
    assert process.stdout.readline() == b"[]\n"
