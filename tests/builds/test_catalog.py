"""Folders of definitions → a catalogue; a broken or hostile one costs only itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_bkai.builds import catalog


def define(root: Path, name: str, **files: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    given = {
        "image_yml": "imports: json\nversion: 2.0.9\n",
        "requirements_txt": "",
        "verify": "pass\n",
    } | files
    for file, content in given.items():
        (folder / file.replace("_", ".")).write_text(content)
    return folder


def test_newest_first_and_families_in_order(tmp_path: Path) -> None:
    for name in ("b/1.9", "b/1.10", "b/1.10rc1", "b/edge", "a/2"):
        define(tmp_path, name)
    (tmp_path / "README.md").write_text("not a family")
    (tmp_path / "b" / "notes.txt").write_text("not a version")
    (tmp_path / ".git" / "x").mkdir(parents=True)
    found = catalog.read([tmp_path])
    assert found.problems == ()
    assert list(found.images) == ["a/2", "b/1.10", "b/1.10rc1", "b/1.9", "b/edge"]


def test_a_later_root_replaces(tmp_path: Path) -> None:
    define(tmp_path / "shipped", "a/1")
    define(tmp_path / "shipped", "a/2")
    own = define(tmp_path / "own", "a/1", image_yml="title: Ours\npython: '3.11'\n")
    found = catalog.read([tmp_path / "shipped", tmp_path / "own"]).images
    assert (found["a/1"].title, found["a/1"].path) == ("Ours", own)
    assert found["a/2"].title == "a 2"


def test_keys_follow_files_and_foundation(tmp_path: Path) -> None:
    folder = define(tmp_path, "a/1")

    def key(foundation: str) -> str:
        return catalog.read([tmp_path], foundation).images["a/1"].key

    first = key("one")
    assert (key("one"), key("two") != first) == (first, True)
    (folder / "requirements.txt").write_text("numpy==2.4.6\n")
    assert key("one") != first


def test_a_broken_one_costs_only_itself(tmp_path: Path) -> None:
    define(tmp_path, "good/1")
    define(tmp_path, "bad/1", image_yml=": :\n  - ]")
    define(tmp_path, "bad/2", requirements_txt="numpy\n")
    (define(tmp_path, "bad/3") / "verify").unlink()
    define(tmp_path, "Bad/4")
    found = catalog.read([tmp_path])
    assert list(found.images) == ["good/1"]
    assert [str(problem.path.relative_to(tmp_path)) for problem in found.problems] == [
        "Bad/4",
        "bad/1/image.yml",
        "bad/2/requirements.txt",
        "bad/3/verify",
    ]
    assert str(found.problems[3]) == f"{tmp_path}/bad/3/verify: this file is missing."


def test_hostile_files(tmp_path: Path) -> None:
    define(tmp_path, "good/1")
    huge = define(tmp_path, "bad/huge")
    with (huge / "verify").open("wb") as file:
        file.truncate(10 << 30)
    many = define(tmp_path, "bad/many")
    for number in range(70):
        (many / f"file{number}").touch()
    pipe = define(tmp_path, "bad/pipe")
    (pipe / "verify").unlink()
    os.mkfifo(pipe / "verify")
    endless = define(tmp_path, "bad/zero")
    (endless / "requirements.txt").unlink()
    (endless / "requirements.txt").symlink_to("/dev/zero")
    loop = define(tmp_path, "bad/loop")
    (loop / "verify").unlink()
    (loop / "verify").symlink_to("verify")
    found = catalog.read([tmp_path])
    assert list(found.images) == ["good/1"]
    assert {problem.path.parent.name + "/" + problem.path.name: problem.sentence for problem in found.problems} == {
        "huge/verify": "this is larger than 1 MiB.",
        "bad/many": "there are more than 64 files in this folder.",
        "pipe/verify": "this file is missing.",
        "zero/requirements.txt": "this file is missing.",
        "loop/verify": "this cannot be read (Too many levels of symbolic links).",
    }  # fmt: skip


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    define(tmp_path / "here", "a/1")
    found = catalog.read([tmp_path / "gone", tmp_path / "here"])
    assert list(found.images) == ["a/1"]
    assert [problem.sentence for problem in found.problems] == [
        "this folder cannot be read (No such file or directory)."
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's closed folder needs root to make")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    """Read by a process that is not root."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    define(tmp_path, "good/1")
    (define(tmp_path, "bad/1") / "verify").chmod(0o600)
    define(tmp_path, "bad/2").chmod(0o700)
    code = (
        "import os, sys; os.setgid(65534); os.setuid(65534)\n"
        "from pathlib import Path; from jupyterhub_bkai.builds import catalog\n"
        "found = catalog.read([Path(sys.argv[1])])\n"
        "print(*found.images, *(p.path.name + ' ' + p.sentence for p in found.problems), sep='\\n')"
    )
    # Imports come from folders that the other user may not enter: they are loaded first.
    code = "from jupyterhub_bkai.builds import catalog\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=Path.cwd()
    )
    assert done.stdout.splitlines() == [
        "good/1",
        "verify this cannot be read (Permission denied).",
        "2 this cannot be read (Permission denied).",
    ], done.stderr
