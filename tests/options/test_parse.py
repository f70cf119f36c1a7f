"""Options: what is accepted becomes exactly what was meant; what is not, one sentence by its field."""

import time
from dataclasses import replace
from fractions import Fraction

import pytest

from jupyterhub_bkai.errors import InvalidOptions
from jupyterhub_bkai.gpus.slices import Unit, cut
from jupyterhub_bkai.model import Device, Mount, SessionType, Wish
from jupyterhub_bkai.options import (
    FIELDS,
    GroupOffer,
    ImageOffer,
    Offer,
    PresetOffer,
    SessionOffer,
    SlotOffer,
    parse,
)

CARD = SlotOffer("cuda", "NVIDIA H200", devices=4, mig=("1g.18gb", "2g.35gb"), memory_mib=143_771)


def offer(per_device: str = "2", quantum: str = "0.1", **changes: object) -> Offer:
    group = GroupOffer(
        "default",
        "Default",
        Unit(Fraction(per_device), Fraction(quantum)),
        slots=(CARD, SlotOffer("atom", "ATOM", devices=2, divisible=False)),
        session_types=(SessionType.INTERACTIVE, SessionType.BATCH),
        folders=(Mount("data", "ro"), Mount("scratch", "rw")),
        cpu_milli=16_000,
        memory_mib=65_536,
        max_duration_s=86_400,
    )
    images = (
        ImageOffer("sklearn/1.8", "scikit-learn 1.8", minimum_memory_mib=512),
        ImageOffer("sklearn/1.7", ""),
    )
    return Offer(images, (group,), projects=("vision",))


def wish(**raw: object) -> Wish | None:
    return parse(raw, offer()).wish


def sentence(field: str, offered: Offer | None = None, **raw: object) -> str:
    with pytest.raises(InvalidOptions) as refused:
        parse(raw, offered or offer())
    assert list(refused.value.fields) == [field], refused.value.fields
    return refused.value.fields[field]


def test_nothing_asked_gives_the_defaults() -> None:
    request = parse({}, offer())
    assert (request.version, request.group, request.count) == ("sklearn/1.8", "default", 1)
    assert (request.cpu_milli, request.memory_mib, request.shm_mib) == (1000, 2048, 64)
    assert request.wish is None
    assert request.duration_s == 86_400


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"fgpu": "0.5"}, Wish("cuda", 1, Fraction(1, 4))),
        ({"gpu": "0.25"}, Wish("cuda", 1, Fraction(1, 4))),
        ({"gpu": 0.25}, Wish("cuda", 1, Fraction(1, 4))),
        ({"fgpu": 2}, Wish("cuda", 1, Fraction(1))),
        ({"gpu": "2"}, Wish("cuda", 2, Fraction(1))),
        ({"fgpu": "3", "spread": "2"}, Wish("cuda", 2, Fraction(3, 4))),
        ({"mig": "1g.18gb"}, Wish("cuda", 1, Fraction(1), "1g.18gb")),
        ({"mig": "2g.35gb", "spread": 2}, Wish("cuda", 2, Fraction(1), "2g.35gb")),
        ({"accelerator": "cuda"}, Wish("cuda", 1, Fraction(1, 2))),
        ({"accelerator": "atom"}, Wish("atom", 1, Fraction(1))),
        ({"accelerator": "atom", "gpu": "2"}, Wish("atom", 2, Fraction(1))),
        ({"accelerator": "none"}, None),
        ({"accelerator": "none", "fgpu": "0"}, None),
    ],
)
def test_amounts_of_an_accelerator(raw: dict[str, object], expected: Wish | None) -> None:
    assert wish(**raw) == expected


def test_the_worked_example_of_an_8_gb_card() -> None:
    card = Device("GPU-0", "local", 0, "cuda", "8 GB card", 8192, 20)
    request = parse({"fgpu": "0.5"}, offer())
    assert request.wish is not None
    piece = cut(card, request.wish.share)
    assert (piece.memory_mib, piece.sm_milli, piece.share) == (2048, 5000, Fraction(1, 4))


def test_one_fgpu_of_five_is_a_fifth_of_a_device() -> None:
    request = parse({"fgpu": "1"}, offer(per_device="5"))
    assert request.wish == Wish("cuda", 1, Fraction(1, 5))


