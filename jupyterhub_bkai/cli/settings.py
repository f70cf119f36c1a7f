"""What every command shares: `--json`, `--profile`, and a client for the hub they lead to."""

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from jupyterhub_bkai.client import AsyncClient

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _remember(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value and parameter.name:
        ctx.meta[f"bkai.{parameter.name}"] = value


def with_settings(command: F) -> F:
    """Adds `--json` and `--profile`; they work before and after the command's name."""
    for option in (
        click.option(
            "--profile",
            metavar="NAME",
            envvar="BKAI_PROFILE",
            expose_value=False,
            callback=_remember,
            help="Which login to use, where you have several.",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Answer in JSON, for programs.",
        ),
    ):
        command = option(command)
    return command


def as_json() -> bool:
    """True when the answer is for a program."""
    return bool(click.get_current_context().meta.get("bkai.json"))


def profile_name() -> str:
    """The profile in use."""
    return str(click.get_current_context().meta.get("bkai.profile", "default"))


def print_json(value: object) -> None:
    """The one form of machine output: indented JSON, keys as the service gives them."""
    click.echo(json.dumps(value, indent=2, default=str))


def connect() -> "AsyncClient":
    """A client for the hub that the environment or the profile names."""
    from jupyterhub_bkai.cli.profiles import credentials
    from jupyterhub_bkai.client import AsyncClient

    login = credentials(profile_name())
    return AsyncClient(login.url, login.token)


def call(work: "Callable[[AsyncClient], Awaitable[T]]") -> T:
    """What `work` gives, with a client of its own."""
    import asyncio

    async def go() -> T:
        async with connect() as client:
            return await work(client)

    return asyncio.run(go())
