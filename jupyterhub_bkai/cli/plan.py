"""What `bkai run` will do with a file or a folder: what to upload, how to build it, what to start.

Owns the rules for all three and looks at the disk only; everything wrong is found here, before a session is asked for.
"""

import os
import stat
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_bkai.cli import ignoring
from jupyterhub_bkai.client.errors import BkaiError

#: how a file is run that was given without a command
BY_ENDING = {
    ".py": ("python",),
    ".sh": ("bash",),
    ".ipynb": (
        "python", "-m", "nbconvert", "--log-level=WARN",
        # a kernel that listens in the clear warns of it on standard error
        "--KernelManager.transport_encryption=auto",
        "--execute", "--to=markdown", "--stdout",
    ),
}  # fmt: skip
OVERLAY = Path(__file__).with_name("overlay.py")
#: puts the packages that the build step installed in front
_WITH_PACKAGES = 'VIRTUAL_ENV="$PWD/.bkai/venv" PATH="$PWD/.bkai/venv/bin:$PATH" exec "$@"'


@dataclass(frozen=True, slots=True)
class Item:
    """One file to upload."""

    source: Path
    target: str
    size: int
    mode: int


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the build, and how to call it in front of people."""

    title: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will happen."""

    items: tuple[Item, ...]
    steps: tuple[Step, ...]
    command: tuple[str, ...]
    #: files left out because they may hold passwords
    held_back: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The bytes to upload."""
        return sum(item.size for item in self.items)


def make(path: Path, command: Sequence[str], build: str | None = None, *, may_build: bool = True) -> Plan:
    """The plan for `path`, a file or a folder; `command` is what stands after `--`."""
    held_back: list[str] = []
    items = tuple(
        _walk(path, path, _patterns(path), held_back) if path.is_dir() else [_item(path, path.name)]
    )
    if not items:
        raise BkaiError(f"There is nothing to run: {path} has no files.", reason="nothing-to-run")
    started = _started(path, tuple(command), {item.target for item in items})
    steps = tuple(_steps(path, build)) if may_build else ()
    if steps:
        started = ("sh", "-c", _WITH_PACKAGES, "bkai", *started)
    return Plan(items, steps, started, tuple(held_back))


def _started(path: Path, words: tuple[str, ...], targets: set[str]) -> tuple[str, ...]:
    """The command: the usual one with `words` as its arguments where they begin with “-”, else `words` themselves.

    No program's name begins with “-”, so nothing else can be meant by it.
    """
    if words and not words[0].startswith("-"):
        return words
    usual = _usual(path, targets)
    if words and path.suffix == ".ipynb":
        raise BkaiError(
            f"A notebook takes no arguments ({words[0]}); give it variables with -e NAME=VALUE.",
            reason="no-arguments",
        )
    return *usual, *words


def _usual(path: Path, targets: set[str]) -> tuple[str, ...]:
    """The command for something given without one."""
    if path.is_dir():
        if "main.py" in targets:
            return "python", "main.py"
        raise BkaiError(
            f"{path} has no main.py; say what to start, like: bkai run IMAGE {path} -- python train.py",
            reason="no-command",
        )
    if path.suffix in BY_ENDING:
        return *BY_ENDING[path.suffix], path.name
    raise BkaiError(
        f"How is {path.name} run? Say it, like: bkai run IMAGE {path} -- bash {path.name}",
        reason="no-command",
    )


# -- files ------------------------------------------------------------------------------------


def _patterns(folder: Path) -> tuple[ignoring.Pattern, ...]:
    try:
        return ignoring.parse((folder / ignoring.FILE).read_text("utf-8").splitlines())
    except FileNotFoundError:
        return ignoring.parse(())
    except (OSError, UnicodeError) as error:
        raise BkaiError(f"{folder / ignoring.FILE} cannot be read: {error}.", reason="unreadable") from error


def _walk(
    root: Path, folder: Path, patterns: Sequence[ignoring.Pattern], held_back: list[str]
) -> Iterator[Item]:
    """The files below `folder`, in order. Links to folders are not followed: they may lead in circles."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    for entry in entries:
        path = Path(entry.path)
        target = path.relative_to(root).as_posix()
        is_folder = entry.is_dir()
        if ignoring.ignored(patterns, target, is_folder) or (is_folder and entry.is_symlink()):
            if not is_folder and ignoring.secret(target):
                held_back.append(target)
            continue
        if (
            is_folder and not (path / "pyvenv.cfg").exists()
        ):  # a virtual environment works on one machine only
            yield from _walk(root, path, patterns, held_back)
        elif entry.is_file():
            yield _item(path, target)


def _item(path: Path, target: str) -> Item:
    try:
        target.encode()
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeError as error:
        raise BkaiError(
            f"The name {target!r} is not valid text; rename the file.", reason="unreadable"
        ) from error
    if not stat.S_ISREG(about.st_mode):
        raise BkaiError(f"{path} is neither a file nor a folder.", reason="unreadable")
    return Item(path, target, about.st_size, 0o755 if about.st_mode & stat.S_IXUSR else 0o644)


def _unreadable(path: Path, error: OSError) -> BkaiError:
    return BkaiError(f"{path} cannot be read: {error.strerror}.", reason="unreadable")


# -- building ---------------------------------------------------------------------------------


def _steps(path: Path, build: str | None) -> Iterator[Step]:
    if build is not None:
        yield Step("a place for packages", _overlay())
        yield Step(build, ("sh", "-c", _WITH_PACKAGES, "bkai", "sh", "-c", build))
    elif path.is_dir() and (wanted := _wanted(path)):
        yield Step(f"pip install {' '.join(wanted)}", _overlay(*wanted))


def _wanted(folder: Path) -> list[str]:
    """What pip is to install for a folder like this."""
    wanted = ["-r", "requirements.txt"] if (folder / "requirements.txt").is_file() else []
    return [*wanted, "."] if _is_package(folder) else wanted


def _is_package(folder: Path) -> bool:
    if (folder / "setup.py").is_file():
        return True
    try:
        described = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise BkaiError(
            f"{folder / 'pyproject.toml'} cannot be read: {error}.", reason="unreadable"
        ) from error
    # Many a pyproject.toml only holds the settings of tools.
    return "project" in described or "build-system" in described


def _overlay(*arguments: str) -> tuple[str, ...]:
    return "python", "-c", OVERLAY.read_text("utf-8"), *arguments