def test_three_units_to_a_device_stay_exact() -> None:
    request = parse({"fgpu": "1"}, offer(per_device="3"))
    assert request.wish == Wish("cuda", 1, Fraction(1, 3))


def test_between_two_quanta_both_neighbours_are_named() -> None:
    said = sentence("fgpu", fgpu="0.55")
    assert "0.5 fGPU" in said
    assert "0.6 fGPU" in said
    said = sentence("gpu", gpu="0.26")
    assert "0.25 GPU" in said
    assert "0.3 GPU" in said


def test_a_fraction_never_straddles_two_cards_unless_asked() -> None:
    said = sentence("fgpu", fgpu="3")
    assert "does not fit on one device" in said
    assert "spread it over 2 devices" in said


@pytest.mark.parametrize(
    "value", ["0", "-1", "nan", "NaN", "inf", "1e3", "1e999", "two", "0x1", "١", "0.1234567", True, "9" * 400]
)
def test_what_is_no_amount(value: object) -> None:
    assert sentence("fgpu", fgpu=value)


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("version", {"version": "sklearn/9"}),
        ("version", {"version": "../../etc"}),
        ("version", {"version": ["sklearn/1.8"]}),
        ("group", {"group": "other"}),
        ("accelerator", {"accelerator": "tpu"}),
        ("mig", {"mig": "9g.1gb"}),
        ("gpu", {"fgpu": "1", "gpu": "0.5"}),
        ("fgpu", {"fgpu": "100"}),
        ("gpu", {"accelerator": "atom", "gpu": "0.5"}),
        ("spread", {"fgpu": "1", "spread": "9"}),
        ("spread", {"fgpu": "1", "spread": "1.5"}),
        ("cpu", {"cpu": "0.55"}),
        ("cpu", {"cpu": "0"}),
        ("cpu", {"cpu": "1000"}),
        ("cpu", {"cpu": "-1"}),
        ("memory", {"memory": "100m"}),
        ("memory", {"memory": "1000t"}),
        ("memory", {"memory": "much"}),
        ("shm", {"shm": "4g"}),
        ("duration", {"duration": "30s"}),
        ("duration", {"duration": "2d"}),
        ("duration", {"duration": "soon"}),
        ("name", {"name": "../../etc/passwd"}),
        ("name", {"name": "<script>"}),
        ("name", {"name": "x" * 31}),
        ("name", {"name": "a--b"}),
        ("count", {"count": "0"}),
        ("count", {"count": "101"}),
        ("count", {"count": "1.5"}),
        ("project", {"project": "secret"}),
        ("session_type", {"session_type": "inference"}),
        ("folders", {"folders": ["nothing:ro"]}),
        ("folders", {"folders": ["data:rw"]}),
        ("folders", {"folders": ["data:rx"]}),
        ("folders", {"folders": [1]}),
        ("environment", {"environment": {"LD_PRELOAD": "x"}}),
        ("environment", {"environment": {"ld_preload": "x"}}),
        ("environment", {"environment": {"PATH": "x"}}),
        ("environment", {"environment": {"PYTHONPATH": "x"}}),
        ("environment", {"environment": {"JUPYTERHUB_API_TOKEN": "x"}}),
        ("environment", {"environment": {"BKAI_LEASE_ID": "x"}}),
        ("environment", {"environment": {"CUDA_VISIBLE_DEVICES": "0"}}),
        ("environment", {"environment": {"A=B": "x"}}),
        ("environment", {"environment": {"A": 1}}),
        ("environment", {"environment": "no equals sign"}),
        ("surprise", {"surprise": "1"}),
    ],
)
def test_wrong_input_gets_one_sentence_by_its_field(field: str, raw: dict[str, object]) -> None:
    said = sentence(field, None, **raw)
    assert said[-1] in ".?"
    assert "<script>" not in said or "“" in said


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("fgpu", "100", "fGPU: the largest machine of Default has 8 fGPU (4 × NVIDIA H200)."),
        ("gpu", "100", "GPU share: the largest machine of Default has 4 GPU (4 × NVIDIA H200)."),
        ("fgpu", "0.01", "fGPU: 0.01 fGPU is not a multiple of 0.1 fGPU; the nearest is 0.1 fGPU."),
        ("fgpu", "1,5", "fGPU: write a decimal point, not a comma: 1.5."),
        ("cpu", "0,5", "Processor cores: write a decimal point, not a comma: 0.5."),
        ("fgpu", "-1", "fGPU: -1 is below zero; give a number above 0."),
        ("cpu", "-0.5", "Processor cores: -0.5 is below zero; give a number above 0."),
        ("fgpu", "12345678901", "fGPU: 12345678901 is too large."),
        ("fgpu", "1e999", "fGPU: 1e999 is too large."),
        ("fgpu", "0.1234567", "fGPU: 0.1234567 has too many decimals; six are enough."),
        ("fgpu", "two", "fGPU: “two” is not a number such as 0.5."),
        ("memory", "9" * 30, f"Memory: {'9' * 30} is too large."),
        ("duration", "99999d", "Maximum duration: Default allows at most 1 d."),
        ("duration", "999999d", "Maximum duration: Default allows at most 1 d."),
    ],
)
def test_a_slip_is_called_by_its_name(field: str, value: str, expected: str) -> None:
    assert sentence(field, None, **{field: value}) == expected


