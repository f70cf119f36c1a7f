"""Environments really made: the installer, the package server, kernels, other users and a full disk are real."""

import asyncio
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_bkai.builds import interpreter
from jupyterhub_bkai.builds.catalog import ImageVersion
from jupyterhub_bkai.builds.environment import Environments, Progress
from jupyterhub_bkai.builds.foundation import Foundation
from jupyterhub_bkai.errors import Conflict, PublicError, Unavailable
from tests.builds.conftest import SHARED, Define

pytestmark = pytest.mark.slow

NOBODY = 65534


def six(version: str) -> str:
    return f"title: Six\nimports: six\nversion: {version}\n"


@pytest.fixture
def environments(own_data: Path, light: Foundation) -> Environments:
    return Environments(own_data, light, shared=SHARED)


async def heard(environments: Environments, image: ImageVersion) -> list[Progress]:
    return [progress async for progress in environments.realise(image)]


async def refused(environments: Environments, image: ImageVersion) -> PublicError:
    """The error of an image that cannot be made; nothing is left of it."""
    with pytest.raises(PublicError) as caught:
        await heard(environments, image)
    assert not environments.is_ready(image)
    assert unfinished(environments) == []
    return caught.value


def unfinished(environments: Environments) -> list[str]:
    return [path.name for path in environments.root.glob(".*")]


def run(program: Path, *arguments: object, **more: object) -> str:
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


async def test_from_nothing_to_a_verified_environment(
    own_data: Path, foundation: Foundation, define: Define
) -> None:
    environments = Environments(own_data, foundation, shared=SHARED)
    image = define("six/1.17", "six==1.17.0\n", six("1.17.0"), foundation)
    assert not environments.is_ready(image)
    told = await heard(environments, image)
    assert environments.is_ready(image)
    assert unfinished(environments) == []

    percents = [progress.percent or 0 for progress in told]
    assert percents == sorted(percents)
    assert told[-1] == Progress(100, "Image version six/1.17 is ready")
    words = " ".join(progress.message for progress in told)
    for part in ("Looking up", "Fetching", "Installing", "Preparing for a quick start", "Checking"):
        assert part in words

    path, python = environments.path_of(image), environments.python_of(image)
    record = json.loads((path / "environment.json").read_text())
    installed = list(path.glob("lib/python3.*/site-packages/*.dist-info"))
    assert record["packages"] == len(installed)
    assert f"Installing {len(installed)} packages" in words
    check_records(path, environments.foundation)
    # In its final place it still holds what the label says, and so does a kernel started from its kernelspec.
    run(python, "-I", path / "image" / "verify")
    [kernel] = path.glob("share/jupyter/kernels/*/kernel.json")
    assert json.loads(kernel.read_text())["argv"][0] == str(python)
    assert run(python, "-m", "jupyter", "kernelspec", "list", "--json").count(str(path)) >= 1
    assert run(path / "bin" / "jupyter", "--version")
    assert [progress.message for progress in await heard(environments, image)] == [told[-1].message]


def check_records(path: Path, foundation: Foundation) -> None:
    lock, frozen = (path / "requirements.lock").read_text(), (path / "freeze.txt").read_text().split()
    pins = {line.split(" ")[0] for line in lock.splitlines() if "==" in line}
    assert {"six==1.17.0", "jupyterlab==4.6.6", "jupyterhub==6.1.1"} < pins
    assert {pin.partition("==")[0] for pin in pins} == {line.partition("==")[0] for line in frozen}
    assert f"--hash=sha256:{foundation.wheel.digest}" in lock
    assert lock.count("--hash=sha256:") >= len(pins)
    assert "://" not in lock


async def test_nothing_in_it_can_be_changed_by_others(environments: Environments, define: Define) -> None:
    image = define("six/1.17", "six==1.17.0\n", six("1.17.0"))
    await heard(environments, image)
    places = [path for path in environments.path_of(image).rglob("*") if not path.is_symlink()]
    assert len(places) > 1000
    assert [path for path in places if path.stat().st_mode & (stat.S_IWOTH | stat.S_IWGRP)] == []
    closed = [path for path in places if path.is_dir() and path.stat().st_mode & 0o555 != 0o555]
    assert closed == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
