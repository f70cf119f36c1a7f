"""What pyproject.toml cannot say: files that are built elsewhere or go beside the packages.

Owns the list of data files (the labextension, the Jupyter server configuration) and the copy of `images/`
into the package. A wheel or sdist without the built labextension and the bundled proxy is an error, so that
a half-built one is never published.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import SetupError

HERE = Path(__file__).parent.resolve()
LABEXTENSION = Path("labextension/prebuilt")
PROXY = Path("jupyterhub_bkai/_proxy/configurable-http-proxy.js")


def require_built() -> None:
    """Fail with one sentence when a part that is built by npm is missing."""
    if not (HERE / LABEXTENSION / "package.json").is_file():
        raise SetupError(f"{LABEXTENSION}/ is empty: run `make build` first.")
    if not (HERE / PROXY).is_file():
        raise SetupError(f"{PROXY} is missing: run `make build` first.")


def data_files() -> list[tuple[str, list[str]]]:
    """The files beside the packages, each under the folder of `sys.prefix` it belongs in."""
    listed = [
        ("etc/jupyter/jupyter_server_config.d", ["etc/jupyter_server_config.d/jupyterhub_bkai.json"]),
        ("share/bkai/grafana", ["etc/grafana/bkai.json"]),
    ]
    built = [file for file in (HERE / LABEXTENSION).rglob("[!.]*") if file.is_file()]
    folders = sorted({file.parent for file in built})
    for folder in folders:
        target = Path("share/jupyter/labextensions/jupyterhub-bkai") / folder.relative_to(HERE / LABEXTENSION)
        files = sorted(str(file.relative_to(HERE)) for file in built if file.parent == folder)
        listed.append((str(target), files))
    return listed


class BuildPy(build_py):
    """Copies `images/` into the package, where `jupyterhub_bkai.shipped` finds it."""

    def run(self) -> None:
        if not self.editable_mode:
            require_built()
            shutil.rmtree(self.build_lib, ignore_errors=True)  # or files that are gone would ship for ever
        super().run()
        if not self.editable_mode and (HERE / "images").is_dir():
            target = Path(self.build_lib) / "jupyterhub_bkai" / "_images"
            shutil.copytree(HERE / "images", target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


class Sdist(sdist):
    """An sdist carries the built parts: whoever installs it has no npm."""

    def run(self) -> None:
        require_built()
        super().run()


setup(data_files=data_files(), cmdclass={"build_py": BuildPy, "sdist": Sdist})
