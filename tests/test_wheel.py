"""What ships: the wheel is built once, looked into, and installed into clean environments."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

from tests.conftest import ROOT, built

LABEXTENSION = "data/share/jupyter/labextensions/jupyterhub-bkai/"
SERVER_CONFIG = "data/etc/jupyter/jupyter_server_config.d/jupyterhub_bkai.json"

pytestmark = pytest.mark.slow


def names(wheel: Path) -> list[str]:
    """The files of a wheel; those that go beside the packages begin with `data/`."""
    with zipfile.ZipFile(wheel) as archive:
        return [name.partition(".data/")[2] or name for name in archive.namelist()]


def files(folder: Path) -> set[str]:
    """The files below a folder that are meant to ship."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        str(p) for p in paths if "__pycache__" not in p.parts and not any(x.startswith(".") for x in p.parts)
    }


def python(environment: Path, *arguments: str) -> str:
    run = subprocess.run(
        [environment / "bin/python", *arguments], capture_output=True, text=True, cwd=environment
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def environment_with(wheel: Path, extras: str, folder: Path) -> Path:
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    requirement = f"jupyterhub-bkai[{extras}] @ {wheel.as_uri()}"
    target = ["--python", str(folder / "bin/python"), "--constraints", str(ROOT / "constraints.txt")]
    subprocess.run([*uv, "pip", "install", "--quiet", *target, requirement], check=True)
    return folder


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_with(wheel, "hub,singleuser", tmp_path_factory.mktemp("installed") / "env")


def test_one_copy_of_the_labextension(wheel: Path) -> None:
    inside = names(wheel)
    built_files = files(ROOT / "labextension/prebuilt")
    assert {
        name.removeprefix(LABEXTENSION) for name in inside if name.startswith(LABEXTENSION)
    } == built_files
    copies = Counter(PurePosixPath(name).name for name in inside)
    entries = [
        PurePosixPath(name).name for name in built_files if "remoteEntry" in name and name.endswith(".js")
    ]
    assert [copies[name] for name in entries] == [1]


@pytest.mark.parametrize(
    ("folder", "target"),
    [
        ("jupyterhub_bkai", "jupyterhub_bkai/"),
        ("spawners/bkaispawner", "bkaispawner/"),
        ("images", "jupyterhub_bkai/_images/"),
    ],
)
def test_nothing_of_the_packages_is_left_out(folder: str, target: str, wheel: Path) -> None:
    inside = {name.removeprefix(target) for name in names(wheel) if name.startswith(target)}
    assert sorted(files(ROOT / folder) - inside) == []


def test_proxy_and_configuration_are_inside(wheel: Path) -> None:
    inside = names(wheel)
    assert SERVER_CONFIG in inside
    assert "data/share/bkai/grafana/bkai.json" in inside
    for part in ("configurable-http-proxy.js", "THIRD-PARTY-LICENSES.txt", "error/503.html"):
        assert f"jupyterhub_bkai/_proxy/{part}" in inside


def test_an_sdist_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(built("--sdist", ROOT, tmp_path / "sdist")) as archive:
        # Not in every 3.11, and the default from 3.14 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    [source] = tmp_path.glob("jupyterhub_bkai-*")
    assert sorted(names(built("--wheel", source, tmp_path / "wheel"))) == sorted(names(wheel))


@pytest.mark.parametrize("part", ["labextension/prebuilt", "jupyterhub_bkai/_proxy"])
def test_a_wheel_without_its_built_parts_is_refused(part: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "node_modules", "tests", "docs", "build")
    )
    shutil.rmtree(source / part)
    with pytest.raises(AssertionError, match=f"{part}.*run `make build` first"):
        built("--wheel", source, tmp_path)


def test_every_entry_point_can_be_imported(installed: Path) -> None:
    code = """
        from importlib.metadata import distribution
        for entry in distribution("jupyterhub-bkai").entry_points:
            print(entry.group, entry.name, entry.load().__name__)
    """
    said = python(installed, "-c", "import textwrap; exec(textwrap.dedent('''" + code + "'''))").splitlines()
    assert {line.split()[1] for line in said} == {"bkai", "bkai-process", "fake", "nvidia"}


def test_shipped_files_are_found(installed: Path) -> None:
    code = (
        "from jupyterhub_bkai import nodeproxy, shipped; import json; print(json.dumps([nodeproxy.command(), "
    )
    code += "str(shipped.images())]))"
    command, images = json.loads(python(installed, "-c", code))
    assert Path(command[1]).is_relative_to(installed)
    assert Path(images).is_relative_to(installed)
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert (
        version.stdout.strip()
        == json.loads((ROOT / "proxy/package.json").read_text())["dependencies"]["configurable-http-proxy"]
    )


def test_jupyter_sees_both_extensions(installed: Path) -> None:
    def listed(*command: str) -> str:
        run = subprocess.run([installed / "bin" / command[0], *command[1:]], capture_output=True, text=True)
        return run.stdout + run.stderr

    server = re.sub(r"\x1b\[\d*m", "", listed("jupyter-server", "extension", "list"))
    assert re.search(r"^ *jupyterhub_bkai\.singleuser enabled$", server, re.MULTILINE), server
    assert re.search(r"^ *jupyterhub_bkai\.singleuser .*OK$", server, re.MULTILINE), server
    lab = listed("jupyter-labextension", "list")
    assert "jupyterhub-bkai" in lab
    assert "enabled" in next(line for line in lab.splitlines() if "jupyterhub-bkai" in line)


def test_a_laptop_needs_the_cli_extra_only(wheel: Path, tmp_path: Path) -> None:
    laptop = environment_with(wheel, "cli", tmp_path / "env")
    run = subprocess.run([laptop / "bin/bkai", "--help"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "session" in run.stdout
    there = {path.name.lower() for path in (laptop / "lib").glob("python*/site-packages/*")}
    assert not there & {"sqlalchemy", "tornado", "jupyterhub", "jupyterlab", "yaml"}
