"""`bkai login` and `bkai logout`: tokens come by prompt, from standard input or from a file, never as an argument."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jupyterhub_bkai.cli.settings import as_json, print_json, profile_name, with_settings
from jupyterhub_bkai.cli.terminal import plain

if TYPE_CHECKING:
    from jupyterhub_bkai.client.nouns import Me


@click.command()
@click.argument("address", metavar="ADDRESS", envvar="BKAI_URL")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="Read the token from this file; “-” is standard input.",
)
@with_settings
def login(address: str, token_file: str | None) -> None:
    """Remember a hub's address and a token for it.

    ADDRESS is the hub's, as you type it into a browser. The hub's page “Token” makes tokens. The token is asked
    for (or read from standard input when that is not a terminal), tried, and saved where only you can read it.
    """
    from jupyterhub_bkai.cli import profiles
    from jupyterhub_bkai.client.wire import service_url

    hub = service_url(address).removesuffix("/services/bkai")
    token = _token(hub, token_file)
    me = _tried(hub, token)
    profiles.save(profiles.load() | {profile_name(): profiles.Login(hub, token, me.name)})
    if as_json():
        print_json({"url": hub, "user": me.name, "admin": me.admin, "profile": profile_name()})
    else:
        click.echo(f"Logged in to {hub} as {plain(me.name)}{' (administrator)' if me.admin else ''}.")


@click.command()
@with_settings
def logout() -> None:
    """Forget a hub's address and token.

    The token itself stays valid until it is revoked on the hub's page “Token” or expires.
    """
    from jupyterhub_bkai.cli import profiles

    saved = profiles.load()
    gone = saved.pop(profile_name(), None)
    if gone:
        profiles.save(saved)
    if as_json():
        print_json({"profile": profile_name(), "forgotten": gone is not None})
    else:
        click.echo(f"Forgot the token for {gone.url}." if gone else "You were not logged in.")


def _token(hub: str, file: str | None) -> str:
    if file and file != "-":
        return _first_line(Path(file).read_text("utf-8", "replace"))
    if file == "-" or not sys.stdin.isatty():
        return _first_line(sys.stdin.readline())
    click.echo(f"Make a token at {hub}/hub/token and paste it here.", err=True)
    return str(click.prompt("Token", hide_input=True, err=True)).strip()


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].strip()


def _tried(hub: str, token: str) -> "Me":
    import asyncio

    from jupyterhub_bkai.client import AsyncClient

    async def ask() -> "Me":
        async with AsyncClient(hub, token) as client:
            return await client.me()

    return asyncio.run(ask())
