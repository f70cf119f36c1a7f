"""NVIDIA's devices over a mock of NVIDIA's library: what is told is read, and trouble becomes sentences."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.gpus.conftest import ROOT, MockNvml
from tests.gpus.machines import a30, h200, l4, machine

LOOK = """
devices = source.devices()
say({"devices": devices, "complaints": source.complaints, "references": references()})
"""
TROUBLE = """
try:
    source.devices()
except SourceProblem as problem:
    say({"reason": problem.reason, "message": problem.message, "references": references()})
"""


def test_whole_devices(mock_nvml: MockNvml) -> None:
    """SMs of a whole card come from its cores; the driver's own memory is held back."""
    told = mock_nvml.run(machine(h200("GPU-a"), l4("GPU-b")), LOOK)
    assert told["devices"] == [
        {
            "id": "GPU-a",
            "node": "gpu-1",
            "index": 0,
            "slot": "cuda",
            "model": "NVIDIA H200",
            "memory_mib": 143771,
            "sms": 132,
            "reserve_mib": 619,
            "numa": 1,
            "mig": [],
            "divisible": True,
            "healthy": True,
            "fake": False,
        },
        {
            "id": "GPU-b",
            "node": "gpu-1",
            "index": 1,
            "slot": "cuda",
            "model": "NVIDIA L4",
            "memory_mib": 23034,
            "sms": 58,
            "reserve_mib": 460,
            "numa": None,
            "mig": [],
            "divisible": True,
            "healthy": True,
            "fake": False,
        },
    ]
    assert told["complaints"] == []
    assert told["references"] == 0


def test_the_administrators_reserve_wins(mock_nvml: MockNvml) -> None:
    code = """
    say([NvidiaSource(SourceOptions(reserve_mib=mib)).devices()[0].reserve_mib for mib in (0, 1024, 10**9)])
    """
    assert mock_nvml.run(machine(l4("GPU-a")), code) == [0, 1024, 23034]


def test_mig_geometry_is_each_cards_own(mock_nvml: MockNvml) -> None:
    """Ids of profiles mean different things on different cards (14 is 2g.35gb on one, 1g.6gb on the other)."""
    told = mock_nvml.run(machine(h200("GPU-a", mig=True), a30("GPU-b")), LOOK)
    shown = [
        [(p["name"], p["size"], p["placements"], p["memory_mib"], p["sm_milli"]) for p in device["mig"]]
        for device in told["devices"]
    ]
    assert shown == [
        [
            ("1g.18gb", 1, [0, 1, 2, 3, 4, 5, 6], 16384, 16000),
            ("1g.35gb", 2, [0, 2, 4, 6], 33280, 26000),
            ("2g.35gb", 2, [0, 2, 4], 33280, 32000),
            ("3g.71gb", 4, [0, 4], 71424, 60000),
            ("4g.71gb", 4, [0], 71424, 64000),
            ("7g.141gb", 8, [0], 143360, 132000),
        ],
        [
            ("1g.6gb", 1, [0, 1, 2, 3], 5952, 14000),
            ("2g.12gb", 2, [0, 2], 11968, 28000),
            ("4g.24gb", 4, [0], 24064, 56000),
        ],
    ]
    assert [device["sms"] for device in told["devices"]] == [132, 56]


INSTANCES = ("instance 3 9 4 0 MIG-x", "instance 9 19 0 0 MIG-y")


def test_mig_devices_that_exist(mock_nvml: MockNvml) -> None:
    told = mock_nvml.run(
        machine(h200("GPU-a", *INSTANCES, mig=True), l4("GPU-b")),
        "say([source.instances(device) for device in source.devices()])",
    )
    assert told == [
        [
            {
                "device": "GPU-a",
                "uuid": "MIG-x",
                "profile": "3g.71gb",
                "memory_mib": 71424,
                "sm_milli": 60000,
                "start": 4,
                "size": 4,
            },
            {
                "device": "GPU-a",
                "uuid": "MIG-y",
                "profile": "1g.18gb",
                "memory_mib": 16384,
                "sm_milli": 16000,
                "start": 0,
                "size": 1,
            },
        ],
        [],
    ]


def test_without_root_the_place_of_a_mig_device_is_not_told(mock_nvml: MockNvml) -> None:
    told = mock_nvml.run(
        machine(h200("GPU-a", *INSTANCES, "fault nvmlDeviceGetGpuInstanceById 4", mig=True)),
        "say(source.instances(source.devices()[0]))",
    )
    assert [(one["profile"], one["start"], one["size"]) for one in told] == [
        ("3g.71gb", None, None),
        ("1g.18gb", None, None),
    ]


