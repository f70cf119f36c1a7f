"""Writes reference.md from the code: options, states, refusals, REST, settings, command line.

`python docs/generate.py` writes it; `make test` fails when it is not what the code says.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from jupyterhub_bkai import errors, options, settings
from jupyterhub_bkai.api import openapi
from jupyterhub_bkai.cli.root import root
from jupyterhub_bkai.leasing import lifecycle

PAGE = Path(__file__).with_name("reference.md")
HEAD = """\
# Reference

Made from the code by `docs/generate.py`; do not edit.

[Options](#options) · [States](#states) · [Refusals](#refusals) · [REST](#rest) · [Settings](#settings) ·
[Command line](#command-line)
"""


def page() -> str:
    """The whole page."""
    parts = (HEAD, *_options(), *_states(), *_refusals(), *_rest(), *_settings(), *_commands())
    return "\n".join(parts).rstrip() + "\n"


def _table(*columns: str) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _options() -> Iterator[str]:
    yield "\n## Options\n\nThe form, REST (`options`), the command line (`--KEY`) and JupyterLab read the same.\n"
    yield from _table("key", "label", "kind", "default", "what it is")
    for one in options.FIELDS:
        default = f"`{one.default}`" if one.default else ""
        yield f"| `{one.key}` | {one.label} | {one.kind} | {default} | {_cell(one.help)} |"


def _states() -> Iterator[str]:
    yield "\n## States\n\nWhat every face shows, and the inner states behind it (in a session's transitions).\n"
    yield from _table("shown", "inner", "holds its slices")
    for inner, shown in lifecycle.PUBLIC.items():
        yield f"| {shown} | {inner} | {'yes' if inner in lifecycle.HOLDING else 'no'} |"
    yield "\nWhy a session ends, and what it is shown as then:\n"
    yield from _table("cause", "ends as")
    for cause, inner in lifecycle.ENDS_AS.items():
        yield f"| `{cause}` | {lifecycle.PUBLIC[inner]} |"


def _refusals() -> Iterator[str]:
    yield "\n## Refusals\n\nEvery refusal has a `reason` for programs, a sentence for people, and sentences by field.\n"
    yield from _table("status", "reason", "meaning")
    kinds = [errors.PublicError, *errors.PublicError.__subclasses__()]
    for kind in sorted(set(kinds), key=lambda k: (k.status, k.default_reason, k.__name__)):
        if kind.__module__ == errors.__name__ and kind is not errors.PublicError:
            yield f"| {kind.status} | `{kind.default_reason}` | {_cell((kind.__doc__ or '').splitlines()[0])} |"


def _rest() -> Iterator[str]:
    yield "\n## REST\n\nUnder `/services/bkai/api/v1`, with a token of the Hub (`Authorization: token …`). The whole"
    yield "description is served as `/services/bkai/api/v1/openapi.json`.\n"
    yield from _table("call", "what it does", "query")
    for one in openapi.OPERATIONS:
        query = ", ".join(f"`{q.name}`" for q in one.query)
        yield f"| `{one.method} {one.path}` | {_cell(one.summary)} | {query} |"


def _settings() -> Iterator[str]:
    yield "\n## Settings\n\nThe file `bkai.yaml` in the data folder, as it is written the first time:\n"
    yield f"```yaml\n{settings.DEFAULT_SETTINGS}```"


def _commands() -> Iterator[str]:
    yield "\n## Command line"
    yield from _command(root, "bkai", None)


def _command(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    # help_option_names are inherited from the root, as when the command is really called.
    context = click.Context(
        command,
        info_name=name.rsplit(" ", 1)[-1],
        parent=parent,
        max_content_width=100,
        **command.context_settings,
    )
    with context:
        yield f"\n### {name}\n\n```text\n{command.get_help(context).strip()}\n```"
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            found = command.get_command(context, word)
            assert found is not None
            yield from _command(found, f"{name} {word}", context)


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.name} is written\n")
