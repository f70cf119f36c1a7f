"""Fake devices: the shipped samples, the form of the file, and devices that vanish or fall ill on demand."""

import os
import re
from pathlib import Path

import pytest

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus import fake
from jupyterhub_bkai.gpus.fake import FakeSource, Layout, parse, sample_path, samples
from jupyterhub_bkai.gpus.source import SourceOptions, SourceProblem
from jupyterhub_bkai.model import Device, MigProfile


def laid_out(text: str, node: str = "local") -> Layout:
    return parse(text.encode(), "own.toml", SourceOptions(node=node))


def wrong(text: str) -> list[tuple[str, str]]:
    """The problems of a file, each with its place in it."""
    with pytest.raises(SettingsError) as caught:
        laid_out(text)
    places = [
        (place.removeprefix("own.toml").removeprefix(", "), why) for place, why in caught.value.problems
    ]
    assert all(place.startswith("own.toml") for place, _ in caught.value.problems)
    assert all(why[0].isupper() and why.endswith(".") for _, why in places) or "?" in str(places)
    return places


def own(tmp_path: Path, text: str) -> tuple[Path, FakeSource]:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return path, FakeSource(SourceOptions(argument="own.toml", folder=tmp_path))


CARD = '[[devices]]\nmodel = "Card"\nmemory_mib = 8192\nsms = 24\n'
TWO = CARD + "count = 2\n"
MIG = '[[mig.m]]\nname = "1g"\nsize = 2\nplacements = [0, 2]\nmemory_mib = 4096\nsms = 12\n'


# -- the samples -------------------------------------------------------------------------------


def test_the_samples() -> None:
    shapes = {}
    for sample in samples():
        devices = FakeSource(SourceOptions(argument=sample)).devices()
        assert all(device.fake and device.healthy and device.node == "local" for device in devices)
        assert len({device.id for device in devices}) == len(devices)
        shapes[sample] = [
            (device.slot, device.index, device.memory_mib, device.sms, bool(device.mig)) for device in devices
        ]
    assert shapes == {
        "atom-npu": [
            *(("atom", index, 16384, 8, False) for index in range(4)),
            ("cuda", 0, 23034, 58, False),
        ],
        "eight-141gb-mig": [("cuda", index, 143771, 132, True) for index in range(8)],
        "one-8gb": [("cuda", 0, 8192, 24, False)],
        "two-80gb": [("cuda", index, 81559, 132, False) for index in range(2)],
        "two-fgpu": [("cuda", 0, 16384, 22, False)],
    }


def test_a_sample_is_the_default() -> None:
    assert [device.model for device in FakeSource(SourceOptions()).devices()] == ["NVIDIA H100 80GB HBM3"] * 2


def test_the_npu_is_given_whole() -> None:
    devices = FakeSource(SourceOptions(argument="atom-npu")).devices()
    assert [device.divisible for device in devices] == [False, False, False, False, True]


def test_the_h200_is_cut_as_the_real_one() -> None:
    device = FakeSource(SourceOptions(argument="eight-141gb-mig")).devices()[7]
    assert device.numa == 1
    assert {profile.name: (profile.size, profile.placements, profile.sm_milli) for profile in device.mig} == {
        "1g.18gb": (1, (0, 1, 2, 3, 4, 5, 6), 16000),
        "1g.35gb": (2, (0, 2, 4, 6), 26000),
        "2g.35gb": (2, (0, 2, 4), 32000),
        "3g.71gb": (4, (0, 4), 60000),
        "4g.71gb": (4, (0,), 64000),
        "7g.141gb": (8, (0,), 132000),
    }


def test_a_sample_nobody_ships() -> None:
    with pytest.raises(
        SettingsError, match=r"There is no sample “two-81gb”: choose one of atom-npu, .* a \.toml file"
    ):
        FakeSource(SourceOptions(argument="two-81gb"))


# -- the form ----------------------------------------------------------------------------------


