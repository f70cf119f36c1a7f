"""Fixtures of the device tests.

Product
    mock_nvml        a machine with NVIDIA's library: describe its cards, then run code over it in a process of its own
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "native" / "mock_nvml.c"
ROOT = SOURCE.parent.parent.parent

# The code under test sees the machine as `source`; what it `say`s comes back.
PRELUDE = """
import ctypes, dataclasses, json, logging, os, pathlib
import pynvml
from jupyterhub_bkai.gpus.inventory import Inventory, this_machine
from jupyterhub_bkai.gpus.nvidia import NvidiaSource
from jupyterhub_bkai.gpus.source import SourceOptions, SourceProblem, select

logging.disable()
source = NvidiaSource(SourceOptions(node="gpu-1"))

def describe(text):
    pathlib.Path(os.environ["MOCK_NVML"]).write_text(text)

def references():
    return ctypes.CDLL("libnvidia-ml.so.1").mock_nvml_references()

def plain(value):
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)

def say(value):
    print(json.dumps(value, default=plain))
"""


class MockNvml:
    """A machine whose NVML is the mock."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self._description = folder / "machine"

    def run(self, description: str, code: str, **environment: str) -> Any:
        """What `code` said last, run where the machine is as described."""
        self._description.write_text(description)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code)],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])),
                "LD_LIBRARY_PATH": str(self._library.parent),
                "MOCK_NVML": str(self._description),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., str]) -> Path:
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    compiler = needs("gcc", "cc")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE)], check=True)
    return library


@pytest.fixture
def mock_nvml(nvml_library: Path, tmp_path: Path) -> MockNvml:
    return MockNvml(nvml_library, tmp_path)
