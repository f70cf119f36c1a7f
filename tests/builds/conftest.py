"""A source tree to pack, and places in which environments are really made.

tree         a copy of this checkout that can be packed, and changed
own_data     a data folder that session users could reach, with the wheel of `tree` packed in its cache
foundation   what environments are made on, as the product lays it
light        the same with a kernel alone: an environment of it takes a second, by the same steps
define       a function: writes an image definition and gives its catalogue entry
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyterhub_bkai.builds import catalog, interpreter, wheel
from jupyterhub_bkai.builds.catalog import ImageVersion
from jupyterhub_bkai.builds.foundation import Foundation

ROOT = Path(__file__).resolve().parents[2]
SHARED = os.geteuid() == 0
Define = Callable[..., ImageVersion]


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("tree") / "source"
    shutil.copytree(ROOT, copy, ignore=wheel._unneeded)
    # What npm makes is packed like any other file; whoever has not made it tests the packing with these.
    for missing in (
        "labextension/prebuilt/package.json",
        "jupyterhub_bkai/_proxy/configurable-http-proxy.js",
    ):
        path = copy / missing
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"name": "jupyterhub-bkai", "version": "0.1.0"}))
    return copy


@pytest.fixture(scope="session")
def own_data() -> Iterator[Path]:
    # pytest's own temporary folders are closed to other users, as a data folder must not be.
    data = Path(tempfile.mkdtemp(prefix="bkai-test-", dir="/tmp"))
    data.chmod(0o755)
    yield data
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="session")
def foundation(own_data: Path, tree: Path) -> Foundation:
    packed = wheel.own_wheel(own_data / "cache" / "wheels", tree)
    return Foundation(interpreter.base(SHARED), packed, "6.1.1")


class Light(Foundation):
    """Without hub and JupyterLab."""

    __slots__ = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        return ("ipykernel", "pyyaml", f"jupyterhub-bkai @ {self.wheel.path.as_uri()}")


@pytest.fixture(scope="session")
def light(foundation: Foundation) -> Foundation:
    return Light(foundation.python, foundation.wheel, foundation.hub_version)


@pytest.fixture
def define(tmp_path: Path, light: Foundation) -> Define:
    def write(
        name: str, requirements: str, label: str, foundation: Foundation = light, **files: str
    ) -> ImageVersion:
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        verify = "from jupyterhub_bkai.builds import label\nlabel.check(__file__)\n"
        contents = {"requirements.txt": requirements, "image.yml": label, "verify": verify} | files
        for file, content in contents.items():
            (folder / file).write_text(content)
        found = catalog.read([tmp_path / "images"], foundation.digest)
        assert found.problems == ()
        return found.images[name]

    return write
