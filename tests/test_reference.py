"""The reference is what the code says, and the pictures are what the scheduler decides."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_reference_is_made_from_the_code() -> None:
    made = runpy.run_path(str(ROOT / "docs/generate.py"))["page"]()
    assert (ROOT / "docs/reference.md").read_text() == made, "run: python docs/generate.py"


def test_the_pictures_are_what_the_scheduler_decides() -> None:
    made = runpy.run_path(str(ROOT / "docs/pictures.py"))["pictures"]()
    for file, text in made.items():
        assert (ROOT / "docs/queue" / file).read_text() == text, "run: python docs/pictures.py"
