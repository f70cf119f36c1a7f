"""The options of a request as flags, made from their one declaration; flags back to options."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click

from jupyterhub_bkai.options import FIELDS, Field

F = TypeVar("F", bound=Callable[..., Any])

METAVARS = {
    "choice": "NAME",
    "number": "NUMBER",
    "size": "SIZE",
    "duration": "TIME",
    "time": "WHEN",
    "text": "TEXT",
    "list": "NAME",
    "map": "NAME=VALUE",
}


def option_flags(leave_out: Collection[str] = ()) -> Callable[[F], F]:
    """Adds a flag per declared option, in their order."""

    def decorate(command: F) -> F:
        for field in reversed(FIELDS):
            if field.key not in leave_out:
                command = _flag(field)(command)
        return command

    return decorate


def _flag(field: Field) -> Callable[[F], F]:
    names = [f"--{field.key.replace('_', '-')}", field.key]
    if field.kind == "flag":
        return click.option(*names, is_flag=True, help=field.help)
    several = field.kind in ("list", "map")
    return click.option(
        *(["-e", *names] if field.kind == "map" else names),
        metavar=METAVARS.get(field.kind, "VALUE"),
        multiple=several,
        callback=variables if field.kind == "map" else None,
        help=field.help + (" May be given several times." if several else _default(field)),
    )


def _default(field: Field) -> str:
    return f" [default: {field.default}]" if field.default else ""


def variables(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    """`-e NAME=VALUE`; `-e NAME` alone is a slip, not an empty variable."""
    for text in value:
        if "=" not in text or text.startswith("="):
            raise click.BadParameter(f"“{text}” is not of the form NAME=VALUE.", ctx, parameter)
    return dict(text.split("=", 1) for text in value)


def given(flags: Mapping[str, object]) -> dict[str, object]:
    """The options that were really given."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in flags.items() if value}
