"""Which image versions there are: folders `<root>/<family>/<version>/` with image.yml, requirements.txt and verify.

Owns finding and reading the definitions of several roots (those that ship, the administrator's). A broken one costs
only itself. What a definition means is `definition`'s, what is made from it `environment`'s.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.version import InvalidVersion, Version

from jupyterhub_bkai.builds.definition import ImageVersion, key_of, parse

__all__ = ["Catalog", "ImageVersion", "Problem", "read"]

MAX_BYTES = 1 << 20
MAX_FILES = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one file of a definition."""

    path: Path
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """The image versions by name, newest version of each family first, and what was wrong with the others."""

    images: Mapping[str, ImageVersion] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def read(roots: Iterable[Path], foundation: str = "") -> Catalog:
    """Every image version below the roots; a definition in a later root replaces one of the same name.

    `foundation` is the digest of what every environment is made on; it enters the keys.
    """
    images: dict[str, ImageVersion] = {}
    problems: list[Problem] = []
    for root in roots:
        for folder in _version_folders(root, problems):
            image = _definition(folder, foundation, problems)
            if image is not None:
                images[image.name] = image
    newest_first = sorted(images.values(), key=lambda image: _age(image.version), reverse=True)
    ordered = sorted(newest_first, key=lambda image: image.family)
    return Catalog({image.name: image for image in ordered}, tuple(problems))


def _definition(folder: Path, foundation: str, problems: list[Problem]) -> ImageVersion | None:
    before = len(problems)
    files = _files(folder, problems)
    if len(problems) > before:
        return None
    image, wrong = parse(folder.parent.name, folder.name, files)
    problems += [Problem(folder / name if name else folder, sentence) for name, sentence in wrong]
    return replace(image, path=folder, key=key_of(files, foundation)) if image else None


def _version_folders(root: Path, problems: list[Problem]) -> Iterator[Path]:
    for family in _folders(root, problems):
        yield from _folders(family, problems)


def _folders(folder: Path, problems: list[Problem]) -> list[Path]:
    try:
        inside = sorted(folder.iterdir())
        return [path for path in inside if path.name[0] not in "._" and path.is_dir()]
    except OSError as error:
        problems.append(Problem(folder, f"this folder cannot be read ({error.strerror})."))
        return []


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a definition, as `read` sees them. Raises `OSError` for what cannot be read."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    read_files = {name: content_of(folder / name) for name in names[: MAX_FILES + 1]}
    return {name: content for name, content in read_files.items() if content is not None}


def _files(folder: Path, problems: list[Problem]) -> dict[str, bytes]:
    try:
        files = contents(folder)
    except OSError as error:
        problems.append(Problem(Path(error.filename or folder), f"this cannot be read ({error.strerror})."))
        return {}
    if len(files) > MAX_FILES:
        problems.append(Problem(folder, f"there are more than {MAX_FILES} files in this folder."))
    for name, content in files.items():
        if len(content) > MAX_BYTES:
            problems.append(Problem(folder / name, "this is larger than 1 MiB."))
    return files


def content_of(path: Path) -> bytes | None:
    """A regular file's bytes, at most one more than `MAX_BYTES`; None for folders, pipes and devices."""
    # O_NONBLOCK: opening a pipe that nobody writes to must not stop the service.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return None
        with open(opened, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(opened)


def _age(version: str) -> tuple[int, Version | str]:
    """A sort key in which 1.10 comes after 1.9 and before it its candidates; other names come first."""
    try:
        return 1, Version(version)
    except InvalidVersion:
        return 0, version
