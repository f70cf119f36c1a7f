"""A definition's files → an image version, or a sentence for everything that is wrong."""

import pytest

from jupyterhub_bkai.builds.definition import key_of, parse, requirement_problems, sources

LABEL = b"""\
title: Tables
imports: pandas
version: 3.10
minimum: {cpu: 0.5, memory: 512m}
accelerators: [cuda, atom]
"""
ONLY = "is not allowed; of the options only --index-url, --extra-index-url, --find-links are."
GOOD = {"image.yml": LABEL, "requirements.txt": b"pandas==3.10\n", "verify": b"#!/usr/bin/env python\n"}


def labelled(label: bytes) -> list[tuple[str, str]]:
    return parse("pandas", "3.10", {**GOOD, "image.yml": label})[1]


def test_a_whole_definition() -> None:
    image, problems = parse("pandas", "3.10", GOOD)
    assert problems == []
    assert image is not None
    assert image.name == "pandas/3.10"
    assert image.imports_version == "3.10", "a version is a text: 3.10 is not 3.1"
    assert (image.minimum_cpu_milli, image.minimum_memory_mib) == (500, 512)
    assert (image.preferred_cpu_milli, image.preferred_memory_mib) == (500, 512)
    assert (image.role, image.runtime_type, image.runtime_path) == ("COMPUTE", "python", "bin/python")
    assert [image.accepts(slot) for slot in ("cuda", "atom", "rocm")] == [True, True, False]


def test_any_accelerator() -> None:
    image, _ = parse("pandas", "3.10", {**GOOD, "image.yml": b"python: '3.12'\naccelerators: any"})
    assert image is not None
    assert image.accepts("whatever")
    assert (image.title, image.python) == ("pandas 3.10", "3.12")


def test_preferred_is_never_below_the_minimum() -> None:
    label = LABEL + b"preferred: {cpu: 0.1, memory: 1g}\n"
    image, _ = parse("pandas", "3.10", {**GOOD, "image.yml": label})
    assert image is not None
    assert (image.preferred_cpu_milli, image.preferred_memory_mib) == (500, 1024)


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (b"", "this must be a list of `key: value` lines."),
        (b"- a\n- b", "this must be a list of `key: value` lines."),
        (b"imports: [\n", "line 2 is not YAML (expected the node content, but found '<stream end>')."),
        (b"\x80\x81", "this is not a YAML text."),
        (b"imports: pandas\x00", "this is not a YAML text."),
        (b"[" * 5000, "this is not a YAML text."),
        (LABEL + b"imprts: x", "image.yml: there is no “imprts”; did you mean “imports”?"),
        (LABEL + b"minimum: 3", "“minimum” must hold cpu and memory."),
        (LABEL + b"minimum: {gpu: 1}", "minimum: there is no “gpu”; did you mean “cpu”?"),
        (LABEL + b"minimum: {cpu: -1}", "minimum.cpu: “-1” is not a number of cores such as 0.5."),
        (LABEL + b"minimum: {cpu: .nan}", "minimum.cpu: “.nan” is not a number of cores such as 0.5."),
        (LABEL + b"minimum: {cpu: 0}", "minimum.cpu: “0” is not a number of cores such as 0.5."),
        (LABEL + b"minimum: {memory: lots}", "minimum.memory: “lots” is not a size such as 512m."),
        (LABEL + b"minimum: {memory: [1]}", "minimum.memory: “['1']” is not a size such as 512m."),
        (
            LABEL + b"accelerators: {cuda: 1}",
            "“accelerators” must be a list of slot names such as [cuda], or any.",
        ),
        (
            LABEL + b"accelerators: [../x]",
            "“accelerators” must be a list of slot names such as [cuda], or any.",
        ),
        (LABEL + b"role: BOSS", "role: there is no “BOSS”; choose one of COMPUTE, INFERENCE, SYSTEM."),
        (LABEL + b"title: [a]", "title: expected a text of at most 80 characters."),
        (LABEL + b"title: " + b"x" * 81, "title: expected a text of at most 80 characters."),
        (LABEL + b"imports: os; rm", "imports: “os; rm” is not the name of a module, such as sklearn."),
        (LABEL + b"version: 1 && 2", "version: “1 && 2” is not a version, such as 1.7.2."),
        (LABEL + b"python: 3.9", "python: “3.9” is not a version of Python, 3.11 or newer."),
        (b"imports: pandas", "“version” is missing: imports and version are one promise."),
        (b"title: empty", "say what the label promises: imports and version, or python."),
    ],
)
def test_a_wrong_label_gets_one_sentence(label: bytes, sentence: str) -> None:
    assert labelled(label) == [("image.yml", sentence)]


