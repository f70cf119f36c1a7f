"""How far the making of an environment is, in words and percent, read from what is really there to count.

Pure: lines of the installer's output and counts go in, `Progress` comes out.
"""

import re
from dataclasses import dataclass, field

_DOWNLOADING = re.compile(r"\s*Downloading (\S+) \(([0-9.]+)\s?(B|KiB|MiB|GiB)\)")
_DOWNLOADED = re.compile(r"\s*Downloaded (\S+)")
_MIB = {"B": 1 / (1 << 20), "KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}


@dataclass(frozen=True, slots=True)
class Progress:
    """One step: a sentence for people, and percent of the whole, None while nothing can be counted."""

    percent: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the whole, from one percentage to another."""

    first: int
    last: int

    def at(self, done: float, total: float) -> int:
        """The percentage when `done` of `total` are through."""
        share = min(1.0, max(0.0, done / total)) if total else 0.0
        return self.first + int((self.last - self.first) * share)


DOWNLOAD, INSTALL, COMPILE, VERIFY = Phase(5, 60), Phase(60, 70), Phase(70, 93), Phase(93, 100)


@dataclass(slots=True)
class Downloads:
    """The larger downloads that the installer tells about: how many MiB there are, how many are here."""

    sizes: dict[str, float] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)

    def hear(self, line: str) -> None:
        """Take a line of output."""
        if match := _DOWNLOADING.match(line):
            self.sizes[match[1]] = float(match[2]) * _MIB[match[3]]
        elif match := _DOWNLOADED.match(line):
            self.finished.add(match[1])

    def progress(self, packages: int) -> Progress:
        """Where the download phase stands, of an environment with so many packages."""
        total = sum(self.sizes.values())
        done = sum(size for name, size in self.sizes.items() if name in self.finished)
        message = f"Fetching {packages} packages ({done:.0f} of {total:.0f} MiB here)"
        return Progress(DOWNLOAD.at(done, total), message)


def installing(done: int, packages: int) -> Progress:
    """Where the install phase stands."""
    return Progress(INSTALL.at(done, packages), f"Installing {packages} packages ({done} done)")


def compiling(done: int, files: int) -> Progress:
    """Where the compilation to bytecode stands."""
    return Progress(COMPILE.at(done, files), f"Preparing for a quick start ({done} of {files} files)")
