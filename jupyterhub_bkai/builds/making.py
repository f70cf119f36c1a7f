"""Makes one environment in a folder of its own: interpreter, lock, packages, bytecode, kernelspec, verification.

Owns the steps and their order. Joining, names and the move into place are `environment`'s. Every step is a program
run by `child`; the folder is worthless until the last one has passed.
"""

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import uv

from jupyterhub_bkai.builds import bytecode, child, failure, lock, progress
from jupyterhub_bkai.builds.catalog import contents
from jupyterhub_bkai.builds.definition import LOCK, REQUIREMENTS, VERIFY, ImageVersion, key_of, sources
from jupyterhub_bkai.builds.foundation import Foundation
from jupyterhub_bkai.builds.interpreter import PLACES
from jupyterhub_bkai.builds.progress import Downloads, Progress
from jupyterhub_bkai.errors import Conflict

DEFINITION, RECORD, FREEZE = "image", "environment.json", "freeze.txt"
INSTALL_SECONDS = 3600.0
VERIFY_SECONDS = 180.0
LOOK_SECONDS = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Places:
    """Where an environment is made, where it will lie, and what it shares with others."""

    folder: Path
    final: Path
    cache: Path
    log: Path
    earlier: Sequence[Path] = ()


class Making:
    """One environment being made. `run` leaves a folder that only needs to be renamed to its final place."""

    def __init__(
        self,
        image: ImageVersion,
        foundation: Foundation,
        places: Places,
        report: Callable[[Progress], None],
    ) -> None:
        self.image = image
        self.foundation = foundation
        self.places = places
        self._tell = report
        self._furthest = 0
        self.python = places.folder / "bin" / "python"
        self.packages = 0

    async def run(self) -> None:
        """All steps; raises a `PublicError` with the sentence for whoever waits."""
        begun = time.monotonic()
        try:
            self.places.log.unlink(missing_ok=True)
            self._copy_definition()
            await self._create()
            await self._resolve()
            await self._install()
            await self._compile()
            self._point_kernels(self.places.folder)
            await self._verify()
            self._point_kernels(self.places.final)
            await self._keep_records(time.monotonic() - begun)
            await asyncio.to_thread(close, self.places.folder)
        except child.Failed as failed:
            raise failure.of_tool(self.image.name, failed.tail) from None
        except (OSError, ExceptionGroup) as trouble:
            raise self._sentence(trouble) from trouble

    def _sentence(self, trouble: Exception) -> Exception:
        """The error for people; a fault of ours stays what it is."""
        if isinstance(trouble, ExceptionGroup):
            return self._sentence(trouble.exceptions[0])
        if isinstance(trouble, TimeoutError):
            return failure.too_long(self.image.name)
        if isinstance(trouble, OSError):
            return failure.of_tool(self.image.name, [f"{trouble.strerror} (os error {trouble.errno})"])
        return trouble

    def report(self, progress: Progress) -> None:
        """Tell how far we are; never less far than before, though more may turn out to be downloaded."""
        self._furthest = max(self._furthest, progress.percent or 0)
        self._tell(Progress(self._furthest, progress.message))

    # -- steps -------------------------------------------------------------------------------

    def _copy_definition(self) -> None:
        """The environment keeps what it was made from; what changed since the catalogue was read is not made."""
        files = contents(self.image.path)
        if key_of(files, self.foundation.digest) != self.image.key:
            raise Conflict(
                f"The definition of image version {self.image.name} was changed meanwhile: ask again.",
                reason="definition-changed",
            )
        folder = self.places.folder / DEFINITION
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / VERIFY).chmod(0o755)

    async def _create(self) -> None:
        self.report(Progress(1, "Preparing the environment"))
        # Relocatable: the folder is renamed into place at the end.
        await self._uv(
            "venv", "--quiet", "--relocatable", "--no-project", "--allow-existing", *self._interpreter()
        )

    def _interpreter(self) -> list[str]:
        base, wanted = self.foundation.python, self.image.python or self.foundation.python.minor
        places = [base.path] if wanted == base.minor else [place / f"python{wanted}" for place in PLACES]
        for path in places:
            if path.is_file():
                return ["--python", str(path), str(self.places.folder)]
        return ["--managed-python", "--python", wanted, str(self.places.folder)]

    async def _resolve(self) -> None:
        """Decide every package and its hashes before anything is fetched."""
        self.report(Progress(2, "Looking up the packages"))
        definition = self.places.folder / DEFINITION
        base = self.places.folder / "base.in"
        base.write_text("\n".join(self.foundation.requirements) + "\n")
        given = self._constraints(definition / LOCK)
        command = ("pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate", *given)
        files = (str(definition / REQUIREMENTS), str(base))
        await self._uv(*command, "--output-file", str(self._locked), "--python", str(self.python), *files)
        for scratch in self.places.folder.glob("*.in"):
            scratch.unlink()
        self.packages = lock.count(self._locked.read_text())

    def _constraints(self, given: Path) -> list[str]:
        """A lock that comes with the definition decides, except about what every environment is founded on."""
        if not given.is_file():
            return []
        constraints = self.places.folder / "constraints.in"
        constraints.write_text(lock.constraints(given.read_text()))
        return ["--constraints", str(constraints)]

    async def _install(self) -> None:
        downloads = Downloads()
        self.report(Progress(progress.DOWNLOAD.first, f"Fetching {self.packages} packages"))

        def look() -> None:
            if done := sum(1 for _ in self._site.glob("*.dist-info/RECORD")):
                self.report(progress.installing(min(done, self.packages), self.packages))
            elif downloads.sizes:
                self.report(downloads.progress(self.packages))

        command = ["pip", "install", "--no-deps", "--require-hashes", "--requirement", str(self._locked)]
        where = sources((self.places.folder / DEFINITION / REQUIREMENTS).read_text())
        options = [word for line in where for word in line.split(maxsplit=1)]
        python = ("--python", str(self.python))
        await _while(self._uv(*command, *options, *python, on_line=downloads.hear), look)

    async def _compile(self) -> None:
        self.report(Progress(progress.COMPILE.first, "Preparing for a quick start"))
        tag = f"cpython-{self._site.parent.name.removeprefix('python').replace('.', '')}"
        left = await asyncio.to_thread(self._uncompiled, tag)
        compiled = 0

        def hear(line: str) -> None:
            nonlocal compiled
            compiled += line.startswith("Compiling")

        shares = bytecode.shares(left, compilers())
        work = asyncio.gather(
            *(self._compile_share(number, share, hear) for number, share in enumerate(shares))
        )
        await _while(work, lambda: self.report(progress.compiling(compiled, len(left))))

    def _uncompiled(self, tag: str) -> list[Path]:
        left = bytecode.missing(self._site, tag)
        for environment in self.places.earlier:
            if not left:
                break
            bytecode.reuse(left, self._site, environment / self._site.relative_to(self.places.folder), tag)
            left = bytecode.missing(self._site, tag)
        return left

    async def _compile_share(self, number: int, share: Sequence[Path], hear: Callable[[str], None]) -> None:
        listed = self.places.folder / f"compile-{number}.txt"
        listed.write_text("".join(f"{path}\n" for path in share))
        # Libraries ship templates that end in .py and are no Python: that some cannot be compiled is no failure.
        with contextlib.suppress(child.Failed):
            command = (str(self.python), "-I", "-u", "-m", "compileall", "-i", str(listed))
            await child.run(command, env=child.environment(), seconds=INSTALL_SECONDS, on_line=hear)
        listed.unlink()

    def _point_kernels(self, environment: Path) -> None:
        """The kernelspecs start this environment's python by its absolute path, whatever PATH a session has."""
        for spec in self.places.folder.glob("share/jupyter/kernels/*/kernel.json"):
            content = json.loads(spec.read_text())
            if Path(content["argv"][0]).name.startswith("python"):
                content["argv"][0] = str(environment / "bin" / "python")
                # Replaced, not changed: the file is the installer's cache's as well.
                replacement = spec.with_suffix(".new")
                replacement.write_text(json.dumps(content, indent=1))
                replacement.replace(spec)

    async def _verify(self) -> None:
        self.report(Progress(progress.VERIFY.first, "Checking that it holds what its label says"))
        home = self.places.folder / "home"
        home.mkdir()
        env = child.environment(HOME=str(home), PATH=f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin")
        command = [str(self.python), "-I", str(self.places.folder / DEFINITION / VERIFY)]
        try:
            await child.run(command, env=env, seconds=VERIFY_SECONDS, log=self.places.log)
        except child.Failed as failed:
            raise failure.of_verify(self.image.name, failed.tail) from None
        await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)

    async def _keep_records(self, seconds: float) -> None:
        wheel = self.foundation.wheel
        self._locked.write_text(lock.kept(self._locked.read_text(), wheel.version))
        listed: list[str] = []
        command = ("pip", "list", "--quiet", "--format", "freeze", "--python", str(self.python))
        await self._uv(*command, on_line=listed.append)
        (self.places.folder / FREEZE).write_text("\n".join(listed) + "\n")
        record = {
            "image": self.image.name,
            "key": self.image.key,
            "python": self._site.parent.name.removeprefix("python"),
            "packages": self.packages,
            "wheel": wheel.digest,
            "seconds": round(seconds, 1),
        }
        (self.places.folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")

    # -- programs ----------------------------------------------------------------------------

    @property
    def _locked(self) -> Path:
        return self.places.folder / LOCK

    @property
    def _site(self) -> Path:
        return next(self.places.folder.glob("lib/python3.*/site-packages"))

    async def _uv(self, *arguments: str, on_line: Callable[[str], object] = lambda line: None) -> list[str]:
        env = child.environment(
            UV_CACHE_DIR=str(self.places.cache / "uv"),
            UV_PYTHON_INSTALL_DIR=str(self.places.cache / "python"),
            UV_LINK_MODE="hardlink",
            UV_NO_PROGRESS="1",
        )
        command = (uv.find_uv_bin(), *arguments)
        return await child.run(
            command, env=env, seconds=INSTALL_SECONDS, log=self.places.log, on_line=on_line
        )


async def _while(work: Awaitable[T], look: Callable[[], None]) -> T:
    """Wait for the work, looking every now and then how far it is."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
            look()
        return await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


def compilers() -> int:
    """How many compilers run beside each other: half the machine, for sessions have the other half."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))


def close(folder: Path) -> None:
    """Nobody but root changes an environment; without root its folders are closed to its owner's accidents, too."""
    for left in (".lock", ".gitignore"):
        (folder / left).unlink(missing_ok=True)
    mode = 0o755 if os.geteuid() == 0 else 0o555
    for path, _, _ in os.walk(folder, topdown=False):
        os.chmod(path, mode)
