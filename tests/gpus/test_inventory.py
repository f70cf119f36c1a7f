"""The inventory: what changed between two looks, sources that fail, and this machine's true size."""

import os
from pathlib import Path

import psutil
import pytest

from jupyterhub_bkai.gpus.fake import FakeSource
from jupyterhub_bkai.gpus.inventory import Changes, Inventory, this_machine
from jupyterhub_bkai.gpus.source import Source, SourceOptions, SourceProblem
from jupyterhub_bkai.model import Device, Node

HERE = Node("local", 2000, 4096)
TWO = '[[devices]]\nmodel = "Card"\nmemory_mib = 8192\nsms = 24\ncount = 2\n'


class Stuck(Source):
    """A source of somebody else's, with a bug: it fails in ways that nobody has written a sentence for."""

    name = "stuck"

    def __init__(self) -> None:
        self.failing = False

    def devices(self) -> list[Device]:
        if self.failing:
            raise ZeroDivisionError
        return [Device("stuck-0", "local", 0, "npu", "NPU", 1024, 1, healthy=False)]

    def health(self, device: Device) -> None:  # type: ignore[override]  # the bug
        raise KeyError(device.id)


def of_file(tmp_path: Path, text: str = TWO) -> tuple[Path, Inventory]:
    path = tmp_path / "own.toml"
    path.write_text(text)
    source = FakeSource(SourceOptions(argument="own.toml", folder=tmp_path))
    return path, Inventory([source], node=HERE)


def test_the_first_look_makes_everything_appear(tmp_path: Path) -> None:
    _, inventory = of_file(tmp_path)
    assert inventory.nodes == (HERE,)
    changes = inventory.refresh()
    assert changes == Changes(appeared=tuple(inventory.devices.values()))
    assert [device.id for device in changes.appeared] == ["fake-local-cuda-0", "fake-local-cuda-1"]
    assert [(node.name, node.cpu_milli, len(node.devices)) for node in inventory.nodes] == [
        ("local", 2000, 2)
    ]
    assert inventory.fake
    assert not inventory.refresh()


def test_what_was_given_out_before_does_not_change(tmp_path: Path) -> None:
    path, inventory = of_file(tmp_path)
    inventory.refresh()
    nodes, devices = inventory.nodes, inventory.devices
    path.write_text(TWO + '[faults]\nvanished = ["fake-local-cuda-0"]\n')
    changes = inventory.refresh()
    assert [device.id for device in changes.vanished] == ["fake-local-cuda-0"]
    assert len(nodes[0].devices) == len(devices) == 2
    assert len(inventory.nodes[0].devices) == len(inventory.devices) == 1


def test_illness_comes_with_its_sentence_once(tmp_path: Path) -> None:
    path, inventory = of_file(tmp_path)
    inventory.refresh()
    path.write_text(TWO + '[faults.unhealthy]\nfake-local-cuda-1 = "It is too hot."\n')
    changes = inventory.refresh()
    assert [(illness.device.id, illness.why) for illness in changes.unhealthy] == [
        ("fake-local-cuda-1", "It is too hot.")
    ]
    assert inventory.illnesses == {"fake-local-cuda-1": "It is too hot."}
    assert not inventory.refresh()
    path.write_text(TWO)
    assert [device.id for device in inventory.refresh().recovered] == ["fake-local-cuda-1"]
    assert inventory.illnesses == {}


def test_a_failing_source_loses_no_device(tmp_path: Path) -> None:
    path, inventory = of_file(tmp_path)
    inventory.refresh()
    path.write_text(TWO + "[faults]\nfailing = 'The driver has gone.'\n")
    changes = inventory.refresh()
    assert changes.vanished == ()
    assert {illness.device.id: illness.why for illness in changes.unhealthy} == {
        "fake-local-cuda-0": "The driver has gone.",
        "fake-local-cuda-1": "The driver has gone.",
    }
    assert changes.complaints == ("The driver has gone.",)
    assert list(inventory.complaints) == ["The driver has gone."]
    assert not any(device.healthy for device in inventory.nodes[0].devices)
    assert not inventory.refresh()
    path.write_text(TWO)
    changes = inventory.refresh()
    assert len(changes.recovered) == 2
    assert changes.complained
    assert list(inventory.complaints) == []


def test_a_source_that_never_answered_is_a_complaint_alone(tmp_path: Path) -> None:
    path, inventory = of_file(tmp_path)
    path.write_text("no more TOML")
    changes = inventory.refresh()
    assert changes
    assert inventory.devices == {}
    assert "The file of fake devices is wrong" in inventory.complaints[0]


