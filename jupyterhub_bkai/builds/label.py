"""Does an environment hold what its label says? Called by the `verify` of an image, with that image's own python.

Owns the comparison only: label against import, and label against what a kernel prints. What else an image must be
able to do stands in its `verify`. Needs nothing of the service.
"""

import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KERNEL_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of a label: `what` is of version `expected`; `code` prints the true one."""

    what: str
    expected: str
    found: str
    code: str

    def compare(self, how: str, found: str) -> None:
        """Ends the program with a sentence when `found` is another version."""
        if found != self.expected:
            said = found or "nothing"
            sys.exit(f"the label says {self.what} {self.expected}, but {how} {self.what} gives {said}.")


def check(verify: str) -> None:
    """Ends the program with one sentence unless the label beside the file `verify` is true."""
    label = yaml.load(Path(verify).with_name("image.yml").read_bytes(), yaml.BaseLoader)
    promises = [*_module(label), *_python(label)]
    if not promises:
        sys.exit("image.yml promises nothing: it names neither imports and version nor python.")
    for promise in promises:
        promise.compare("importing", promise.found)
        promise.compare("a kernel that prints", printed_by_kernel(promise.code))


def _module(label: Mapping[str, Any]) -> Iterator[Promise]:
    if name := label.get("imports"):
        found = str(getattr(importlib.import_module(name), "__version__", ""))
        yield Promise(name, str(label.get("version", "")), found, f"import {name}; print({name}.__version__)")


def _python(label: Mapping[str, Any]) -> Iterator[Promise]:
    if expected := label.get("python"):
        minor = "'.'.join(platform.python_version_tuple()[:2])"
        found = ".".join(platform.python_version_tuple()[:2])
        yield Promise("python", expected, found, f"import platform; print({minor})")


def printed_by_kernel(code: str) -> str:
    """What a kernel started from this environment's own kernelspec prints."""
    # Imported here: a wrong label must be told even where Jupyter is broken.
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    with tempfile.TemporaryDirectory(prefix="bkai-") as scratch:
        os.environ |= {"JUPYTER_RUNTIME_DIR": scratch, "IPYTHONDIR": scratch}
        specs = KernelSpecManager(
            kernel_dirs=[f"{sys.prefix}/share/jupyter/kernels"], ensure_native_kernel=False
        )
        _check_program(specs.get_kernel_spec("python3").argv[0])
        manager = KernelManager(
            kernel_name="python3",
            kernel_spec_manager=specs,
            transport="ipc",
            # Else the sockets would lie in whatever folder the kernel and its client each are in.
            ip=f"{scratch}/kernel",
            connection_file=f"{scratch}/kernel.json",
        )
        manager.start_kernel(cwd=scratch)
        try:
            return _run(manager, code)
        finally:
            manager.shutdown_kernel(now=True)


def _check_program(program: str) -> None:
    own = Path(sys.prefix, "bin")
    if not os.path.isabs(program) or Path(program).parent.resolve() != own.resolve():
        sys.exit(f"the kernelspec starts “{program}”, which is not this environment's python.")


def _run(manager: Any, code: str) -> str:
    client = manager.client()
    client.start_channels()
    printed: list[str] = []

    def hear(message: Mapping[str, Any]) -> None:
        content = message["content"]
        printed.append(content.get("text", "") or "\n".join(content.get("traceback", ())[-1:]))

    try:
        client.wait_for_ready(timeout=KERNEL_SECONDS)
        client.execute_interactive(code, output_hook=hear, timeout=KERNEL_SECONDS, allow_stdin=False)
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"the kernel of this environment does not answer ({error}).")
    finally:
        client.stop_channels()
    return "".join(printed).strip()
