"""This distribution as a wheel, to be installed into every environment: a session runs the code its hub runs.

Owns making the wheel, the same bytes from the same files: from a checkout by building, from an installation by
packing what its RECORD lists. What only the hub's machine needs (image definitions, the proxy) stays out.
"""

import base64
import hashlib
import io
import logging
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

import uv

from jupyterhub_bkai.builds import child
from jupyterhub_bkai.builds.failure import clean
from jupyterhub_bkai.errors import Unavailable

log = logging.getLogger(__name__)

DISTRIBUTION = "jupyterhub-bkai"
PACKAGE = Path(__file__).resolve().parents[1]
# What an installer adds to a distribution's records, and what it makes anew.
_INSTALLERS = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}
_HUB_ONLY = ("jupyterhub_bkai/_images/", "jupyterhub_bkai/_proxy/")
_NOT_SOURCE = {"build", "dist", "docs", "tests", "benchmarks", "node_modules", "__pycache__"}
_SCRATCH = "build-"
KEPT = 5
_EPOCH = (1980, 1, 1, 0, 0, 0)

Entries = Mapping[str, tuple[bytes, bool]]


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of ours; `digest` is the sha256 of its bytes."""

    path: Path
    version: str
    digest: str


def own_wheel(cache: Path, source: Path | None = None) -> Wheel:
    """The wheel of the running distribution, made when the cache does not hold it. Takes seconds the first time.

    `source` is a checkout; None finds out whether we run from one.
    """
    root = source or checkout()
    if root is None:
        return _store(cache, pack(installed_entries(metadata.distribution(DISTRIBUTION))))
    return _of_checkout(cache, root)


def checkout() -> Path | None:
    """The source tree that the running package belongs to, if any."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "setup.py").is_file() else None


# -- from a checkout -------------------------------------------------------------------------


def _of_checkout(cache: Path, root: Path) -> Wheel:
    """Built once for each state of the sources; the cache remembers which wheel that state gave."""
    known = cache / f"{_digest_of(root)}.txt"
    if known.is_file() and (found := _stored(cache, known.read_text())):
        return found
    state, entries = built_entries(root, cache)
    wheel = _store(cache, pack(entries))
    _write(cache / f"{state}.txt", f"{wheel.path.parent.name}/{wheel.path.name}".encode())
    _forget(cache)
    return wheel


def _forget(cache: Path) -> None:
    """A checkout that is worked on gives a wheel for each change: the last few are enough."""
    for pattern, kept in (("*.txt", 2 * KEPT), ("*/*.whl", KEPT)):
        for old in sorted(cache.glob(pattern), key=_age)[:-kept]:
            old.unlink(missing_ok=True)
            if old.parent != cache:
                old.parent.rmdir()


def _age(path: Path) -> float:
    return path.stat().st_mtime


def built_entries(root: Path, cache: Path) -> tuple[str, Entries]:
    """What a build of the source tree puts into a wheel, without touching the tree, and the state that was built."""
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=cache) as scratch:
        # A copy: setuptools keeps its work beside the sources, where it would find deleted files again.
        copy = Path(scratch, "source")
        shutil.copytree(root, copy, ignore=_unneeded)
        # The copy's: somebody may be editing the tree at this moment.
        state = _digest_of(copy)
        return state, _entries_of(_build(copy, Path(scratch, "out"), cache.parent / "uv"))


def _build(source: Path, out: Path, uv_cache: Path) -> Path:
    command = [uv.find_uv_bin(), "build", "--wheel", "--out-dir", str(out), str(source)]
    env = child.environment(UV_CACHE_DIR=str(uv_cache))
    done = subprocess.run(
        command, cwd="/", env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )
    if done.returncode == 0:
        return next(out.glob("*.whl"))
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in said if line.startswith("error:")] or said[-1:]
    # Ours, when setup.py misses something; the last one is the installer's, which sums up.
    why = next((line for line in errors if "make build" in line), " ".join(errors[:1])).removeprefix(
        "error: "
    )
    log.error("packing %s failed:\n%s", source, done.stderr)
    raise Unavailable(f"This checkout cannot be packed for sessions: {clean(why)}.", reason="no-wheel")


def _unneeded(folder: str, names: list[str]) -> set[str]:
    return {
        name for name in names if name.startswith(".") or name in _NOT_SOURCE or name.endswith(".egg-info")
    }