def test_a_source_with_a_bug_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    fake = FakeSource(SourceOptions())
    inventory = Inventory([stuck, fake], node=HERE)
    inventory.refresh()
    assert inventory.illnesses == {"stuck-0": "NPU 0 does not work."}
    stuck.failing = True
    inventory.refresh()
    assert list(inventory.devices) == ["stuck-0", "fake-local-cuda-0", "fake-local-cuda-1"]
    assert inventory.complaints == ("The device source “stuck” failed: the service's log says how.",)
    assert "ZeroDivisionError" in caplog.text
    assert "device source stuck failed" in caplog.text


def test_what_a_source_had_to_leave_out_is_told() -> None:
    class Partial(FakeSource):
        @property
        def complaints(self) -> tuple[str, ...]:
            return ("The NPU 3 does not answer.",)

    inventory = Inventory([Partial(SourceOptions())], node=HERE)
    changes = inventory.refresh()
    assert len(changes.appeared) == 2
    assert changes.complained
    assert list(inventory.complaints) == ["The NPU 3 does not answer."]


def test_one_id_is_one_device() -> None:
    inventory = Inventory(
        [FakeSource(SourceOptions()), FakeSource(SourceOptions(argument="one-8gb"))], node=HERE
    )
    changes = inventory.refresh()
    assert [device.model for device in changes.appeared] == ["NVIDIA H100 80GB HBM3"] * 2
    assert changes.complaints == ("Two devices say they are “fake-local-cuda-0”: the first one counts.",)


def test_a_device_of_an_unknown_node_is_left_out() -> None:
    inventory = Inventory([FakeSource(SourceOptions(node="elsewhere"))], node=HERE)
    inventory.refresh()
    assert inventory.devices == {}
    assert "nothing is known of its node “elsewhere”" in inventory.complaints[0]


def test_invented_nodes_come_after_this_machine(tmp_path: Path) -> None:
    node = '[[nodes]]\nname = "gpu-2"\ncpu = 64\nmemory_mib = 1024\n' + TWO.replace(
        "devices", "nodes.devices"
    )
    path, inventory = of_file(tmp_path, TWO + node)
    assert inventory.refresh().resized == ("gpu-2",)
    assert [(node.name, node.cpu_milli, len(node.devices)) for node in inventory.nodes] == [
        ("local", 2000, 2),
        ("gpu-2", 64000, 2),
    ]
    path.write_text(TWO + node.replace("64", "32"))
    assert inventory.refresh() == Changes(resized=("gpu-2",))
    path.write_text(TWO)
    changes = inventory.refresh()
    assert changes.resized == ("gpu-2",)
    assert len(changes.vanished) == 2


def test_a_switched_mig_mode_is_an_alteration(tmp_path: Path) -> None:
    mig = '[[mig.m]]\nname = "1g"\nsize = 1\nplacements = [0]\nmemory_mib = 1024\nsms = 3\n'
    path, inventory = of_file(tmp_path, TWO)
    inventory.refresh()
    path.write_text(TWO + 'mig = "m"\n' + mig)
    changes = inventory.refresh()
    assert [bool(device.mig) for device in changes.altered] == [True, True]
    assert (changes.appeared, changes.vanished, changes.unhealthy) == ((), (), ())


def test_facts_of_a_source_that_fails() -> None:
    class Mute(Stuck):
        name = "mute"

        def facts(self) -> dict[str, str]:
            raise SourceProblem("Nothing is known.", reason="mute")

    inventory = Inventory([FakeSource(SourceOptions()), Mute()], node=HERE)
    assert inventory.facts() == {"fake devices": "two-80gb", "mute": "Nothing is known."}


# -- this machine ------------------------------------------------------------------------------


def test_this_machine_is_no_larger_than_it_is() -> None:
    node = this_machine()
    assert 0 < node.cpu_milli <= len(os.sched_getaffinity(0)) * 1000
    assert 0 < node.memory_mib <= psutil.virtual_memory().total // 2**20
    assert node.devices == ()


def machine_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal:  16384000 kB\nMemFree: 1 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cpu_milli", "memory_mib"),
    [
        ({}, None, 16000),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}, None, 16000),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 500, 1024),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
            16000,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "25000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
            },
            250,
            512,
        ),
    ],
)
def test_a_containers_limits_count(
    tmp_path: Path, files: dict[str, str], cpu_milli: int | None, memory_mib: int
) -> None:
    node = this_machine("n", root=machine_tree(tmp_path, files))
    assert node == Node("n", cpu_milli or len(os.sched_getaffinity(0)) * 1000, memory_mib)
