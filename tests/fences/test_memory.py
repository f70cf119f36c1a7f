"""What a lease's processes took at most is measured, whichever way this machine allows."""

import os
import time
from pathlib import Path

import pytest

from jupyterhub_bkai.fences.memory import MemoryGauge
from jupyterhub_bkai.fences.process import ProcessFence
from tests.fences.conftest import Launch

MIB = 1024
#: takes 64 MiB, gives them back, and goes on with next to nothing; a child keeps 32
PEAK = """
import os, time
block = bytearray(64 << 20)
print('up', flush=True)
input()
del block
print('less', flush=True)
if os.fork() == 0:
    block = bytearray(b'x') * (32 << 20)
    os.write(1, b'child\\n')
    time.sleep(300)
time.sleep(300)
"""


@pytest.fixture
def gauge(fence: ProcessFence) -> MemoryGauge:
    return MemoryGauge(fence)


def counted(fence: ProcessFence, lease_id: str) -> bool:
    """Whether the kernel keeps the peak here."""
    names = ("memory.max_usage_in_bytes", "memory.peak")
    folders = fence.groups.paths(lease_id) if fence.groups else []
    return any(os.path.exists(os.path.join(folder, name)) for folder in folders for name in names)


def test_the_peak_is_kept(gauge: MemoryGauge, fence: ProcessFence, launch: Launch, lease_id: str) -> None:
    assert gauge.peak_kib(lease_id) is None or counted(fence, lease_id)
    process = launch(PEAK)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == b"up\n"
    gauge.look([lease_id])
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert {process.stdout.readline(), process.stdout.readline()} == {b"less\n", b"child\n"}
    gauge.look([lease_id])
    fence.end(lease_id, 0, tidy=False)
    peak = gauge.peak_kib(lease_id)
    assert peak is not None
    assert 64 * MIB < peak < 90 * MIB


def test_what_the_kernel_counted_outlives_the_processes_but_not_the_fence(
    gauge: MemoryGauge, fence: ProcessFence, launch: Launch, lease_id: str
) -> None:
    process = launch("print('up', flush=True)")
    if not counted(fence, lease_id):
        pytest.skip("the kernel keeps no peak here")
    process.wait()
    assert fence.end(lease_id, 0, tidy=False)
    assert gauge.peak_kib(lease_id)
    assert fence.end(lease_id, 0)
    assert gauge.peak_kib(lease_id) is None
    assert fence.groups
    assert not any(map(os.path.exists, fence.groups.paths(lease_id)))


def test_children_count_and_strangers_do_not(launch: Launch, lease_id: str) -> None:
    """Without cgroups, by looks."""
    fence = ProcessFence(None)
    gauge = MemoryGauge(fence)
    gauge.look([lease_id, "0" * 26])
    assert gauge.peak_kib(lease_id) is None
    process = launch(PEAK)
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert [process.stdout.readline() for _ in range(3)][-1] == b"child\n"
    gauge.look([lease_id, "0" * 26])
    peak = gauge.peak_kib(lease_id)
    assert peak is not None
    assert 32 * MIB < peak < 64 * MIB  # the parent's 64 MiB were given back before the look
    assert gauge.peak_kib("0" * 26) is None
    gauge.look(["0" * 26])
    assert gauge.peak_kib(lease_id) is None  # nobody asks for it any more


@pytest.mark.parametrize("text", ["", "max\n"])
def test_a_counter_that_cannot_be_read_is_none(fence: ProcessFence, text: str, tmp_path: Path) -> None:
    if fence.groups is None:
        pytest.skip("no cgroups here")
    before = time.monotonic()
    (tmp_path / "bkai" / "L1").mkdir(parents=True)
    (tmp_path / "bkai" / "L1" / "memory.peak").write_text(text)
    fence.groups.others = (str(tmp_path),)
    assert MemoryGauge(fence).peak_kib("L1") is None
    assert time.monotonic() - before < 20
