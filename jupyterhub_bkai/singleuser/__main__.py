"""`python -m jupyterhub_bkai.singleuser`: the stock single-user server, started without the detours.

Owns what happens before `jupyterhub.singleuser.main` and nothing after it: the server, its command line and its
configuration files are JupyterHub's and JupyterLab's own. Settings that suit a session (an extension manager that
only shows what the image version holds, no news and no update checks from every session) lie in `defaults/`, below
every other configuration file, so that an administrator's or a user's always wins.

Each saving below was measured on two cores, from exec to the first answer (the stock server needs 2.3 s) and is kept
because nothing a user sees depends on what is left out. `tests/singleuser/test_fast_start.py` compares the settings
and routes of a server started here with those of the stock one.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULTS = Path(__file__).with_name("defaults")


@contextmanager
def without_grammar() -> Iterator[None]:
    """Keep `rfc3987_syntax` from being imported: it builds a grammar of all IRIs, which takes 1.1 s.

    jsonschema asks for it, for the format "iri" of which no schema in Jupyter makes use, and does without it when the
    import fails. Whoever imports it later gets the real one. May go when rfc3987-syntax builds its grammar on first
    use, or jsonschema imports it on first use.
    """
    blocked = "rfc3987_syntax" not in sys.modules
    if blocked:
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # the documented way to block an import
    try:
        yield
    finally:
        if blocked:
            del sys.modules["rfc3987_syntax"]


@contextmanager
def without_yarn() -> Iterator[None]:
    """Keep `import jupyterlab.labapp` from running `node yarn.js config` to learn its own version: 0.25 s.

    The answer (an npm registry) only matters to `jupyter lab build`. After the import the real function is back. May
    go when JupyterLab no longer calls `get_app_version()` at import.
    """
    from jupyterlab import commands

    ask = getattr(commands, "_yarn_config", None)
    if ask is None:
        yield
        return
    commands._yarn_config = lambda logger: {"yarn config": {}, "npm config": {}}
    try:
        yield
    finally:
        commands._yarn_config = ask


@contextmanager
def without_collecting() -> Iterator[None]:
    """No garbage collection while modules are loaded, and none of them ever looked at again: 0.1 s."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def add_defaults() -> None:
    """Let Jupyter read `defaults/` after every other folder with configuration."""
    from jupyter_core import paths

    paths.SYSTEM_CONFIG_PATH.append(str(DEFAULTS))


def main() -> None:
    """Run the single-user server until it is stopped."""
    with without_collecting(), without_grammar():
        add_defaults()
        with without_yarn():
            import jupyterlab.labapp  # noqa: F401 - the server imports it anyway, but later
        from jupyterhub.singleuser import main as serve
    serve()


if __name__ == "__main__":
    main()
