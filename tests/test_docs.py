"""What the documents say exists: every `path::name` resolves, every link leads somewhere, every page is linked."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from jupyterhub_bkai.cli import plan
from jupyterhub_bkai.cli.root import root

ROOT = Path(__file__).resolve().parent.parent
# A walk document writes paths as short as they are clear; they are looked for below these, in this order.
BASES = ("", "jupyterhub_bkai", "spawners", "spawners/bkaispawner", "labextension/src")
SUFFIXES = ("", ".py", "/__init__.py", ".ts", ".tsx")

REFERENCE = re.compile(r"(?<![\w:/.-])([\w./-]+)::([A-Za-z_][\w.]*)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
TYPESCRIPT = r"\b(?:function|class|const|let|interface|type|enum)\s+{0}\b|^\s+(?:\w+\s+)*{0}\s*[(=:]"


def pages(root: Path) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def problems(root: Path) -> list[str]:
    """Everything the documents below `root` claim that is not so, one sentence each."""
    found, linked = [], {root / "README.md"}
    for page in pages(root):
        text, place = page.read_text(), page.relative_to(root)
        for path, name in REFERENCE.findall(text):
            if not resolves(root, path, name):
                found.append(f"{place} names {path}::{name}, which does not exist")
        for target in links(text):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if file != page:
                linked.add(file)
            if not file.exists():
                found.append(f"{place} links to {target}, which does not exist")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
                found.append(f"{place} links to {target}, a heading that does not exist")
    return found + [f"{p.relative_to(root)} is linked from nowhere" for p in pages(root) if p not in linked]


def links(text: str) -> list[str]:
    found = [first or second for first, second in LINK.findall(FENCE.sub("", text))]
    return [each for each in found if not re.match(r"[a-z]+:", each)]


def anchors(text: str) -> set[str]:
    """As GitHub makes them: lower case, punctuation dropped, spaces to hyphens."""
    headings = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def resolves(root: Path, path: str, name: str) -> bool:
    files = [root / base / (path + suffix) for base in BASES for suffix in SUFFIXES]
    return any(defines(file, name) for file in files if file.is_file())


def defines(file: Path, name: str) -> bool:
    text = file.read_text()
    if file.suffix == ".py":
        return name in python_names(ast.parse(text).body)
    return re.search(TYPESCRIPT.format(re.escape(name.split(".")[-1])), text, re.MULTILINE) is not None


def python_names(body: list[ast.stmt]) -> set[str]:
    """Top-level names, and a class's own both as `Class.name` and as `name`."""
    names: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name, body=inside):
                inner = python_names(inside)
                names |= {name, *inner, *(f"{name}.{each}" for each in inner)}
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return names


def test_the_documents_are_true() -> None:
    assert problems(ROOT) == []


def test_the_tutorials_commands_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `$ bkai …` of the tutorial is a command line that `bkai` takes, with the files that the tutorial gives."""
    text = (ROOT / "docs/tutorial.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, "docs/tutorial.md", "exec")
        if "argparse" in block:
            (tmp_path / "fit.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^\$ bkai (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        command: click.Command = root
        words = shlex.split(line)
        context = click.Context(root, info_name="bkai", **root.context_settings)
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None, line
            command = found
        values = command.make_context(line, words, parent=context).params
        if command.name == "run":
            made = plan.make(values["path"], values["command"])
            assert made.command == ("python", "fit.py", "--alpha", "0.2")


def test_the_catalogue_of_fixtures_is_complete() -> None:
    """`tests/conftest.py` opens with the list of what it offers, and lists nothing else."""
    tree = ast.parse((ROOT / "tests/conftest.py").read_text())
    listed = set(re.findall(r"^    (\w+) +\S", ast.get_docstring(tree) or "", re.MULTILINE))
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    offered = {n.name for n in functions if any("fixture" in ast.unparse(d) for d in n.decorator_list)}
    assert listed == offered


BAD = {
    "a name that is gone": (
        "See `leasing/broker.py::Broker.forgive`.",
        "names leasing/broker.py::Broker.forgive",
    ),
    "a file that is gone": ("See `leasing/bank::grant`.", "names leasing/bank::grant"),
    "a dead link": ("[here](gone.md)", "links to gone.md"),
    "a dead heading": ("[here](#gone)", "links to #gone, a heading"),
}


@pytest.mark.parametrize("what", BAD)
def test_the_checker_sees(what: str, tmp_path: Path) -> None:
    text, problem = BAD[what]
    module = tmp_path / "jupyterhub_bkai/leasing/broker.py"
    module.parent.mkdir(parents=True)
    module.write_text("class Broker:\n    async def grant(self): ...\n")
    good = "# A walk\n`leasing/broker.py::Broker.grant`, `leasing/broker::grant` and [up](#a-walk)\n"
    (tmp_path / "README.md").write_text("[docs](docs/index.md)\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(good)
    assert problems(tmp_path) == []
    (tmp_path / "docs/index.md").write_text(good + text)
    [found] = problems(tmp_path)
    assert problem in found


def test_the_checker_sees_a_page_nobody_links(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Nothing.\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/lost.md").write_text("Lost.\n")
    assert problems(tmp_path) == ["docs/lost.md is linked from nowhere"]