def test_without_root_a_card_in_mig_mode_has_the_memory_of_its_profiles(mock_nvml: MockNvml) -> None:
    faults = ("fault nvmlDeviceGetMemoryInfo 4", "fault nvmlDeviceGetMemoryInfo_v2 4")
    told = mock_nvml.run(machine(h200("GPU-a", *faults, mig=True)), LOOK)
    assert [(one["memory_mib"], one["reserve_mib"]) for one in told["devices"]] == [(143360, 0)]


def test_processes_with_their_memory_and_mig_device(mock_nvml: MockNvml) -> None:
    cards = machine(
        h200("GPU-a", *INSTANCES, "process 4242 1024 3 0", "process 4243 -1 9 0", mig=True),
        l4("GPU-b", "process 77 300 -1 -1"),
        l4("GPU-c"),
    )
    told = mock_nvml.run(cards, "say([source.processes(device) for device in source.devices()])")
    assert told == [
        [
            {"pid": 4242, "memory_kib": 1024 * 1024, "instance": "MIG-x"},
            {"pid": 4243, "memory_kib": None, "instance": "MIG-y"},
        ],
        [{"pid": 77, "memory_kib": 300 * 1024, "instance": None}],
        [],
    ]


def test_versions(mock_nvml: MockNvml) -> None:
    told = mock_nvml.run(machine(), "say(source.facts())")
    assert told == {"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": "13.0"}


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (9, "driver-not-loaded", "driver is not running"),
        (18, "driver-mismatch", "restart the machine"),
        (4, "no-permission", "refuses this user"),
        (13, "driver-old", "535 or later"),
        (15, "gpu-lost", "fallen off the bus"),
        (999, "unknown", "nvidia-smi"),
        (12345, "unknown", "nvidia-smi"),
    ],
)
def test_a_library_that_does_not_open_is_a_sentence(
    mock_nvml: MockNvml, code: int, reason: str, words: str
) -> None:
    told = mock_nvml.run(machine(l4("GPU-a"), also=f"fault nvmlInitWithFlags {code}"), TROUBLE)
    assert told["reason"] == reason
    assert words in told["message"]
    assert told["message"].endswith(".")
    assert told["references"] == 0


@pytest.mark.parametrize("fault", ["nvmlDeviceGetCount_v2", "nvmlShutdown"])
def test_nothing_stays_open_when_a_look_breaks_off(mock_nvml: MockNvml, fault: str) -> None:
    """The library is closed on every way out. Where even closing fails (the driver has gone), it is left alone."""
    code = """
    try:
        outcome = len(source.devices())
    except SourceProblem as problem:
        outcome = problem.reason
    describe("")
    say([outcome, references()])
    """
    told = mock_nvml.run(machine(l4("GPU-a"), also=f"fault {fault} 999"), code)
    assert told == ([1, 1] if fault == "nvmlShutdown" else ["unknown", 0])


def test_nothing_stays_open_when_our_own_code_breaks_off(mock_nvml: MockNvml) -> None:
    code = """
    def interrupted(*_):
        raise KeyboardInterrupt

    pynvml.nvmlDeviceGetName = interrupted
    try:
        source.devices()
    except KeyboardInterrupt:
        say(references())
    """
    assert mock_nvml.run(machine(l4("GPU-a")), code) == 0


LOST_LATER = """
before = source.devices()
describe({later!r})
after = source.devices()
say({{"before": before, "after": after, "complaints": source.complaints, "references": references(),
     "health": [source.health(device) for device in before]}})
"""


@pytest.mark.parametrize(
    "fault", ["fault * 15", "fault nvmlDeviceGetName 15", "fault nvmlDeviceGetMemoryInfo_v2 999"]
)
def test_a_card_that_falls_ill_stays_in_the_list(mock_nvml: MockNvml, fault: str) -> None:
    """Also when it is so lost that it does not tell its UUID any more."""
    later = machine(l4("GPU-a"), l4("GPU-b", fault), h200("GPU-c"))
    told = mock_nvml.run(machine(l4("GPU-a"), l4("GPU-b"), h200("GPU-c")), LOST_LATER.format(later=later))
    assert told["after"] == [{**device, "healthy": device["id"] != "GPU-b"} for device in told["before"]]
    assert len(told["complaints"]) == 1
    assert told["references"] == 0


