"""What cannot be started gets one sentence and exit code 2, and nothing is changed."""

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyterhub_bkai.datadir import DataFolder, new_secrets, write_secrets
from tests.supervise.running import run_up, tree

FreePort = Callable[[], int]


@pytest.fixture
def place(shared: Path) -> Iterator[Path]:
    """Where a data folder may be: for root, others must get through to it."""
    folder = shared / f"refusals-{os.getpid()}"
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


def refused(*arguments: str) -> str:
    """The one sentence."""
    run = run_up(*arguments)
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stderr == ""
    assert len(run.stdout.splitlines()) == 1, run.stdout
    assert run.stdout.startswith("bkai up: ")
    return run.stdout.strip()


def test_a_port_that_is_taken(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused("--data", str(place / "d"), "--port", str(port))
    assert f"Port {port} of 127.0.0.1 is taken" in said
    assert "--port" in said
    assert not (place / "d").exists()


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_somebody_else(place: Path, host: str) -> None:
    assert "--host" in refused("--data", str(place / "d"), "--host", host, "--port", "8999")
    assert not (place / "d").exists()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "is damaged (it is not JSON)": lambda file: file.write_text('{"version": 1, "proxy_to'),
    "is not of a version": lambda file: file.write_text("[]"),
    "is not of a version this": lambda file: file.write_text(
        file.read_text().replace('"version": 1', '"version": 2')
    ),
    '"proxy_token" is missing or not a token': lambda file: file.write_text('{"version": 1}'),
    '"service_token" is missing or not': lambda file: file.write_text(
        file.read_text().replace('"service_token": "', '"service_token": "é')
    ),
    "can be read by other users": lambda file: file.chmod(0o644),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_secrets_that_are_no_good(place: Path, free_port: FreePort, what: str) -> None:
    folder = DataFolder(place / "d")
    folder.create()
    write_secrets(folder, new_secrets())
    DAMAGE[what](folder.secrets)
    before = tree(folder.root)
    said = refused("--data", str(folder.root), "--port", str(free_port()))
    assert what in said
    assert str(folder.secrets) in said
    assert tree(folder.root) == before


SETTINGS = {
    "devices: [": "this is not YAML",
    "colour: red\n": "unknown setting",
    "auth: ldap\n": "\"auth\" is 'ldap'",
    "groups: {g: {quantum: 0}}\n": "not a number above 0",
}


@pytest.mark.parametrize("text", SETTINGS)
def test_settings_with_mistakes(place: Path, free_port: FreePort, text: str) -> None:
    folder = DataFolder(place / "d")
    folder.root.mkdir()
    folder.settings.write_text(text)
    before = tree(folder.root)
    said = refused("--data", str(folder.root), "--port", str(free_port()))
    assert str(folder.settings) in said
    assert SETTINGS[text] in said
    assert tree(folder.root) == before


def test_a_folder_of_something_else(place: Path, free_port: FreePort) -> None:
    (place / "thesis.tex").write_text("…")
    before = tree(place)
    assert "is no data folder" in refused("--data", str(place), "--port", str(free_port()))
    assert tree(place) == before


def test_a_file_where_the_folder_should_be(place: Path, free_port: FreePort) -> None:
    (place / "d").write_text("")
    assert "is a file" in refused("--data", str(place / "d"), "--port", str(free_port()))


def test_a_path_too_long_for_a_socket(place: Path, free_port: FreePort) -> None:
    long = place / ("d" * 100)
    assert "too long" in refused("--data", str(long), "--port", str(free_port()))
    assert not long.exists()


def test_the_dummy_login_is_for_loopback_only(place: Path, free_port: FreePort) -> None:
    folder = DataFolder(place / "d")
    folder.root.mkdir()
    folder.settings.write_text("auth: dummy\n")
    said = refused("--data", str(folder.root), "--host", "0.0.0.0", "--port", str(free_port()))
    assert "lets anybody in as anybody" in said


def test_a_sample_that_does_not_exist(place: Path, free_port: FreePort) -> None:
    assert "--fake nine-hundred" in refused(
        "--data", str(place / "d"), "--fake", "nine-hundred", "--port", str(free_port())
    )
    assert not (place / "d").exists()


def test_a_sample_that_the_settings_contradict(place: Path, free_port: FreePort) -> None:
    folder = DataFolder(place / "d")
    folder.root.mkdir()
    folder.settings.write_text("devices: fake:two-80gb\n")
    said = refused("--data", str(folder.root), "--fake", "one-8gb", "--port", str(free_port()))
    assert 'says "devices: fake:two-80gb"' in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's sessions are other users")
def test_a_folder_that_sessions_could_not_reach(place: Path, free_port: FreePort) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    said = refused("--data", str(closed / "d"), "--port", str(free_port()))
    assert f"because {closed} is closed to others" in said
    assert not (closed / "d").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(place: Path, free_port: FreePort) -> None:
    place.chmod(0o555)
    try:
        assert "is not writable for you" in refused("--data", str(place / "d"), "--port", str(free_port()))
    finally:
        place.chmod(0o755)


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    disk = place / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(small_disk: Path, free_port: FreePort) -> None:
    said = refused("--data", str(small_disk / "d"), "--port", str(free_port()))
    assert "MiB left and at least 100 MiB are needed" in said
    assert list(small_disk.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a read-only disk")
def test_a_read_only_disk(small_disk: Path, free_port: FreePort) -> None:
    subprocess.run(["mount", "-o", "remount,ro,size=200m", str(small_disk)], check=True)
    said = refused("--data", str(small_disk / "d"), "--port", str(free_port()))
    assert "Read-only file system" in said or "not writable" in said


def test_the_folder_of_a_stranger_keeps_its_mode(place: Path, free_port: FreePort) -> None:
    """Naming the wrong folder must not close or open it."""
    other = place / "other"
    other.mkdir(mode=0o775)
    (other / "file").write_text("")
    mode = stat.S_IMODE(other.stat().st_mode)
    refused("--data", str(other), "--port", str(free_port()))
    assert stat.S_IMODE(other.stat().st_mode) == mode