async def test_another_user_runs_in_it_and_changes_nothing(
    environments: Environments, define: Define
) -> None:
    image = define("six/1.17", "six==1.17.0\n", six("1.17.0"))
    await heard(environments, image)
    code = (
        "import os, sys, six, jupyterhub_bkai, ipykernel\n"
        "denied = []\n"
        "for path in (sys.prefix, os.path.dirname(six.__file__), six.__file__, sys.executable):\n"
        "    try:\n"
        "        os.path.isdir(path) and open(path + '/mine', 'w') or open(path, 'a')\n"
        "    except PermissionError:\n"
        "        denied.append(path)\n"
        "print(os.getuid(), six.__version__, len(denied))"
    )
    said = run(
        environments.python_of(image), "-c", code, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
        env={"HOME": "/nonexistent", "PATH": "/usr/bin"},
    )  # fmt: skip
    assert said == f"{NOBODY} 1.17.0 4"


async def test_two_askers_join(environments: Environments, define: Define) -> None:
    image = define("six/1.16", "six==1.16.0\n", six("1.16.0"))
    first = asyncio.create_task(heard(environments, image))
    async with asyncio.timeout(60):
        while len(unfinished(environments)) == 0:  # noqa: ASYNC110 - the installer does not set our events
            await asyncio.sleep(0.01)
    second = asyncio.create_task(heard(environments, image))
    both = await asyncio.gather(first, second)
    assert both[0] == both[1]
    assert len(both[0]) > 3
    assert len(list(environments.root.glob("six-1.16-*"))) == 1


async def test_the_second_environment_shares_with_the_first(
    environments: Environments, define: Define
) -> None:
    """Files by the installer's cache, bytecode by ours."""
    first = define("six/1.17", "six==1.17.0\n", six("1.17.0"))
    second = define("six/1.15", "six==1.15.0\n", six("1.15.0"))
    await heard(environments, first)
    told = await heard(environments, second)
    sites = [
        next(environments.path_of(image).glob("lib/python3.*/site-packages")) for image in (first, second)
    ]
    for name in ("tornado/web.py", "tornado/__pycache__/web.cpython-*.pyc"):
        one, other = (next(site.glob(name)).stat().st_ino for site in sites)
        assert one == other, name
    assert compiled_files(told) < 20
    verify = environments.path_of(second) / "image" / "verify"
    run(environments.python_of(second), "-I", verify)


def compiled_files(told: list[Progress]) -> int:
    counts = [re.search(r"of (\d+) files", progress.message) for progress in told]
    return max((int(count[1]) for count in counts if count), default=0)


async def test_a_label_that_is_not_true(environments: Environments, define: Define) -> None:
    image = define("six/wrong", "six==1.17.0\n", six("1.17.1"))
    error = await refused(environments, image)
    assert error.reason == "unverified"
    assert "the label says six 1.17.1, but importing six gives 1.17.0" in error.message


async def test_a_kernel_that_says_otherwise(environments: Environments, define: Define) -> None:
    """The module lies to the kernel only: what people see in a notebook is what counts."""
    lie = "import sys, six; sys.orig_argv[1:3] == ['-m', 'ipykernel_launcher'] and setattr(six, '__version__', '0')"
    verify = (
        "import sys\nfrom pathlib import Path\n"
        "site = next(Path(sys.prefix).glob('lib/python3*/site-packages'))\n"
        f"(site / 'lie.pth').write_text({lie!r})\n"
        "from jupyterhub_bkai.builds import label\nlabel.check(__file__)\n"
    )
    image = define("six/lie", "six==1.17.0\n", six("1.17.0"), verify=verify)
    error = await refused(environments, image)
    assert "the label says six 1.17.0, but a kernel that prints six gives 0" in error.message


async def test_packages_that_do_not_exist(environments: Environments, define: Define, own_data: Path) -> None:
    image = define("six/none", "six==99.0\n", six("99.0"))
    error = await refused(environments, image)
    assert error.reason == "unresolvable"
    assert error.message == (
        "Image version six/none cannot be made: its packages cannot be had together: "
        "there is no version of six==99.0 (the service's log of this image has the details)."
    )
    assert "No solution found" in (own_data / "log" / "images" / "six-none.log").read_text()