def test_a_lost_card_says_so(mock_nvml: MockNvml) -> None:
    later = machine(l4("GPU-a", "fault * 15"))
    told = mock_nvml.run(machine(l4("GPU-a")), LOST_LATER.format(later=later))
    assert told["health"] == [
        {
            "ok": False,
            "message": "NVIDIA L4 0 has fallen off the bus: restart the machine; if it happens again, have the card "
            "checked.",
        }
    ]


def test_a_card_that_was_never_known_is_a_complaint(mock_nvml: MockNvml) -> None:
    told = mock_nvml.run(machine(l4("GPU-a", "fault * 15"), l4("GPU-b")), LOOK)
    assert [device["id"] for device in told["devices"]] == ["GPU-b"]
    assert told["complaints"] == [
        "The NVIDIA GPU 0 has fallen off the bus: restart the machine; if it happens again, have the card checked."
    ]


def test_a_card_that_is_gone_is_gone(mock_nvml: MockNvml) -> None:
    """The others keep their identity though their index changes."""
    told = mock_nvml.run(machine(l4("GPU-a"), l4("GPU-b")), LOST_LATER.format(later=machine(l4("GPU-b"))))
    assert [(device["id"], device["index"]) for device in told["after"]] == [("GPU-b", 0)]
    assert told["health"][0] == {"ok": False, "message": "NVIDIA L4 0 is no longer there."}
    assert told["complaints"] == []


def test_a_card_that_falls_ill_and_moves_is_still_itself(mock_nvml: MockNvml) -> None:
    """Its UUID counts, not its place: there, another card was that has gone."""
    later = machine(l4("GPU-b", "fault nvmlDeviceGetName 15"))
    told = mock_nvml.run(machine(l4("GPU-a"), l4("GPU-b")), LOST_LATER.format(later=later))
    assert [(device["id"], device["index"], device["healthy"]) for device in told["after"]] == [
        ("GPU-b", 0, False)
    ]


@pytest.mark.parametrize(
    ("line", "ok", "words"),
    [
        ("recovery 1", False, "needs a reset"),
        ("recovery 2", False, "restarted"),
        ("recovery 4", False, "works in part"),
        ("recovery 99", False, "recovery action 99"),
        ("remapped 3 1 0 1", False, "replaced"),
        ("remapped 3 1 1 0", True, "set faulty memory aside"),
        ("mig 0 1", True, "switches MIG mode on"),
        ("fault nvmlDeviceGetFieldValues 13", True, ""),
        ("fault nvmlDeviceGetRemappedRows 3", True, ""),
    ],
)
def test_health_is_the_cards_own_word(mock_nvml: MockNvml, line: str, ok: bool, words: str) -> None:
    code = """
    device, = source.devices()
    say([device, source.health(device)])
    """
    device, health = mock_nvml.run(machine(h200("GPU-a", line)), code)
    assert device["healthy"] == ok
    assert health["ok"] == ok
    assert words in health["message"]


def test_mig_mode_without_profiles_is_not_an_undivided_card(mock_nvml: MockNvml) -> None:
    """A driver that hides the profiles must not make a cut card look like a whole one."""
    told = mock_nvml.run(
        machine(h200("GPU-a", "fault nvmlDeviceGetGpuInstanceProfileInfoV 13", mig=True)), LOOK
    )
    assert told["devices"] == []
    assert "MIG mode" in told["complaints"][0]


def test_a_gpu_without_memory_of_its_own_is_left_out(mock_nvml: MockNvml) -> None:
    faults = ("fault nvmlDeviceGetMemoryInfo 3", "fault nvmlDeviceGetMemoryInfo_v2 3")
    told = mock_nvml.run(machine(l4("GPU-a", *faults), l4("GPU-b")), LOOK)
    assert [device["id"] for device in told["devices"]] == ["GPU-b"]
    assert "shares the machine's" in told["complaints"][0]


def test_an_older_driver_tells_less(mock_nvml: MockNvml) -> None:
    """Version 1 of the memory query, no recovery action, no row remapping, no affinity: still a card."""
    missing = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetFieldValues", "nvmlDeviceGetRemappedRows")
    also = "\n".join(f"without {function}" for function in (*missing, "nvmlDeviceGetMemoryAffinity"))
    told = mock_nvml.run(machine(h200("GPU-a"), also=also), LOOK)
    device = told["devices"][0]
    assert (device["memory_mib"], device["reserve_mib"], device["numa"], device["healthy"]) == (
        143771,
        0,
        None,
        True,
    )