def test_a_time_of_many_years_is_a_slip_where_the_administrator_sets_no_limit() -> None:
    offered = offer()
    group = replace(offered.groups[0], max_duration_s=None)
    offered = replace(offered, groups=(group,))
    assert parse({}, offered).duration_s is None
    assert parse({"duration": "365d"}, offered).duration_s == 365 * 86400
    said = sentence("duration", offered, duration="99999d")
    assert said == "Maximum duration: Default allows at most 366 d."


def test_all_wrong_fields_are_told_at_once() -> None:
    with pytest.raises(InvalidOptions) as refused:
        parse({"cpu": "x", "memory": "y", "count": "0"}, offer())
    assert set(refused.value.fields) == {"cpu", "memory", "count"}


def test_less_than_the_image_needs_names_the_minimum() -> None:
    assert "512 MiB" in sentence("memory", memory="256m")


def test_a_list_of_folders_and_variables() -> None:
    request = parse({"folders": "data:ro scratch", "environment": "A=1\nB=x=y"}, offer())
    assert request.folders == (Mount("data", "ro"), Mount("scratch", "rw"))
    assert request.environment == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_PATH",
            "JUPYTERLAB_DIR",
            "IPYTHONDIR",
            "XDG_CONFIG_HOME",
            "XDG_DATA_DIRS",
        ),
        *(
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_GLOBAL",
            "GIT_CONFIG_COUNT",
            "NODE_OPTIONS",
            "HOME",
            "USER",
            "BASH_ENV",
            "ENV",
        ),
        *("PROMPT_COMMAND", "ZDOTDIR", "OPENSSL_CONF", "jupyter_config_dir"),
    ],
)
def test_variables_that_lead_a_session_to_somebody_elses_configuration(name: str) -> None:
    assert f"{name} is set by the system" in sentence("environment", environment={name: "/tmp/evil"})


@pytest.mark.parametrize(
    "name",
    [
        *(
            "OMP_NUM_THREADS",
            "WANDB_API_KEY",
            "WANDB_DIR",
            "HF_HOME",
            "HF_TOKEN",
            "TRANSFORMERS_CACHE",
            "TORCH_HOME",
        ),
        *(
            "XDG_CACHE_HOME",
            "TMPDIR",
            "PIP_INDEX_URL",
            "HTTPS_PROXY",
            "GIT_AUTHOR_NAME",
            "GIT_COMMITTER_EMAIL",
        ),
    ],
)
def test_ordinary_variables_are_free(name: str) -> None:
    assert parse({"environment": {name: "x"}}, offer()).environment == {name: "x"}


def test_the_environment_as_a_whole_has_a_limit() -> None:
    each = "x" * 30_000
    assert parse({"environment": {"A": each, "B": each}}, offer()).environment["B"] == each
    for raw in ({"A": each, "B": each, "C": each}, f"A={each}\nB={each}\nC={each}"):
        assert "at most 65,536 characters in all" in sentence("environment", environment=raw)


def test_fifty_thousand_unknown_names_are_soon_refused_and_shortly() -> None:
    begun = time.process_time()
    with pytest.raises(InvalidOptions) as refused:
        parse({f"memmory{number}": "1" for number in range(50_000)}, offer())
    assert time.process_time() - begun < 0.5
    assert len(refused.value.fields) == 11
    assert refused.value.fields[""].startswith("Options: 49,990 more names")
    assert len(refused.value.message) < 3000


