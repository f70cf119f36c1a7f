"""Compiled modules for an environment that its users cannot write to, so that Python finds them ready.

Owns which files are compiled and where finished ones are taken from: an earlier environment that has the very same
source file (the same inode: the installer's cache links them) has the bytecode as well.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# Nobody starts a library's tests from a session, and they are a fifth of all files.
_LEFT_OUT = {"tests", "test", "__pycache__"}


def missing(site: Path, tag: str) -> list[Path]:
    """The modules below a site-packages that have no bytecode for the interpreter with this cache tag."""
    return [source for source in _modules(site) if not compiled(source, tag).exists()]


def reuse(sources: Iterable[Path], site: Path, earlier: Path, tag: str) -> None:
    """Link the bytecode of the earlier site-packages for all sources that are the same file there."""
    for source in sources:
        twin = earlier / source.relative_to(site)
        # Anything that does not work out is compiled instead.
        with contextlib.suppress(OSError):
            if os.path.samestat(source.stat(), twin.stat()):
                target = compiled(source, tag)
                target.parent.mkdir(exist_ok=True)
                os.link(compiled(twin, tag), target)


def compiled(source: Path, tag: str) -> Path:
    """Where the bytecode of a module belongs."""
    return source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"


def shares(sources: Sequence[Path], parts: int) -> list[list[Path]]:
    """The sources dealt out to so many compilers; none is empty."""
    return [share for share in (list(sources[part::parts]) for part in range(parts)) if share]


def _modules(site: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(site):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))
