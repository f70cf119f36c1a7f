"""Files below one folder, named from outside, and nothing beyond it.

Every component of a path is opened by itself and never through a symbolic link, so that no link, however quickly it
is put in place, leads out. Knows nothing of HTTP.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jupyterhub_bkai.errors import Conflict, InvalidOptions, NotFound, PublicError

DEPTH = 64
NAME_BYTES = 255
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OutOfSpace(PublicError):
    """The disk, or the user's share of it, is full."""

    status = 507
    default_reason = "no-space"


def components(path: str) -> tuple[str, ...]:
    """The parts of a relative path; refuses what could lead elsewhere."""
    parts = tuple(path.split("/")) if path else ()
    if len(parts) > DEPTH:
        raise InvalidOptions({"path": f"This path has more than {DEPTH} levels."})
    for part in parts:
        if part in ("", ".", "..") or "\0" in part:
            raise InvalidOptions(
                {"path": f"{path!r} is not a plain relative path: leave out '.', '..' and empty parts."}
            )
        if len(part.encode("utf-8", "surrogateescape")) > NAME_BYTES:
            raise InvalidOptions({"path": f"A name in this path is longer than {NAME_BYTES} bytes."})
    return parts


class Confined:
    """The files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """The open folder at `path` as a descriptor; with `make`, missing folders are made."""
        with _sentences(path):
            descriptor = self._descend(components(path), make)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """A regular file at `path` as a descriptor. With `os.O_CREAT` the folders above it are made, too."""
        *above, name = components(path) or ("",)
        if not name:
            raise InvalidOptions({"path": "Name a file."})
        with self.folder("/".join(above), make=bool(flags & os.O_CREAT)) as parent, _sentences(path):
            # O_NONBLOCK: opening a pipe must not wait for its other end
            flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(name, flags, mode, dir_fd=parent)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise Conflict(f"{path!r} exists and is not a regular file.", reason="not-a-file")
        return descriptor

    def _descend(self, parts: tuple[str, ...], make: bool) -> int:
        current = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in parts:
            try:
                deeper = _step(current, part, make)
            finally:
                os.close(current)
            current = deeper
        return current


def _step(parent: int, name: str, make: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # somebody else was quicker
        os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)


@contextmanager
def _sentences(path: str) -> Iterator[None]:
    """Say in words what the system refused."""
    try:
        yield
    except OSError as error:
        raise refusal(path, error) from error


def refusal(path: str, error: OSError) -> PublicError:
    """The sentence for a system error at `path`."""
    match error.errno:
        case errno.ENOENT:
            return NotFound(f"There is no {path!r} in the session's home folder.")
        case errno.ENOSPC | errno.EDQUOT:
            return OutOfSpace(f"There is no space left for {path!r}.")
        case errno.ENOTDIR | errno.ELOOP | errno.ENXIO:
            return Conflict(f"{path!r} goes through a link or through a file.", reason="not-a-folder")
        case errno.EISDIR:
            return Conflict(f"{path!r} exists and is a folder.", reason="not-a-file")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Conflict(f"{path!r} may not be changed by you.", reason="not-writable")
        case errno.EINVAL | errno.ENAMETOOLONG | errno.EFBIG:
            return InvalidOptions({"path": f"{path!r} cannot be stored here."})
        case _:
            return Conflict(f"{path!r} cannot be opened ({error.strerror}).", reason="file-error")
