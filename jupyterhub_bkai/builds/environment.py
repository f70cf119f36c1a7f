"""The environments of image versions: which are there, making those that are not, removing those nobody needs.

Owns the folder `DIR/envs`: a folder `<family>-<version>-<key>` in it is complete and verified, always, because it is
made under another name and renamed. Names of unfinished ones say which process makes them, so that the next service
finds what a killed one left. The steps of making are `making`'s.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from pathlib import Path

from jupyterhub_bkai.builds import making
from jupyterhub_bkai.builds.catalog import ImageVersion
from jupyterhub_bkai.builds.foundation import Foundation
from jupyterhub_bkai.builds.interpreter import closed_folder
from jupyterhub_bkai.builds.making import Making, Places
from jupyterhub_bkai.builds.progress import Progress
from jupyterhub_bkai.builds.queue import Queue, Report
from jupyterhub_bkai.errors import PublicError, Unavailable

__all__ = ["Environments", "Progress"]

log = logging.getLogger(__name__)

AT_ONCE = 2
_UNFINISHED, _GONE = ".making-", ".gone-"
# For the whole process: two of us in one would otherwise choose the same names.
_NUMBERS = itertools.count(1)


class Environments:
    """The environments below a data folder. `shared`: sessions run as other users than this process."""

    def __init__(self, data: Path, foundation: Foundation, *, shared: bool, at_once: int = AT_ONCE) -> None:
        self.data = data.resolve()
        self.root = self.data / "envs"
        self.foundation = foundation
        self.shared = shared
        self._queue = Queue(at_once)

    def path_of(self, image: ImageVersion) -> Path:
        """Where the environment of the image version lies, or will."""
        return self.root / f"{image.family}-{image.version}-{image.key}"

    def python_of(self, image: ImageVersion) -> Path:
        """The program that runs in that environment."""
        return self.path_of(image) / "bin" / "python"

    def is_ready(self, image: ImageVersion) -> bool:
        """True when a session can start in it now. An interpreter that the system removed makes it unready."""
        return _is_whole(self.path_of(image))

    async def realise(self, image: ImageVersion) -> AsyncIterator[Progress]:
        """Make the environment unless it is ready, telling how far that is; the last progress says 100 percent.

        Whoever asks for the same meanwhile hears the same from the beginning. Raises a `PublicError`.
        """
        if not self.is_ready(image):
            async for progress in self._queue.ask(
                self.path_of(image).name, lambda tell: self._make(image, tell)
            ):
                yield progress
        yield Progress(100, f"Image version {image.name} is ready")

    async def realise_all(
        self, images: Iterable[ImageVersion]
    ) -> AsyncIterator[tuple[ImageVersion, Progress]]:
        """Make them one after the other; one that fails is told as a progress without percent, others follow."""
        for image in images:
            try:
                async for progress in self.realise(image):
                    yield image, progress
            except PublicError as error:
                yield image, Progress(None, error.message)

    def clean(self) -> list[str]:
        """Remove what processes that are no more left half-made; to be called when the service starts."""
        removed = [path.name for path in _inside(self.root) if _is_left_over(path.name)]
        for name in removed:
            log.info("environment %s was left unfinished: removed", name)
            _discard(self.root / name)
        return removed

    def prune(self, keep: Collection[str]) -> list[str]:
        """Remove the environments whose keys are not to be kept; the caller knows which ones leases use."""
        under_way = self._queue.under_way()
        removed = [
            path.name
            for path in _inside(self.root)
            if not path.name.startswith(".")
            and path.name not in under_way
            and path.name.rpartition("-")[2] not in keep
        ]
        for name in removed:
            log.info("environment %s is used by nobody: removed", name)
            self._set_aside(self.root / name)
        return removed

    async def aclose(self) -> None:
        """Stop what is being made; nothing half-made is left."""
        await self._queue.aclose()

    # -- making ------------------------------------------------------------------------------

    async def _make(self, image: ImageVersion, tell: Report) -> None:
        final = self.path_of(image)
        folder = self.root / f"{_UNFINISHED}{final.name}~{_owner(os.getpid())}~{next(_NUMBERS)}"
        try:
            self._prepare(folder)
            places = Places(
                folder=folder,
                final=final,
                cache=self.data / "cache",
                log=self.data / "log" / "images" / f"{image.family}-{image.version}.log",
                earlier=self._earlier(),
            )
            await Making(image, self.foundation, places, tell).run()
            self._move(folder, final)
        except OSError as error:
            log.exception("environment %s", final.name)
            raise Unavailable(
                f"Image version {image.name} cannot be made, because the data folder cannot be written "
                f"({error.strerror}): an administrator must look at it.",
                reason="no-disk",
            ) from error
        except PublicError as error:
            log.warning("environment %s: %s", final.name, error.message)
            raise
        finally:
            await asyncio.shield(asyncio.to_thread(_discard, folder))

    def _prepare(self, folder: Path) -> None:
        (self.data / "log" / "images").mkdir(parents=True, exist_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        if self.shared:
            self.root.chmod(0o755)
            folder.chmod(0o755)
            if closed := closed_folder(folder):
                raise Unavailable(
                    f"Session users cannot reach the environments, because the folder {closed.name!r} above them is "
                    "closed to them: an administrator must put the data folder elsewhere, such as /var/lib/bkai.",
                    reason="closed-folder",
                )

    def _move(self, folder: Path, final: Path) -> None:
        if final.exists() and not _is_whole(final):
            self._set_aside(final)
        try:
            folder.rename(final)
        except OSError:
            # Another process was quicker; its environment is as good as ours.
            if not _is_whole(final):
                raise

    def _earlier(self) -> list[Path]:
        whole = [path for path in _inside(self.root) if not path.name.startswith(".") and _is_whole(path)]
        return sorted(whole, key=lambda path: path.stat().st_mtime, reverse=True)[:5]

    def _set_aside(self, path: Path) -> None:
        """Out of the way in one step, then removed."""
        aside = self.root / f"{_GONE}{path.name}~{_owner(os.getpid())}~{next(_NUMBERS)}"
        path.rename(aside)
        _discard(aside)


def _is_whole(path: Path) -> bool:
    return (path / making.RECORD).is_file() and (path / "bin" / "python").exists()


def _inside(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(folder.iterdir())


def _owner(pid: int) -> str | None:
    """A process for good: its number, when it started and in which run of the machine."""
    try:
        # The name in the second field may hold anything, a closing parenthesis ends it.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{pid}.{started}.{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}"
    except OSError:
        return None


def _is_left_over(name: str) -> bool:
    """True for an unfinished environment whose maker is dead."""
    if not name.startswith((_UNFINISHED, _GONE)):
        return False
    owner = name.split("~")[-2] if name.count("~") >= 2 else ""
    pid = owner.partition(".")[0]
    return not pid.isdigit() or _owner(int(pid)) != owner


def _discard(folder: Path) -> None:
    """Remove a folder, also one that is closed to writing; what cannot be removed is logged and left."""
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o755)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        log.warning("environment %s cannot be removed completely", folder.name)
