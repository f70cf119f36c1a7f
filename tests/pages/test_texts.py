"""The sentences of the scripts stand in one file: each that is used is there, each that is there is used."""

import re
from pathlib import Path

from jupyterhub_bkai import options

STATIC = Path(options.__file__).parent / "admin" / "static"


def test_every_sentence_is_used_and_every_used_one_exists() -> None:
    written = set(re.findall(r"^  (\w+):", (STATIC / "texts.js").read_text(), re.MULTILINE))
    scripts = [path.read_text() for path in STATIC.glob("*.js") if path.name != "texts.js"]
    used = {name for script in scripts for name in re.findall(r"\btexts\.(\w+)", script)} - {"js"}
    assert used == written


def test_scripts_show_no_sentence_of_their_own() -> None:
    """A text set in a script with a blank in it is a sentence that no translation would find."""
    found = {
        path.name: re.findall(r"""(?:text|aria-label"?|placeholder): *"([^"]* [^"]*)\"""", path.read_text())
        for path in STATIC.glob("*.js")
        if path.name != "texts.js"
    }
    assert {name: texts for name, texts in found.items() if texts} == {}
