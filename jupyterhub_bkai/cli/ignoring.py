"""What of a folder is not uploaded: a few things always, and what a `.bkaiignore` in it names.

One pattern a line. Without a slash it is for names at any depth, with one it is for the path from the folder on; a
slash at its end means folders only; `!` takes an earlier line back; `#` begins a comment. The last line that fits
decides. What lies in a folder left out is left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

FILE = ".bkaiignore"
ALWAYS = (
    ".git/",
    ".hg/",
    ".svn/",
    "__pycache__/",
    "*.pyc",
    ".ipynb_checkpoints/",
    ".DS_Store",
    ".bkai/",
    FILE,
)
#: files that often hold passwords and tokens; left out as well, and people are told
SECRETS = ".env*"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line."""

    text: str
    anchored: bool
    folders_only: bool
    keep: bool

    def fits(self, path: str, is_folder: bool) -> bool:
        """True when the line is about this path."""
        if self.folders_only and not is_folder:
            return False
        return fnmatchcase(path if self.anchored else path.rpartition("/")[2], self.text)


def parse(lines: Iterable[str]) -> tuple[Pattern, ...]:
    """The patterns in these lines, after those that always hold."""
    always = (*ALWAYS, SECRETS)
    return tuple(
        _pattern(line) for line in (*always, *map(str.strip, lines)) if line and not line.startswith("#")
    )


def _pattern(line: str) -> Pattern:
    keep, text = line.startswith("!"), line.removeprefix("!")
    folders_only, text = text.endswith("/"), text.rstrip("/")
    return Pattern(text.removeprefix("/"), "/" in text, folders_only, keep)


def secret(path: str) -> bool:
    """True for a file that is left out because it may hold passwords."""
    return fnmatchcase(path.rpartition("/")[2], SECRETS)


def ignored(patterns: Iterable[Pattern], path: str, is_folder: bool) -> bool:
    """True when `path`, with slashes and relative to the folder, is left out."""
    decision = False
    for pattern in patterns:
        if pattern.fits(path, is_folder):
            decision = not pattern.keep
    return decision
