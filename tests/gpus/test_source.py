"""Finding sources by name: ours, those of other packages, and names nobody has."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus import source
from jupyterhub_bkai.gpus.source import (
    ENTRY_POINT_GROUP,
    Health,
    Source,
    SourceOptions,
    SourceProblem,
    installed,
    open_source,
    select,
)
from jupyterhub_bkai.model import Device

ELSEWHERE = """
from jupyterhub_bkai.gpus.source import Source
from jupyterhub_bkai.model import Device

class Elsewhere(Source):
    name = "elsewhere"
    closed = 0

    def __init__(self, options):
        self.options = options

    def devices(self):
        return [
            Device("e-0", self.options.node, 0, "npu", "NPU", 1024, 1),
            Device("e-1", self.options.node, 1, "npu", "NPU", 1024, 1, healthy=False),
        ]

    def close(self):
        type(self).closed += 1
"""


@pytest.fixture
def another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution that brings sources: one that works, one that does not load, one called as ours."""
    (tmp_path / "bkai_elsewhere.py").write_text(ELSEWHERE)
    info = tmp_path / "bkai_elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bkai-elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\n"
        "elsewhere = bkai_elsewhere:Elsewhere\nbroken = bkai_nowhere:Broken\nfake = bkai_elsewhere:Elsewhere\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("bkai_elsewhere", None)


def test_a_source_of_another_package(another_package: None) -> None:
    selection = select("elsewhere:an argument", SourceOptions(node="n"))
    (elsewhere,) = selection.sources
    assert [device.node for device in elsewhere.devices()] == ["n", "n"]
    assert vars(elsewhere)["options"].argument == "an argument"
    assert selection.statement == "Devices come from the source “elsewhere:an argument”."
    assert not selection.fake


def test_what_a_source_need_not_write(another_package: None) -> None:
    """The smallest source says only what devices there are."""
    elsewhere = open_source("elsewhere", SourceOptions())
    well, ill = elsewhere.devices()
    assert elsewhere.health(well) == Health(True)
    assert elsewhere.health(ill) == Health(False, "NPU 1 does not work.")
    assert elsewhere.health(Device("e-9", "local", 9, "npu", "NPU", 1024, 1)) == Health(
        False, "NPU 9 is no longer there."
    )
    assert (
        elsewhere.instances(well),
        elsewhere.processes(well),
        elsewhere.machines(),
        elsewhere.complaints,
    ) == (
        (),
        (),
        (),
        (),
    )
    assert elsewhere.facts() == {}


def test_several_sources(another_package: None) -> None:
    selection = select("fake:one-8gb, elsewhere", SourceOptions())
    assert [each.name for each in selection.sources] == ["fake", "elsewhere"]
    assert selection.fake
    assert "are fake (from “fake:one-8gb”)" in selection.statement
    assert "“elsewhere”" in selection.statement


def test_ours_cannot_be_replaced(another_package: None) -> None:
    assert installed()["fake"].value == "jupyterhub_bkai.gpus.fake:FakeSource"


def test_ours_need_no_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "entry_points", lambda group: ())
    assert sorted(installed()) == ["fake", "nvidia"]
    assert len(open_source("fake", SourceOptions()).devices()) == 2


def test_code_that_does_not_load_is_a_sentence(another_package: None) -> None:
    with pytest.raises(SourceProblem, match=r"“broken” cannot be loaded .*bkai_nowhere") as caught:
        select("broken", SourceOptions())
    assert caught.value.reason == "not-installed"


def test_a_wrong_one_among_several_closes_the_others(another_package: None) -> None:
    import bkai_elsewhere  # type: ignore[import-not-found]  # the fixture's

    with pytest.raises(SettingsError):
        select("elsewhere, fake:gone", SourceOptions())
    assert bkai_elsewhere.Elsewhere.closed == 1


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("nvidea", "did you mean “nvidia”"),
        ("", "choose one of auto, "),
        ("cuda", "choose one of auto, "),
        ("fake,", "choose one of auto, "),
        ("auto, fake", "alone"),
        ("auto:x", "alone"),
        ("fake, fake:one-8gb", "once"),
    ],
)
def test_names_nobody_has(setting: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        select(setting, SourceOptions())
    ((place, sentence),) = caught.value.problems
    assert place == "devices"
    assert words in sentence


def test_a_source_must_say_what_devices_there_are() -> None:
    class Nothing(Source):
        pass

    with pytest.raises(TypeError, match="devices"):
        Nothing()  # type: ignore[abstract]  # the point