SELECT = """
selection = select("auto", SourceOptions())
inventory = Inventory(selection.sources, node=this_machine())
changes = inventory.refresh()
say({"sources": [source.name for source in selection.sources], "statement": selection.statement,
     "fake": selection.fake, "devices": list(inventory.devices), "complaints": inventory.complaints})
"""


def test_auto_takes_nvidia_where_there_are_devices(mock_nvml: MockNvml) -> None:
    told = mock_nvml.run(machine(l4("GPU-a")), SELECT)
    assert told["sources"] == ["nvidia"]
    assert told["devices"] == ["GPU-a"]
    assert not told["fake"]


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (machine(also="fault nvmlInitWithFlags 9"), "its driver is not running"),
        (machine(), "finds no GPU"),
    ],
)
def test_auto_without_devices_is_fake_and_says_so(mock_nvml: MockNvml, description: str, words: str) -> None:
    told = mock_nvml.run(description, SELECT)
    assert told["sources"] == ["fake"]
    assert told["fake"]
    assert words in told["statement"]
    assert "The devices shown are fake" in told["statement"]


def test_auto_does_not_hide_a_broken_driver_behind_fake_devices(mock_nvml: MockNvml) -> None:
    """After an update of the driver the machine's GPUs must not turn into invented ones."""
    told = mock_nvml.run(machine(l4("GPU-a"), also="fault nvmlInitWithFlags 18"), SELECT)
    assert told["sources"] == ["nvidia"]
    assert told["devices"] == []
    assert "restart the machine" in told["statement"]
    assert told["complaints"] == [told["statement"].split(" Until then")[0]]


def test_auto_on_a_machine_without_nvidias_library() -> None:
    """The real loader, no mock: the library is not there at all."""
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has an NVIDIA driver")
    code = """
import json, sys
from jupyterhub_bkai.gpus.source import SourceOptions, SourceProblem, open_source, select
selection = select("auto", SourceOptions())
spared = "pynvml" not in sys.modules
try:
    open_source("nvidia", SourceOptions()).devices()
except SourceProblem as problem:
    said = problem.message
print(json.dumps([selection.fake, selection.statement, len(selection.sources[0].devices()), spared, said]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    fake, statement, count, spared, said = json.loads(done.stdout)
    assert (fake, count) == (True, 2)
    assert said.startswith("No NVIDIA driver is installed on this machine")
    assert statement.startswith(f"{said} The devices shown are fake")
    assert spared, "the 17 MB of the module that talks to NVIDIA's library"


def test_the_inventory_follows_the_cards(mock_nvml: MockNvml) -> None:
    """Ill, well again, gone, back: each is told once."""
    steps: list[Any] = [
        machine(l4("GPU-a"), l4("GPU-b")),
        machine(l4("GPU-a"), l4("GPU-b", "recovery 1")),
        machine(l4("GPU-a"), l4("GPU-b")),
        machine(l4("GPU-b")),
        machine(l4("GPU-b"), also="fault nvmlInitWithFlags 18"),
        machine(l4("GPU-b"), l4("GPU-a")),
        machine(l4("GPU-b"), l4("GPU-a")),
    ]
    code = f"""
    inventory = Inventory([source], node=this_machine("gpu-1"))
    told = []
    for step in {steps!r}:
        describe(step)
        changes = inventory.refresh()
        told.append({{
            "appeared": [device.id for device in changes.appeared],
            "vanished": [device.id for device in changes.vanished],
            "unhealthy": [illness.device.id for illness in changes.unhealthy],
            "recovered": [device.id for device in changes.recovered],
            "altered": [device.id for device in changes.altered],
            "complaints": len(changes.complaints),
        }})
    say([{{key: value for key, value in step.items() if value}} for step in told])
    """
    assert mock_nvml.run(steps[0], code) == [
        {"appeared": ["GPU-a", "GPU-b"]},
        {"unhealthy": ["GPU-b"]},
        {"recovered": ["GPU-b"]},
        {"vanished": ["GPU-a"], "altered": ["GPU-b"]},
        {"unhealthy": ["GPU-b"], "complaints": 1},
        {"appeared": ["GPU-a"], "recovered": ["GPU-b"]},
        {},
    ]