def test_a_long_name_of_a_folder_is_soon_refused() -> None:
    begun = time.process_time()
    sentence("folders", folders=["x" * 100_000 + str(number) for number in range(50)])
    assert time.process_time() - begun < 0.5


def test_every_field_has_words() -> None:
    assert all(field.label and field.help for field in FIELDS)


# -- presets, priority, when ------------------------------------------------------------------------

NOW = 1_800_000_000_000
DAY = 86_400_000
SMALL = PresetOffer("small", "Small", {"cpu": "2", "memory": "4g", "fgpu": "0.5"}, ("default",))


def with_presets() -> Offer:
    return replace(
        offer(),
        presets=(SMALL, PresetOffer("other", "Other", {"cpu": "4"}, ("elsewhere",))),
        sessions=(SessionOffer("0" * 26, "train"), SessionOffer("1" * 26, "test")),
        priorities={"": (10, 10), "vision": (20, 50)},
        now_ms=NOW,
    )


def test_a_preset_says_what_is_not_given() -> None:
    request = parse({"preset": "small", "cpu": "3"}, with_presets())
    assert (request.cpu_milli, request.memory_mib) == (3000, 4096)
    assert request.wish == Wish("cuda", 1, Fraction(1, 4))
    assert parse({"preset": "small", "gpu": "1"}, with_presets()).wish == Wish("cuda", 1, Fraction(1))
    assert parse({"preset": "small", "accelerator": "none"}, with_presets()).wish is None


def test_a_preset_of_another_group_or_of_nobody() -> None:
    assert sentence("preset", with_presets(), preset="other") == (
        "Preset: Other is for other groups, not for Default."
    )
    assert "did you mean “small”" in sentence("preset", with_presets(), preset="smal")


def test_priority_is_the_projects_and_has_its_limit() -> None:
    assert parse({}, with_presets()).priority == 10
    assert parse({"priority": "0"}, with_presets()).priority == 0
    assert parse({"project": "vision"}, with_presets()).priority == 20
    assert parse({"project": "vision", "priority": 50}, with_presets()).priority == 50
    assert "at most 10" in sentence("priority", with_presets(), priority="11")
    assert "from 0 to 100" in sentence("priority", with_presets(), priority="101", project="vision")
    assert "from 0 to 100" in sentence("priority", with_presets(), priority="1.5")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+2h", NOW + 7_200_000),
        ("2027-01-15T10:00", 1_800_007_200_000),
        ("2027-01-15T12:00+02:00", 1_800_007_200_000),
        ("2020-01-01", 0),
    ],
)
def test_a_moment(text: str, expected: int) -> None:
    assert parse({"not_before": text}, with_presets()).not_before_ms == expected


@pytest.mark.parametrize("text", ["soon", "+soon", "25:00", "2027-13-01", "+9999999999d", "0000-00-00"])
def test_no_moment(text: str) -> None:
    assert "Start at:" in sentence("not_before", with_presets(), not_before=text)


def test_a_moment_beyond_what_one_may_wait() -> None:
    assert "at most 7 d" in sentence("not_before", with_presets(), not_before="+8d")


def test_after_sessions_of_ones_own() -> None:
    assert parse({"after": "train, test"}, with_presets()).after == ("0" * 26, "1" * 26)
    assert parse({"after": ["1" * 26, "test"]}, with_presets()).after == ("1" * 26,)
    assert "there is no “trian”; did you mean “train”?" in sentence("after", with_presets(), after="trian")


def test_a_hundred_sessions_that_are_none_are_soon_refused() -> None:
    sessions = tuple(SessionOffer(f"{n:026}", f"{'x' * 20}{n * 7919:010}") for n in range(1000))
    begun = time.process_time()
    sentence(
        "after",
        replace(offer(), sessions=sessions),
        after=[f"{'x' * 20}{n * 104729:09}y" for n in range(100)],
    )
    assert time.process_time() - begun < 1


def test_together() -> None:
    assert parse({"together": True, "count": 2}, with_presets()).gang
    assert not parse({"together": "no", "count": 2}, with_presets()).gang
    assert not parse({"together": "yes"}, with_presets()).gang, "one is always together with itself"
    assert "say yes or no" in sentence("together", with_presets(), together="perhaps")
