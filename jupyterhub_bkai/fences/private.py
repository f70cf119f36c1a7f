"""The folder of a lease that only its account may enter, for sockets: where it is, whose it is, how it goes.

Only the hub can make one, so its owner is also the answer to whose processes may say that they carry the lease.
Owns nothing of what is in it: sessions write there what they like.
"""

import contextlib
import os
import stat
import time

from jupyterhub_bkai.fences.cgroups import SAFE

#: how long a removal may take; what is left then goes the next time
PATIENCE_S = 5.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotOurs(Exception):
    """What should be the folder of all these folders is somebody else's; the text is one sentence."""


def parent() -> str:
    """Where they all are: a short path, since the kernel allows 107 characters for a socket's."""
    return "/run/bkai" if os.geteuid() == 0 and os.access("/run", os.W_OK) else f"/tmp/bkai-{os.geteuid()}"


def path(lease_id: str) -> str:
    """The folder of one lease."""
    return f"{parent()}/{lease_id}"


def make(lease_id: str, account: tuple[int, int] | None) -> None:
    """Make the folder, for this (uid, gid), or for ourselves. Raises `NotOurs`."""
    above = parent()
    try:
        os.mkdir(above, 0o700 if account is None else 0o711)
    except FileExistsError:
        if not _is_ours(above):
            raise NotOurs(f"{above} is not the hub's own: the administrator has to remove it.") from None
    if account is not None:
        os.chmod(above, 0o711)  # whatever the umask made of it: the sessions' users pass through
    folder = path(lease_id)
    with contextlib.suppress(FileExistsError):  # the same lease, launched again
        os.mkdir(folder, 0o700)
    if account is not None:
        os.chown(folder, *account, follow_symlinks=False)


def owner(lease_id: str) -> int | None:
    """Whose the lease is; None where it has no folder, or one that proves nothing."""
    if not SAFE.match(lease_id) or not _is_ours(parent()):
        return None
    try:
        return os.lstat(path(lease_id)).st_uid
    except OSError:
        return None


def leases() -> list[str]:
    """The leases that have a folder."""
    try:
        return [name for name in os.listdir(parent()) if SAFE.match(name)] if _is_ours(parent()) else []
    except OSError:
        return []


def remove(lease_id: str, within_s: float = PATIENCE_S) -> bool:
    """Remove the folder with whatever is in it; True when it is gone. Blocks for at most so long, never raises.

    No link is followed, and it does not matter how deep the folder is: what is below moves up and is then next.
    """
    if not SAFE.match(lease_id) or not _is_ours(parent()):
        return False
    try:
        top = os.open(path(lease_id), _FOLDER)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        _empty(top, time.monotonic() + within_s)
    finally:
        os.close(top)
    try:
        os.rmdir(path(lease_id))
    except OSError:
        return False
    return True


def _is_ours(folder: str) -> bool:
    try:
        facts = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def _empty(top: int, deadline: float) -> None:
    """Remove what is in an open folder, until nothing goes any more."""
    going = True
    while going and time.monotonic() < deadline:
        going = _sweep(top, top, deadline)
        with os.scandir(top) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in folders:
            with contextlib.suppress(OSError):
                folder = os.open(name, _FOLDER, dir_fd=top)
                try:
                    going |= _sweep(folder, top, deadline)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
                going = True


def _sweep(folder: int, top: int, deadline: float) -> bool:
    """Remove the files of an open folder and move its folders to the top; False when nothing of it went."""
    going = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if time.monotonic() > deadline:
                break
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                    going = True
                elif folder != top:
                    os.rename(entry.name, os.urandom(8).hex(), src_dir_fd=folder, dst_dir_fd=top)
                    going = True
    return going
