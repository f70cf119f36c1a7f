"""What `bkai run` would upload, build and start."""

import os
from pathlib import Path

import pytest

from jupyterhub_bkai.cli import ignoring, plan
from jupyterhub_bkai.client import BkaiError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def targets(folder: Path) -> list[str]:
    return [item.target for item in plan.make(folder, ["true"]).items]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("x.py", ("python", "x.py")),
        ("x.sh", ("bash", "x.sh")),
        ("x.ipynb", (*plan.BY_ENDING[".ipynb"], "x.ipynb")),
    ],
)
def test_files(folder: Path, name: str, command: tuple[str, ...]) -> None:
    put(folder, name, "requirements.txt")
    made = plan.make(folder / name, ())
    assert made.command == command
    assert [item.target for item in made.items] == [name]
    assert made.steps == ()


def test_folders(folder: Path) -> None:
    put(folder, "main.py")
    assert plan.make(folder, ()).command == ("python", "main.py")
    assert plan.make(folder, ("a", "b")).command == ("a", "b")


@pytest.mark.parametrize(
    ("name", "words", "command"),
    [
        ("fit.py", ("--alpha", "0.2"), ("python", "fit.py", "--alpha", "0.2")),
        ("fit.py", ("-v",), ("python", "fit.py", "-v")),
        ("fit.sh", ("-", "x"), ("bash", "fit.sh", "-", "x")),
        ("fit.py", ("python", "fit.py", "--alpha"), ("python", "fit.py", "--alpha")),
        (".", ("--alpha", "0.2"), ("python", "main.py", "--alpha", "0.2")),
        (".", ("./go", "--alpha"), ("./go", "--alpha")),
    ],
)  # fmt: skip
def test_what_stands_after_the_two_hyphens(
    folder: Path, name: str, words: tuple[str, ...], command: tuple[str, ...]
) -> None:
    put(folder, "fit.py", "fit.sh", "main.py")
    assert plan.make(folder / name, words).command == command


def test_a_notebook_takes_no_arguments(folder: Path) -> None:
    put(folder, "x.ipynb")
    with pytest.raises(BkaiError, match="takes no arguments"):
        plan.make(folder / "x.ipynb", ["--alpha", "0.2"])


@pytest.mark.parametrize("name", ["x.R", "x"])
def test_nobody_knows_how(folder: Path, name: str) -> None:
    put(folder, name)
    for path in (folder / name, folder):
        with pytest.raises(BkaiError) as caught:
            plan.make(path, ())
        assert " -- " in caught.value.message


def test_what_is_left_out(folder: Path) -> None:
    put(
        folder, "a.py", "sub/b.txt", "sub/deep/c.log", ".git/config", "sub/__pycache__/x.pyc", "env/pyvenv.cfg",
        "env/lib/y", "data/big", "data/small", "keep.log", "other/data/x", ".env",
    )  # fmt: skip
    (folder / ".bkaiignore").write_text("# comment\n\n*.log\n!keep.log\n/data/big\nother/data/\n")
    assert targets(folder) == ["a.py", "data/small", "keep.log", "sub/b.txt"]


def test_files_that_may_hold_passwords_stay_here_unless_they_are_asked_for(folder: Path) -> None:
    put(folder, "a.py", ".env", "sub/.env.local", "sub/my.env", ".environments/x")
    made = plan.make(folder, ["true"])
    assert [item.target for item in made.items] == ["a.py", "sub/my.env"]
    assert made.held_back == (".env", "sub/.env.local")
    (folder / ".bkaiignore").write_text("!.env\n")
    made = plan.make(folder, ["true"])
    assert [item.target for item in made.items] == [".env", "a.py", "sub/my.env"]
    assert made.held_back == ("sub/.env.local",)
    assert [item.target for item in plan.make(folder / ".env", ["true"]).items] == [".env"]


def test_links(folder: Path, tmp_path: Path) -> None:
    put(folder, "a")
    (folder / "circle").symlink_to(folder)
    (folder / "file").symlink_to(folder / "a")
    (folder / "nowhere").symlink_to(folder / "b")
    os.mkfifo(folder / "pipe")
    assert targets(folder) == ["a", "file"]


def test_modes_and_sizes(folder: Path) -> None:
    put(folder, "a", "b")
    (folder / "b").chmod(0o700)
    made = plan.make(folder, ["true"])
    assert [item.mode for item in made.items] == [0o644, 0o755]
    assert made.size == 2


def test_an_empty_folder(folder: Path) -> None:
    with pytest.raises(BkaiError, match="has no files"):
        plan.make(folder, ["true"])


def test_a_name_that_is_no_text(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff")).write_text("x")
    with pytest.raises(BkaiError, match="not valid text"):
        plan.make(folder, ["true"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    put(folder, "a")
    (folder / "a").chmod(0)
    with pytest.raises(BkaiError, match="cannot be read"):
        plan.make(folder, ["true"])


@pytest.mark.parametrize(
    ("files", "title"),
    [
        ({"requirements.txt": ""}, "pip install -r requirements.txt"),
        ({"setup.py": ""}, "pip install ."),
        ({"pyproject.toml": "[project]\nname='x'"}, "pip install ."),
        ({"pyproject.toml": "[build-system]", "requirements.txt": ""}, "pip install -r requirements.txt ."),
        ({"pyproject.toml": "[tool.ruff]\n"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_builds(folder: Path, files: dict[str, str], title: str | None) -> None:
    put(folder, "main.py")
    for name, text in files.items():
        (folder / name).write_text(text)
    made = plan.make(folder, ())
    assert [step.title for step in made.steps] == ([title] if title else [])
    assert (made.command == ("python", "main.py")) == (title is None)
    assert plan.make(folder, (), may_build=False).steps == ()


def test_a_build_of_ones_own(folder: Path) -> None:
    put(folder, "x.py")
    for path in (folder, folder / "x.py"):
        steps = plan.make(path, ["true"], "make all").steps
        assert steps[-1].title == "make all"
        assert steps[-1].command[-3:] == ("sh", "-c", "make all")


def test_a_broken_pyproject(folder: Path) -> None:
    put(folder, "main.py")
    (folder / "pyproject.toml").write_text("[")
    with pytest.raises(BkaiError, match=r"pyproject\.toml cannot be read"):
        plan.make(folder, ())


@pytest.mark.parametrize(
    ("line", "path", "is_folder", "expected"),
    [
        ("*.csv", "a/b.csv", False, True),
        ("*.csv", "a/b.csv.gz", False, False),
        ("build/", "x/build", True, True),
        ("build/", "build", False, False),
        ("/build", "x/build", True, False),
        ("a/b", "a/b", False, True),
        ("a/b", "x/a/b", False, False),
        ("!x.pyc", "x.pyc", False, False),
    ],
)
def test_patterns(line: str, path: str, is_folder: bool, expected: bool) -> None:
    assert ignoring.ignored(ignoring.parse([line]), path, is_folder) is expected
