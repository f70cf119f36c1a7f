"""The private folder of a lease goes whatever a session has put into it, and nothing else does."""

import os
import time
from pathlib import Path

import pytest

from jupyterhub_bkai.fences import private
from jupyterhub_bkai.fences.process import ProcessFence

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


@pytest.fixture
def folder(tmp_path: Path, lease_id: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lease's own, where no other program's are."""
    monkeypatch.setattr(private, "parent", lambda: str(tmp_path / "leases"))
    private.make(lease_id, None)
    return tmp_path / "leases" / lease_id


def fill(folder: Path, levels: int) -> None:
    """Folders in folders, deeper than a path can be long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT, dir_fd=below))
        os.close(here)
        here = below
    os.close(here)


def test_it_goes_with_its_lease_however_deep(folder: Path, lease_id: str) -> None:
    fill(folder, 2000)
    assert ProcessFence(None).end(lease_id, 0, tidy=False)
    assert folder.exists()
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:  # on a busy machine the next call goes on
        assert ProcessFence(None).end(lease_id, 0)
    assert not folder.exists()


def test_no_link_is_followed(folder: Path, lease_id: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    (folder / "folder").symlink_to(kept)
    (folder / "file").symlink_to(kept / "file")
    (folder / "below").mkdir()
    (folder / "below" / "folder").symlink_to(kept)
    os.link(kept / "file", folder / "again")
    assert private.remove(lease_id)
    assert (kept / "file").read_text() == "kept"
    assert not folder.exists()


def test_one_that_is_itself_a_link_stays(folder: Path, lease_id: str, tmp_path: Path) -> None:
    folder.rmdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    folder.symlink_to(tmp_path / "kept")
    assert not private.remove(lease_id)
    assert (tmp_path / "kept" / "file").exists()


def test_it_takes_only_so_long_and_goes_on_the_next_time(folder: Path, lease_id: str) -> None:
    for number in range(20_000):
        os.close(os.open(folder / str(number), os.O_CREAT))
    begun = time.monotonic()
    assert not private.remove(lease_id, within_s=0.02)
    assert time.monotonic() - begun < 2
    assert private.leases() == [lease_id]
    assert private.remove(lease_id)
    assert private.remove(lease_id)
    assert private.leases() == []


def test_what_is_not_ours_proves_and_loses_nothing(folder: Path, lease_id: str) -> None:
    (folder / "file").touch()
    assert private.owner(lease_id) == os.geteuid()
    folder.parent.chmod(0o777)
    assert private.owner(lease_id) is None
    assert not private.remove(lease_id)
    assert (folder / "file").exists()
    with pytest.raises(private.NotOurs):
        private.make(lease_id, None)


@root_only
def test_its_owner_is_the_account(folder: Path, lease_id: str) -> None:
    private.make(lease_id, (12345, 12345))
    assert private.owner(lease_id) == 12345
    assert folder.parent.stat().st_mode & 0o777 == 0o711