def test_everything_wrong_is_told_at_once() -> None:
    image, problems = parse("Pandas", "..", {"image.yml": b"minimum: {cpu: x, memory: y}\npython: '3.12'"})
    assert image is None
    assert [place for place, _ in problems] == [
        "requirements.txt",
        "verify",
        "",
        "",
        "image.yml",
        "image.yml",
    ]


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a--b", "a b", "x" * 40, "<b>", "a\n"])
def test_a_name_that_cannot_be_one(name: str) -> None:
    assert parse(name, "1", GOOD)[1][0][1].endswith("a letter or digit first.")
    assert parse("a", name, GOOD)[1][0][1].endswith("a letter or digit first.")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("numpy==2.4.6", None),
        ("tensorflow[and-cuda]==2.20.0  # the one", None),
        ("numpy===2.4.6 ; python_version < '3.13'", None),
        ("# nothing", None),
        ("--extra-index-url https://packages.example/simple", None),
        ("--find-links=wheels", None),
        ("numpy", "“numpy” is not pinned; write one exact version, as in numpy==1.2.3."),
        ("numpy>=2", "“numpy>=2” is not pinned; write one exact version, as in numpy==1.2.3."),
        ("numpy==2.*", "“numpy==2.*” is not pinned; write one exact version, as in numpy==1.2.3."),
        (
            "numpy==2.4.6,<3",
            "“numpy==2.4.6,<3” is not pinned; write one exact version, as in numpy==1.2.3.",
        ),
        (
            "numpy @ file:///x",
            "“numpy @ file:///x” names an address; name a version, as in numpy==1.2.3.",
        ),
        ("-r other.txt", f"“-r other.txt” {ONLY}"),
        ("-e .", f"“-e .” {ONLY}"),
        ("numpy == == 2", "“numpy == == 2” is not a requirement such as numpy==2.4.6."),
    ],
)  # fmt: skip
def test_requirements_are_exact_pins(line: str, wrong: str | None) -> None:
    expected = [] if wrong is None else [f"line 2: {wrong}"]
    assert list(requirement_problems(f"\n{line}\n".encode())) == expected


def test_requirements_in_another_encoding() -> None:
    assert list(requirement_problems(b"\xff\xfen")) == ["this is not a text in UTF-8."]


def test_sources_are_the_lines_that_say_where_packages_come_from() -> None:
    assert sources("a==1\n --index-url https://x/simple\n#--find-links y\n--find-links z\n") == [
        "--index-url https://x/simple",
        "--find-links z",
    ]


def test_the_key_follows_every_byte() -> None:
    key = key_of(GOOD, "f")
    assert key == key_of(dict(reversed(GOOD.items())), "f"), "not the order"
    changed = [
        key_of(GOOD, "g"),
        key_of({**GOOD, "verify": b"#!/usr/bin/env python"}, "f"),
        key_of({**GOOD, "requirements.lock": b""}, "f"),
        key_of({name: GOOD[name] for name in ("image.yml", "verify")}, "f"),
        # The same bytes, cut otherwise.
        key_of({**GOOD, "image.yml": LABEL[:-1], "requirements.txt": b"\n" + GOOD["requirements.txt"]}, "f"),
    ]
    assert len({key, *changed}) == 6
