"""Our own distribution as a wheel: from a checkout and from an installation, and the same bytes each time."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from jupyterhub_bkai.builds import wheel
from jupyterhub_bkai.builds.wheel import Wheel, built_entries, installed_entries, own_wheel, pack
from jupyterhub_bkai.errors import Unavailable

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return own_wheel(tmp_path_factory.mktemp("cache") / "wheels", tree)


@pytest.fixture(scope="module")
def environment(packed: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(packed.path, tmp_path_factory.mktemp("installed") / "env")


def installed(path: Path, folder: Path) -> Path:
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    into = ["--python", str(folder / "bin/python"), "--no-deps", "--compile-bytecode"]
    subprocess.run([*uv, "pip", "install", "--quiet", *into, str(path)], check=True)
    return folder


def distribution(environment: Path) -> metadata.Distribution:
    [info] = environment.glob("lib/python3.*/site-packages/jupyterhub_bkai-*.dist-info")
    return metadata.Distribution.at(info)


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return set(archive.namelist())


def test_what_a_session_needs_is_in_it_and_no_more(packed: Wheel) -> None:
    inside = names(packed.path)
    data = f"jupyterhub_bkai-{packed.version}.data/data"
    assert {
        "jupyterhub_bkai/singleuser/__init__.py",
        "jupyterhub_bkai/builds/label.py",
        "bkaispawner/__init__.py",
        f"{data}/etc/jupyter/jupyter_server_config.d/jupyterhub_bkai.json",
        f"{data}/share/jupyter/labextensions/jupyterhub-bkai/package.json",
        f"jupyterhub_bkai-{packed.version}.dist-info/entry_points.txt",
    } <= inside
    assert not [name for name in inside if "/_images/" in name or "/_proxy/" in name or name.endswith(".pyc")]
    assert packed.digest == hashlib.sha256(packed.path.read_bytes()).hexdigest()


def test_the_same_sources_give_the_same_bytes(packed: Wheel, tree: Path, tmp_path: Path) -> None:
    _, entries = built_entries(tree, tmp_path / "cache")
    again = pack(entries)
    assert hashlib.sha256(again).hexdigest() == packed.digest
    assert list((tmp_path / "cache").iterdir()) == [], "nothing of the building is left"
    assert not list(tree.glob("*.egg-info")), "nothing is written into the sources"


def test_the_cache_is_asked_first(packed: Wheel, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", None)
    assert own_wheel(packed.path.parents[1], tree) == packed


def test_a_change_of_the_sources_is_seen(packed: Wheel, tree: Path, tmp_path: Path) -> None:
    changed = tmp_path / "source"
    shutil.copytree(tree, changed)
    (changed / "images" / "sklearn" / "1.7" / "verify").write_text("pass")
    assert own_wheel(packed.path.parents[1], changed) == packed, "image definitions are no part of it"
    with (changed / "jupyterhub_bkai" / "names.py").open("a") as file:
        file.write("# changed\n")
    assert own_wheel(packed.path.parents[1], changed).digest != packed.digest


def test_the_cache_does_not_grow_for_ever(tmp_path: Path) -> None:
    """As in a checkout that is worked on."""
    for number in range(12):
        stored = wheel._store(tmp_path, pack({"x-1.dist-info/METADATA": (str(number).encode(), False)}))
        (tmp_path / f"{number}.txt").write_text(str(number))
        wheel._forget(tmp_path)
    assert stored.path.is_file()
    assert (
        len(list(tmp_path.glob("*/*.whl")))
        == len([p for p in tmp_path.iterdir() if p.is_dir()])
        == wheel.KEPT
    )
    assert len(list(tmp_path.glob("*.txt"))) == 2 * wheel.KEPT


def test_a_damaged_cache_is_made_anew(packed: Wheel, tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "wheels"
    shutil.copytree(packed.path.parents[1], cache)
    damaged = cache / packed.path.parent.name / packed.path.name
    damaged.write_bytes(damaged.read_bytes()[:1000])
    again = own_wheel(cache, tree)
    assert again.digest == packed.digest
    assert again.path.read_bytes() == packed.path.read_bytes()


def test_an_installation_packs_to_the_wheel_it_came_from(
    packed: Wheel, environment: Path, tmp_path: Path
) -> None:
    assert list(environment.glob("lib/python3.*/site-packages/jupyterhub_bkai/__pycache__/*.pyc"))
    content = pack(installed_entries(distribution(environment)))
    assert hashlib.sha256(content).hexdigest() == packed.digest


def test_a_packed_installation_can_be_installed(environment: Path, tmp_path: Path) -> None:
    stored = wheel._store(tmp_path / "wheels", pack(installed_entries(distribution(environment))))
    other = installed(stored.path, tmp_path / "env")
    code = "import jupyterhub_bkai, bkaispawner; print(jupyterhub_bkai.__version__)"
    done = subprocess.run([other / "bin/python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == stored.version
    points = {(point.group, point.name) for point in distribution(other).entry_points}
    assert {("jupyterhub.spawners", "bkai-process"), ("console_scripts", "bkai")} <= points
    assert (other / "bin/bkai").is_file()
    assert (other / "share/jupyter/labextensions/jupyterhub-bkai/package.json").is_file()
    assert (other / "etc/jupyter/jupyter_server_config.d/jupyterhub_bkai.json").is_file()
    required = distribution(other).requires or []
    assert any("jupyter-server-proxy" in line and "singleuser" in line for line in required)


def test_a_damaged_installation_is_told(environment: Path, tmp_path: Path) -> None:
    broken = tmp_path / "env"
    shutil.copytree(environment, broken, symlinks=True)
    [lost] = broken.glob("lib/python3.*/site-packages/jupyterhub_bkai/names.py")
    lost.unlink()
    with pytest.raises(
        Unavailable, match=r"is damaged, jupyterhub_bkai/names.py is missing: reinstall it\.$"
    ):
        installed_entries(distribution(broken))
    [record] = broken.glob("lib/python3.*/site-packages/jupyterhub_bkai-*.dist-info/RECORD")
    record.unlink()
    with pytest.raises(Unavailable, match="has no record of its files"):
        installed_entries(distribution(broken))


def test_a_checkout_that_is_not_built_is_told(tree: Path, tmp_path: Path) -> None:
    bare = tmp_path / "source"
    shutil.copytree(tree, bare)
    shutil.rmtree(bare / "labextension" / "prebuilt")
    with pytest.raises(Unavailable, match=r"cannot be packed for sessions: .*run `make build` first"):
        own_wheel(tmp_path / "wheels", bare)