def test_everything_that_can_be_said() -> None:
    layout = laid_out(
        CARD
        + 'id = "first"\nreserve_mib = 192\nnuma = 1\n'
        + TWO
        + 'mig = "m"\nnuma = [0, 1]\n'
        + MIG
        + """
        [[instances]]
        device = "fake-local-cuda-2"
        profile = "1g"
        start = 2

        [[nodes]]
        name = "gpu-2"
        cpu = 64
        memory_mib = 524288
        [[nodes.devices]]
        model = "NPU"
        slot = "atom"
        memory_mib = 16384
        sms = 8
        divisible = false

        [faults.unhealthy]
        first = "Its fan is stuck."
        """
    )
    cut = (MigProfile("1g", 2, (0, 2), 4096, 12000),)
    assert layout.devices == (
        Device("first", "local", 0, "cuda", "Card", 8192, 24, reserve_mib=192, numa=1, fake=True),
        Device("fake-local-cuda-1", "local", 1, "cuda", "Card", 8192, 24, numa=0, mig=cut, fake=True),
        Device("fake-local-cuda-2", "local", 2, "cuda", "Card", 8192, 24, numa=1, mig=cut, fake=True),
        Device("fake-gpu-2-atom-0", "gpu-2", 0, "atom", "NPU", 16384, 8, divisible=False, fake=True),
    )
    assert [(node.name, node.cpu_milli, node.memory_mib) for node in layout.machines] == [
        ("gpu-2", 64000, 524288)
    ]
    assert [(one.device, one.profile, one.start, one.size) for one in layout.instances] == [
        ("fake-local-cuda-2", "1g", 2, 2)
    ]
    assert layout.unhealthy == {"first": "Its fan is stuck."}


def test_this_machine_as_a_node_has_its_real_size() -> None:
    layout = laid_out('[[nodes]]\nname = "here"\n' + CARD.replace("devices", "nodes.devices"), node="here")
    assert layout.machines == ()
    assert [device.id for device in layout.devices] == ["fake-here-cuda-0"]


def test_the_settings_reserve_counts_where_the_file_has_none() -> None:
    text = CARD + CARD + "reserve_mib = 0\n"
    devices = parse(text.encode(), "own.toml", SourceOptions(reserve_mib=100)).devices
    assert [device.reserve_mib for device in devices] == [100, 0]


