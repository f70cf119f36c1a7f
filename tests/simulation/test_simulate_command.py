"""`bkai simulate` as a person uses it: figures, the same for the same seed, and one sentence for what is wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = "asked_s,user,group,cpu,memory_mib,slot,took_s\n"
Bkai = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bkai(tmp_path: Path) -> Bkai:
    """`bkai simulate …` in an empty folder."""

    def run(*arguments: object, hash_seed: int = 0) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                sys.executable,
                "-c",
                "from jupyterhub_bkai.cli import main; main()",
                "simulate",
                *map(str, arguments),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(hash_seed), "COLUMNS": "120"},
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=120,
        )

    return run


def test_policies_side_by_side_with_a_picture(bkai: Bkai, tmp_path: Path) -> None:
    done = bkai(
        "--generate", "--days", 2, "--load", 1.3, "--nodes", 3, "--policy", "fifo", "--policy", "drf,backfill=false",
        "--picture", "two.svg", "--save", "demand.csv",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    heading = done.stdout.splitlines()[1].split()
    assert heading == ["fifo", "drf,backfill=false"]
    assert "waiting, median" in done.stdout
    assert "devices held" in done.stdout
    picture = ElementTree.parse(tmp_path / "two.svg").getroot()
    assert "drf,backfill=false" in "".join(picture.itertext())
    again = bkai("--trace", "demand.csv", "--nodes", 3, "--policy", "fifo", "--json")
    found = json.loads(again.stdout)["policies"][0]
    first = json.loads(
        bkai("--generate", "--days", 2, "--load", 1.3, "--nodes", 3, "--policy", "fifo", "--json").stdout
    )
    assert found["waits"] == first["policies"][0]["waits"]


def test_the_same_seed_gives_the_same_run(bkai: Bkai, tmp_path: Path) -> None:
    words = (
        "--generate",
        "--days",
        3,
        "--nodes",
        3,
        "--fault-rate",
        2,
        "--policy",
        "fair",
        "--json",
        "--seed",
        5,
    )
    first = bkai(*words, "--picture", "a.svg", hash_seed=1)
    second = bkai(*words, "--picture", "b.svg", hash_seed=2)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert json.loads(first.stdout)["policies"][0]["service_deaths"] > 3
    other = bkai(*words[:-1], 6)
    assert other.stdout != first.stdout


def test_settings_and_machines_of_ones_own(bkai: Bkai, tmp_path: Path) -> None:
    (tmp_path / "bkai.yaml").write_text(
        "groups:\n  default: {limits: {total: {sessions: 1}}}\n  other: {public: false, queue: {discipline: lifo}}\n"
    )
    rows = "".join(f"{n},ada,{group},1,1024,cuda,600\n" for n in range(5) for group in ("default", "other"))
    (tmp_path / "t.csv").write_text(HEAD + rows)
    done = bkai("--trace", "t.csv", "--settings", "bkai.yaml", "--devices", "fake:one-8gb", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["policies"][0]
    assert found["policy"] == "settings"
    assert found["waits"]["other"]["sessions"] == 5
    assert found["refused"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Give either --trace FILE or --generate."),
        (("--generate", "--trace", "t.csv"), "Give either --trace FILE or --generate."),
        (("--trace", "missing.csv"), "missing.csv: it cannot be read (No such file or directory)."),
        (("--trace", "empty.csv"), "empty.csv: it is empty;"),
        (("--trace", "wrong.csv"), "wrong.csv, line 3, column took_s: “long” is not a number of seconds."),
        (("--trace", "binary.csv"), "binary.csv: this is not a text in UTF-8."),
        (("--trace", "other.csv"), "there is no resource group “lab”, which the trace asks for"),
        (
            ("--generate", "--policy", "fare"),
            "there is no discipline or placement “fare”; known are fifo, lifo",
        ),
        (("--generate", "--policy", "fifo,backfill=perhaps"), "policy “fifo,backfill=perhaps”.backfill: "),
        (("--generate", "--policy", "fifo,lifo"), "discipline is said twice."),
        (("--generate", "--policy", "none.yaml"), "none.yaml: it cannot be read"),
        (("--generate", "--settings", "none.yaml"), "none.yaml: it cannot be read"),
        (("--generate", "--devices", "fake:nothing"), "nothing"),
        (("--generate", "--faults", "flood"), "there is no fault “flood”; known are die-before"),
        (("--generate", "--faults", "node"), "give --fault-rate too, which says how many an hour."),
        (("--generate", "--picture", "two.png"), "the picture is an SVG file; call it two.svg."),
        (("--generate", "--step", "soon"), "“soon” is not a time such as 10s or 1m."),
        (("--generate", "--days", "0.05", "--picture", "no/where.svg"), "no/where.svg: it cannot be written"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    words: tuple[str, ...], said: str, bkai: Bkai, tmp_path: Path
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "wrong.csv").write_text(HEAD + "0,ada,default,1,1024,,60\n1,ada,default,1,1024,,long\n")
    (tmp_path / "other.csv").write_text(HEAD + "0,ada,lab,1,1024,,60\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    done = bkai(*words)
    assert said in done.stderr
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