async def test_a_server_that_does_not_answer(
    light: Foundation, define: Define, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", address)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    away = Environments(tmp_path / "data", light, shared=False)
    error = await refused(away, define("six/1.17", "six==1.17.0\n", six("1.17.0")))
    assert error.reason == "no-network"
    assert "the packages' server does not answer" in error.message
    assert "127.0.0.1" not in error.message


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """A file system of so many MiB."""
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root to be mounted")
    places: list[str] = []

    def mount(mib: int) -> Path:
        place = tempfile.mkdtemp(prefix="bkai-disk-", dir="/tmp")
        options = ["-o", f"size={mib}m,mode=755"]
        if subprocess.run(["mount", "-t", "tmpfs", *options, "none", place], capture_output=True).returncode:
            os.rmdir(place)
            pytest.skip("file systems cannot be mounted here")
        places.append(place)
        return Path(place)

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)
        os.rmdir(place)


@pytest.mark.parametrize("mib", [1, 60])
async def test_a_full_disk(
    foundation: Foundation, define: Define, small_disk: Callable[[int], Path], mib: int
) -> None:
    """Full before anything is looked up, and in the middle of the packages."""
    place = small_disk(mib)
    if mib == 1:
        (place / "filling").write_bytes(b"x" * (940 << 10))
    full = Environments(place, foundation, shared=SHARED)
    error = await refused(full, define("six/1.17", "six==1.17.0\n", six("1.17.0"), foundation))
    assert (error.reason, error.message) == (
        "disk-full",
        "Image version six/1.17 cannot be made, because the disk is full: an administrator must free some space.",
    )


async def test_a_lock_that_comes_along_decides(environments: Environments, define: Define) -> None:
    digest = "9ea1544ad55cecf4b8242fab6dd35a93bbce657034b0611ee383099054ab6d8c"
    lock = f"pygments==2.19.1 \\\n    --hash=sha256:{digest}\n"
    old = lock + "jupyterhub-bkai==0.0.1 \\\n    --hash=sha256:00\n"
    image = define("six/locked", "six==1.17.0\n", six("1.17.0"), **{"requirements.lock": old})
    await heard(environments, image)
    frozen = (environments.path_of(image) / "freeze.txt").read_text().split()
    own = f"jupyterhub-bkai=={environments.foundation.wheel.version}"
    assert {"pygments==2.19.1", own} < set(frozen)


async def test_a_definition_that_changed_meanwhile(environments: Environments, define: Define) -> None:
    image = define("six/1.17", "six==1.17.0\n", six("1.17.0") + "description: other\n")
    (image.path / "requirements.txt").write_text("six==1.16.0\n")
    error = await refused(environments, image)
    assert isinstance(error, Conflict)
    assert error.reason == "definition-changed"