def test_every_problem_is_told_at_once_with_its_place() -> None:
    text = """
    descripton = "a slip of the pen"
    [[devices]]
    model = ""
    memory_mib = 8192.0
    sms = 0
    count = 2
    id = "both"
    numa = [0, 1, 2]
    mig = "gone"
    divisible = "yes"
    slot = "none"
    [[mig.m]]
    name = "1g"
    size = 1
    placements = [0, 0]
    memory_mib = -1
    [[instances]]
    device = "nobody"
    profile = "1g"
    start = 0
    [[nodes]]
    name = "Node"
    [faults]
    vanished = ["nobody"]
    [faults.unhealthy]
    nobody = "ill"
    """
    assert wrong(text) == [
        ("descripton", "There is no such key: did you mean “description”?"),
        ("mig.m[0].placements", "A placement is given twice."),
        ("mig.m[0].memory_mib", "This must be a whole number from 1 to 1073741824."),
        ("mig.m[0].sms", "This is missing: give a whole number from 1 to 1000000."),
        ("devices[0].id", "Only a single device can be given an id: leave out “count” or “id”."),
        ("devices[0].memory_mib", "This must be a whole number from 1 to 1073741824."),
        ("devices[0].sms", "This must be a whole number from 1 to 1000000."),
        ("devices[0].slot", "This must be a short lower-case word (not “none”)."),
        ("devices[0].model", "This must be the model as people call it."),
        ("devices[0].mig", "This must be the NAME of profiles given with [[mig.NAME]] in this file."),
        ("devices[0].divisible", "This must be true or false."),
        ("devices[0].numa", "Give one number for all devices, or one for each of the 2."),
        ("nodes[0].name", "This must be a host name in lower case."),
        ("nodes[0].cpu", "This is missing: give a whole number from 1 to 4096."),
        ("nodes[0].memory_mib", "This is missing: give a whole number from 1 to 1073741824."),
        ("devices", "Two devices have the id “both”."),
        ("instances[0]", "No device has such a profile that may begin there."),
        ("faults.vanished", "This must be a list of ids of devices in this file."),
        ("faults.unhealthy.nobody", "No device in this file has this id."),
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "", "describes no devices"),
        ("devices = 3", "devices", "an array of tables"),
        ("devices = [3]", "devices[0]", "must be a table"),
        ("mig = 3\n" + CARD, "mig", "arrays of profiles"),
        ("nodes = {}\n" + CARD, "nodes", "an array of tables"),
        (CARD + "faults = 3", "devices[0].faults", "no such key"),
        (CARD + "memory = 3", "devices[0].memory", "did you mean “memory_mib”"),
        (CARD + "reserve_mib = 8193", "devices[0].reserve_mib", "More is held back"),
        (CARD + "count = 65537", "devices[0].count", "whole number from 1 to 65536"),
        (TWO + CARD + "count = 65535", "devices[1].count", "at most 65536 devices"),
        (CARD + "count = true", "devices[0].count", "whole number"),
        (CARD + "numa = -1", "devices[0].numa", "whole numbers"),
        (CARD + "id = '../x'", "devices[0].id", "letters, digits"),
        (CARD + 'id = "a"\n' + CARD + 'id = "a"\n', "devices", "Two devices have the id “a”"),
        (CARD + 'mig = "m"\n' + MIG + "[[mig.m]]\nname = '1g'\nsize = 1\nplacements = [0]\nmemory_mib = 1\nsms = 1",
         "mig.m", "same name"),
        (CARD + 'mig = "m"\n' + MIG.replace("4096", "8193"), "devices[0].mig", "larger than the device"),
        (CARD + 'mig = "m"\n' + MIG.replace("12", "25"), "devices[0].mig", "larger than the device"),
        (CARD + 'mig = "m"\n' + MIG.replace("[0, 2]", "[]"), "mig.m[0].placements", "list of whole numbers"),
        (CARD + "[faults]\nvanished = 'all'", "faults.vanished", "list of ids"),
        (CARD + "[faults]\nunhealthy = ['x']", "faults.unhealthy", "must be a table"),
        (CARD + "[faults]\nfailing = '''a\nb'''", "faults.failing", "line of text"),
        ('[[nodes]]\nname = "a"\ncpu = 1\nmemory_mib = 1\n[[nodes]]\nname = "a"\ncpu = 1\nmemory_mib = 1\n' + CARD,
         "nodes[1].name", "already"),
    ],
)  # fmt: skip
def test_one_thing_wrong(text: str, place: str, words: str) -> None:
    problems = wrong(text)
    assert [(where, words in why) for where, why in problems] == [(place, True)]


def test_instances_may_not_overlap() -> None:
    one = '[[instances]]\ndevice = "fake-local-cuda-0"\nprofile = "1g"\nstart = 0\n'
    assert len(laid_out(CARD + 'mig = "m"\n' + MIG + one + one.replace("= 0", "= 2")).instances) == 2
    assert wrong(CARD + 'mig = "m"\n' + MIG + one + one) == [
        ("instances[1]", "It overlaps another instance of the same device.")
    ]


