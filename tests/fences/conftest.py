"""Fixtures of the fence tests, by purpose.

Leases
    lease_id         a fresh id
    fence            the process fence, once for every kind of proof this machine allows
Processes
    launch           a function: start a program that carries the lease, as a session does
    bystander        a process that carries another lease, whose id begins the same; it must live on
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from jupyterhub_bkai import names
from jupyterhub_bkai.fences import cgroups
from jupyterhub_bkai.fences.process import MARKER, ProcessFence

UNIFIED = "/sys/fs/cgroup/unified"

Launch = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def lease_id() -> str:
    return names.lease_id(int(time.time() * 1000), secrets.token_bytes(10))


@pytest.fixture(params=["marker", "cgroup-v1", "cgroup-v2", "cgroup-v2-without-kill-switch"])
def fence(
    request: pytest.FixtureRequest, lease_id: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProcessFence]:
    groups = None
    kind: str = request.param
    if kind != "marker":
        groups = _groups(version=int(kind[8]))
        groups.create(lease_id)
    if kind.endswith("without-kill-switch"):  # kernels before 5.14
        monkeypatch.setattr(cgroups, "KILL_SWITCH", "absent")
    fence = ProcessFence(groups)
    yield fence
    assert fence.end(lease_id, 0)


def _groups(version: int) -> cgroups.Cgroups:
    found = cgroups.find()
    if found and found.version == version:
        return found
    if version == 2 and os.access(f"{UNIFIED}/cgroup.procs", os.W_OK):
        return cgroups.Cgroups(UNIFIED, version=2)  # machines that have both
    pytest.skip(f"no writable cgroup hierarchy of version {version} here")


@pytest.fixture
def launch(fence: ProcessFence, lease_id: str) -> Iterator[Launch]:
    started = []

    def start(code: str, *, scrubbed: bool = False) -> subprocess.Popen[bytes]:
        """Run Python `code`; it is in its cgroup before its first line, as a session is."""
        environment = {"PATH": os.environ["PATH"]} | ({} if scrubbed else {MARKER: lease_id})
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", f"import sys; sys.stdin.read(1)\n{code}"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        if fence.groups:
            fence.groups.enter(lease_id, process.pid)
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
        return process

    yield start
    fence.end(lease_id, 0)
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def bystander(lease_id: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["sleep", "300"], env={MARKER: f"{lease_id}x", "OTHER": f"{MARKER}={lease_id}"}
    )
    yield process
    assert process.poll() is None, "the fence touched a process of another lease"
    process.kill()
    process.wait()
