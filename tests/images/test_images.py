"""The image versions that ship: each is made, holds what its label says, and notices when the label is false."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_bkai.builds import catalog
from jupyterhub_bkai.builds.catalog import ImageVersion
from jupyterhub_bkai.builds.environment import Environments
from jupyterhub_bkai.builds.foundation import Foundation, lay
from jupyterhub_bkai.errors import Unavailable

IMAGES = Path(__file__).resolve().parents[2] / "images"
NAMES = sorted(f"{path.parent.name}/{path.name}" for path in IMAGES.glob("*/*"))
SHARED = os.geteuid() == 0


def test_all_definitions_are_sound() -> None:
    found = catalog.read([IMAGES])
    assert found.problems == ()
    assert sorted(found.images) == NAMES
    for image in found.images.values():
        assert os.access(image.path / "verify", os.X_OK), image.name
        assert image.version in image.title
        assert image.description.endswith(".")


def test_two_families_have_two_versions_that_differ() -> None:
    versions: dict[str, set[str]] = {}
    for image in catalog.read([IMAGES]).images.values():
        if image.imports:
            assert image.imports_version.startswith(image.version), "the label and the name agree"
            versions.setdefault(image.family, set()).add(image.imports_version)
    assert len([family for family, different in versions.items() if len(different) >= 2]) >= 2


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    # pytest's own temporary folders are closed to other users, as a data folder must not be.
    data = Path(tempfile.mkdtemp(prefix="bkai-images-", dir="/tmp"))
    data.chmod(0o755)
    yield data
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="module")
def foundation(data: Path) -> Foundation:
    return lay(data / "cache", shared=SHARED)


async def made(name: str, data: Path, foundation: Foundation) -> tuple[ImageVersion, Path]:
    """The image version and its environment; skips where the Python it insists on is not to be had."""
    image = catalog.read([IMAGES], foundation.digest).images[name]
    environments = Environments(data, foundation, shared=SHARED)
    try:
        async for _ in environments.realise(image):
            pass
    except Unavailable as error:
        if image.python and image.python != foundation.python.minor:
            pytest.skip(error.message)
        raise
    return image, environments.path_of(image)


def verify(environment: Path, definition: Path) -> subprocess.CompletedProcess[str]:
    return python(environment, "-I", str(definition / "verify"))


def python(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(environment / "bin" / "python"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
async def test_an_image(name: str, data: Path, foundation: Foundation, tmp_path: Path) -> None:
    image, environment = await made(name, data, foundation)
    passed = verify(environment, environment / "image")
    assert passed.returncode == 0, passed.stderr

    promised = image.imports_version or image.python
    for wrong in (
        promised + ".1",
        re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), promised, count=1),
    ):
        changed = tmp_path / wrong
        shutil.copytree(image.path, changed)
        label = changed / "image.yml"
        label.write_text(
            re.sub(r'^((?:version|python): "?)[^"\n]*', rf"\g<1>{wrong}", label.read_text(), flags=re.M)
        )
        failed = verify(environment, changed)
        assert failed.returncode != 0
        assert f"the label says {image.imports or 'python'} {wrong}, but importing" in failed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("python/")])
async def test_what_is_shown_is_what_imports(name: str, data: Path, foundation: Foundation) -> None:
    """Asked without our own comparison."""
    image, environment = await made(name, data, foundation)
    code = f"import {image.imports}; print({image.imports}.__version__, {image.imports}.__file__)"
    said = python(environment, "-c", code)
    version, file = said.stdout.split()
    assert version == image.imports_version
    assert Path(file).is_relative_to(environment)