def test_a_file_that_is_wrong_everywhere_is_told_in_part() -> None:
    problems = wrong(CARD * 200 + "".join(f"x{number} = 0\n" for number in range(200)))
    assert len(problems) == 51
    assert problems[-1] == ("", "There are 150 more problems.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"[[devices]]\nsms = \n", "not TOML: .*line 2, column 7"),
        (b"a = " + b"[" * 100_000, "nested too deep"),
        (b"a = " + b"1" * 5000, "nested too deep or too long"),
    ],
)
def test_what_is_not_toml(content: bytes, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse(content, "own.toml", SourceOptions())


# -- files that are no files -------------------------------------------------------------------


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Each is a sentence at once: nothing waits for the other end of a pipe, nothing reads without end."""
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * (2**20 + 1))
    told = {}
    for name in ("folder", "pipe", "zero", "loop", "huge", "gone", "nul\0", "~nobody-has-this-name/x"):
        with pytest.raises(SettingsError) as caught:
            FakeSource(SourceOptions(argument=f"{name}.toml", folder=tmp_path))
        told[name] = caught.value.problems[0][1]
    assert told == {
        "folder": "This is not a plain file.",
        "pipe": "This is not a plain file.",
        "zero": "This is not a plain file.",
        "loop": "The file cannot be read: Too many levels of symbolic links.",
        "huge": "The file is larger than 1 MiB.",
        "gone": "The file cannot be read: No such file or directory.",
        "nul\0": "This is not a path.",
        "~nobody-has-this-name/x": "“~nobody-has-this-name/x.toml” begins with the home of nobody known.",
    }


def test_no_file_stays_open(tmp_path: Path) -> None:
    _, source = own(tmp_path, CARD)
    (tmp_path / "folder.toml").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        source.devices()
        with pytest.raises(SettingsError):
            FakeSource(SourceOptions(argument="folder.toml", folder=tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


# -- faults ------------------------------------------------------------------------------------


def test_a_device_vanishes_by_an_edit_and_comes_back(tmp_path: Path) -> None:
    """The others keep id and index."""
    path, source = own(tmp_path, TWO)
    first, second = source.devices()
    path.write_text(TWO + '[faults]\nvanished = ["fake-local-cuda-0"]\n')
    assert source.devices() == [second]
    assert not source.health(first).ok
    assert source.health(second).ok
    path.write_text(TWO)
    assert source.devices() == [first, second]
    assert source.health(first).ok


def test_a_device_falls_ill_by_an_edit(tmp_path: Path) -> None:
    path, source = own(tmp_path, TWO)
    path.write_text(TWO + '[faults.unhealthy]\nfake-local-cuda-1 = "It is too hot."\n')
    devices = source.devices()
    assert [device.healthy for device in devices] == [True, False]
    assert [source.health(device).message for device in devices] == ["", "It is too hot."]


def test_a_file_that_goes_wrong_later_is_the_sources_problem(tmp_path: Path) -> None:
    path, source = own(tmp_path, CARD)
    path.write_text(CARD + "sms = 3")
    with pytest.raises(SourceProblem, match=r"The file of fake devices is wrong: .*Cannot overwrite a value"):
        source.devices()
    path.unlink()
    with pytest.raises(SourceProblem, match="cannot be read"):
        source.devices()
    path.write_text(CARD)
    assert len(source.devices()) == 1


def test_a_source_that_fails_on_demand(tmp_path: Path) -> None:
    path, source = own(tmp_path, CARD)
    path.write_text(CARD + "[faults]\nfailing = 'The driver has gone.'\n")
    device = Device("fake-local-cuda-0", "local", 0, "cuda", "Card", 8192, 24)
    for ask in (source.devices, lambda: source.health(device), lambda: source.instances(device)):
        with pytest.raises(SourceProblem, match=r"^The driver has gone\.$"):
            ask()


def test_the_samples_show_every_key() -> None:
    """They are the form's description for administrators."""
    text = "".join(sample_path(sample).read_text() for sample in ("two-80gb", "eight-141gb-mig"))
    shown = set(re.findall(r"^(?:# )?([a-z_]+) += ", text, re.MULTILINE))
    known = {*fake._DEVICE_KEYS, *fake._MIG_KEYS, *fake._INSTANCE_KEYS, *fake._NODE_KEYS, *fake._FAULT_KEYS}
    assert known - shown == {
        "devices",
        "unhealthy",
        "uuid",
    }  # two are tables; nobody needs to write the third
    assert "[[nodes.devices]]" in text
    assert "[faults.unhealthy]" in text