def _digest_of(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    """The files that decide what the wheel holds."""
    for folder, folders, files in os.walk(root):
        left_out = _unneeded(folder, folders + files) | {"_proxy"}
        if Path(folder) == root:
            left_out |= {"images", "proxy"}
        elif Path(folder) == root / "labextension":
            left_out |= {*folders, *files} - {"prebuilt"}
        folders[:] = sorted(name for name in folders if name not in left_out)
        yield from (Path(folder, name) for name in sorted(files) if name not in left_out)


# -- from an installation --------------------------------------------------------------------


def installed_entries(distribution: metadata.Distribution) -> Entries:
    """What the wheel held that this distribution was installed from, by its RECORD."""
    entries: dict[str, tuple[bytes, bool]] = {}
    for file in distribution.files or ():
        name = _name_in_wheel(PurePosixPath(file), distribution)
        if name is None:
            continue
        place = Path(str(file.locate()))
        try:
            entries[name] = place.read_bytes(), os.access(place, os.X_OK)
        except OSError:
            raise Unavailable(
                f"The installation of {DISTRIBUTION} is damaged, {file} is missing: reinstall it.",
                reason="no-wheel",
            ) from None
    if not any(name.endswith("/METADATA") for name in entries):
        raise Unavailable(
            f"The installation of {DISTRIBUTION} has no record of its files: reinstall it with pip or uv.",
            reason="no-wheel",
        )
    return entries


def _name_in_wheel(file: PurePosixPath, distribution: metadata.Distribution) -> str | None:
    """Where a file of an installation stood in the wheel; None for what the installer made."""
    if "__pycache__" in file.parts or file.suffix == ".pyc":
        return None
    if file.parts[0] != "..":
        made = file.parts[0].endswith(".dist-info") and file.name in _INSTALLERS
        return None if made else str(file)
    # ../../../share/… from lib/pythonX.Y/site-packages: a data file. bin/ holds the commands, made from entry points.
    inner = [part for part in file.parts if part != ".."]
    if inner[0] == "bin":
        return None
    return f"jupyterhub_bkai-{distribution.version}.data/data/{'/'.join(inner)}"


# -- the file --------------------------------------------------------------------------------


def _entries_of(wheel: Path) -> Entries:
    with zipfile.ZipFile(wheel) as archive:
        return {
            info.filename: (archive.read(info), bool(info.external_attr >> 16 & 0o100))
            for info in archive.infolist()
            if not info.is_dir() and PurePosixPath(info.filename).name != "RECORD"
        }


def pack(entries: Entries) -> bytes:
    """A wheel with these entries. Sorted, without times, uncompressed: the same entries give the same bytes."""
    kept = {name: entry for name, entry in sorted(entries.items()) if not name.startswith(_HUB_ONLY)}
    info = next(PurePosixPath(name).parent for name in kept if name.endswith(".dist-info/METADATA"))
    record = f"{info}/RECORD"
    lines = [_recorded(name, content) for name, (content, _) in kept.items()] + [f"{record},,"]
    kept[record] = ("\n".join(lines) + "\n").encode(), False
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, (content, executable) in kept.items():
            member = zipfile.ZipInfo(name, _EPOCH)
            member.external_attr = (0o100755 if executable else 0o100644) << 16
            archive.writestr(member, content)
    return written.getvalue()


def _recorded(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    quoted = '"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name
    return f"{quoted},sha256={digest},{len(content)}"


def _store(cache: Path, content: bytes) -> Wheel:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        info = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    stem = info.split(".dist-info")[0]
    digest = hashlib.sha256(content).hexdigest()
    path = cache / digest[:16] / f"{stem}-py3-none-any.whl"
    if not path.is_file() or path.read_bytes() != content:
        _write(path, content)
    path.touch()  # the youngest of the cache, whenever it was made
    return Wheel(path, stem.split("-")[1], digest)


def _stored(cache: Path, place: str) -> Wheel | None:
    path = cache / place.strip()
    if not path.is_file():
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    # A file that was cut short by a full disk or a kill is made again.
    return Wheel(path, path.name.split("-")[1], digest) if digest.startswith(path.parent.name) else None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened, scratch = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(content)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