async def test_a_python_that_is_not_to_be_had(
    environments: Environments, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = define("python/3.99", "", "python: '3.99'\n")
    error = await refused(environments, image)
    assert error.reason == "no-python"
    assert "the Python it needs is neither on this machine nor to be had" in error.message


async def test_pruning_keeps_what_is_kept(environments: Environments, define: Define) -> None:
    kept = define("six/1.17", "six==1.17.0\n", six("1.17.0"))
    gone = define("six/1.14", "six==1.14.0\n", six("1.14.0"))
    for image in (kept, gone):
        await heard(environments, image)
    removed = environments.prune({kept.key})
    assert environments.path_of(gone).name in removed
    assert (environments.is_ready(kept), environments.is_ready(gone)) == (True, False)
    assert unfinished(environments) == []


async def test_an_environment_whose_python_went_away_is_made_anew(
    environments: Environments, define: Define
) -> None:
    image = define("six/1.17", "six==1.17.0\n", six("1.17.0"))
    await heard(environments, image)
    python = environments.python_of(image)
    python.parent.chmod(0o755)  # what is made is read-only
    python.unlink()
    python.symlink_to("/gone/python3.11")
    assert not environments.is_ready(image)
    await heard(environments, image)
    assert environments.is_ready(image)
    assert run(python, "-c", "print(1)") == "1"


async def test_all_of_them(environments: Environments, define: Define) -> None:
    """One that fails does not keep the others from being made."""
    images = [
        define("six/none", "six==99.0\n", six("99.0")),
        define("six/1.17", "six==1.17.0\n", six("1.17.0")),
    ]
    told = [(image.name, progress) async for image, progress in environments.realise_all(images)]
    last = dict(told)
    assert last["six/none"].percent is None
    assert "cannot be made" in last["six/none"].message
    assert last["six/1.17"].percent == 100


@pytest.mark.skipif(os.geteuid() != 0, reason="without root, sessions are no other users")
async def test_a_data_folder_that_is_closed_to_session_users(
    light: Foundation, define: Define, tmp_path: Path
) -> None:
    closed = tmp_path / "root's own"
    closed.mkdir(mode=0o700)
    environments = Environments(closed / "data", light, shared=True)
    error = await refused(environments, define("six/1.17", "six==1.17.0\n", six("1.17.0")))
    assert error.reason == "closed-folder"
    assert "is closed to them: an administrator must put the data folder elsewhere" in error.message


def test_a_closed_interpreter_is_passed_over(tmp_path: Path) -> None:
    program = tmp_path / "a" / "b" / "python"
    program.parent.mkdir(parents=True)
    program.touch()
    opened = interpreter.closed_folder(program)
    assert opened is not None, "a program nobody may run is no interpreter"
    for path in (program, *program.parents[:-2]):
        if path.owner() == os.environ.get("USER", path.owner()):
            path.chmod(0o755)
    assert interpreter.closed_folder(program) is None
    program.parents[1].chmod(0o711)
    assert interpreter.closed_folder(program) is None, "passing through is enough"
    program.parents[1].chmod(0o750)
    assert interpreter.closed_folder(program) == program.parents[1]


def test_the_base_is_open_to_session_users() -> None:
    assert interpreter.base(shared=False).path == Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    try:
        chosen = interpreter.base(shared=True)
    except Unavailable as error:
        assert error.reason == "no-python"  # noqa: PT017 - a machine without a Python for everybody
    else:
        assert interpreter.closed_folder(chosen.path) is None
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        assert run(chosen.path, "-c", code) == chosen.minor


def test_the_foundation_is_in_the_keys(foundation: Foundation, define: Define) -> None:
    other = [
        replace(foundation, hub_version="6.1.2"),
        replace(foundation, python=replace(foundation.python, minor="3.13")),
        replace(foundation, wheel=replace(foundation.wheel, digest="0" * 64)),
    ]
    assert len({foundation.digest, *(each.digest for each in other)}) == 4
    moved = replace(foundation, wheel=replace(foundation.wheel, path=Path("/elsewhere/x.whl")))
    assert moved.digest == foundation.digest, "not where the wheel lies, but what is in it"


def test_leftovers_of_the_dead_alone_are_removed(
    own_data: Path, foundation: Foundation, tmp_path: Path
) -> None:
    environments = Environments(tmp_path, foundation, shared=False)
    environments.root.mkdir()
    ours = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    alive = f".making-a-1-k~{os.getpid()}.{ours}.{boot}~1"
    dead = [
        f".making-a-1-k~{os.getpid()}.{int(ours) - 1}.{boot}~1",  # another process had the number
        f".making-a-1-k~{os.getpid()}.{ours}.{'0' * 8}~1",  # before the machine was started again
        f".gone-a-1-k~999999999.1.{boot}~1",
        ".making-nonsense",
        ".making-a~../../x~1",
    ]  # fmt: skip
    dead = [name for name in dead if "/" not in name]
    for name in (alive, *dead, "a-1-k"):
        (environments.root / name / "lib").mkdir(parents=True)
        (environments.root / name / "lib").chmod(0o555)
    assert sorted(environments.clean()) == sorted(dead)
    assert sorted(path.name for path in environments.root.iterdir()) == [alive, "a-1-k"]
    (environments.root / alive / "lib").chmod(0o755)
    shutil.rmtree(environments.root)
