"""The catalogue of fixtures, by purpose. tests/test_docs.py holds it complete: a fixture not listed here fails.

Machine
    free_port        a function: a loopback port nobody listens on
    needs            a function: a program the test cannot do without, or a skip that says why (under CI, a failure)

Product
    wheel            the wheel, built once for the run
    shared           a folder for environments and caches that all sites of the run use
    a_site           a function: a site of one's own (`tests.chain.site.Site`), not started yet
    _one_site        the site behind `site`, for the whole run
    site             the running site of the run, 2 fGPU and dummy login; without sessions before each test
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.chain.site import Site, remove

ROOT = Path(__file__).resolve().parent.parent

# Killing everything many times over takes long: `make soak` does it (it sets BKAI_ROUNDS).
collect_ignore = [] if os.environ.get("BKAI_ROUNDS") else ["soak/test_killing.py"]

# How long an example takes says more about the machine than about us.
hypothesis.settings.register_profile("bkai", deadline=None)
hypothesis.settings.load_profile("bkai")

# A shell that starts the run in the background has it ignore Ctrl-C, and every program a test starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Each call gives another port; the kernel does not hand the same one out again at once."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find


@pytest.fixture(scope="session")
def needs() -> Callable[..., str]:
    """`needs("chromium", "google-chrome")` gives the path of the first that exists."""

    def find(*programs: str) -> str:
        for program in programs:
            if path := shutil.which(program):
                return path
        reason = f"{' or '.join(programs)} is not installed (tests/install-system-packages.sh, as root)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return find


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout as it is, with what npm built into it."""
    return built("--wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Below /tmp itself: sessions that run as other Linux users pass through it."""
    if kept := os.environ.get("BKAI_SHARED"):
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="bkai-shared-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def a_site(shared: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Site]]:
    """Sites are ended and removed after the run at the latest."""
    made: list[Site] = []

    def make(**changes: Any) -> Site:
        folder = Path(tempfile.mkdtemp(prefix="bkai-site-"))
        made.append(Site(folder / "d", free_port(), shared, **changes))
        folder.chmod(0o711)
        return made[-1]

    yield make
    for one in made:
        remove(one)


@pytest.fixture(scope="session")
def _one_site(a_site: Callable[..., Site]) -> Site:
    return a_site().start()


@pytest.fixture
def site(_one_site: Site) -> Iterator[Site]:
    """One start for the run; each test finds it without sessions."""
    yield _one_site
    _one_site.clear()


def built(what: str, source: Path, out: Path) -> Path:
    """`--wheel` or `--sdist` of a source tree; nothing is written into the tree."""
    out.mkdir(exist_ok=True)
    config = out / "setup.cfg"
    config.write_text(f"[build]\nbuild_base = {out / 'build'}\n[egg_info]\negg_base = {out}\n")
    uv = [sys.executable, "-m", "uv", "build", what, "--no-build-isolation", "--python", sys.executable]
    run = subprocess.run(
        [*uv, "--out-dir", str(out / "dist"), str(source)],
        env={**os.environ, "DIST_EXTRA_CONFIG": str(config)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    [path] = (out / "dist").glob("jupyterhub_bkai-*")
    return path
