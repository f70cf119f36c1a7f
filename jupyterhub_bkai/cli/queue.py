"""`bkai queue`."""

from typing import TYPE_CHECKING

import click

from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import ago, available, between, plain, table

if TYPE_CHECKING:
    from jupyterhub_bkai.client.nouns import Waiting


@click.command()
@with_settings
def queue() -> None:
    """Show who waits for what, in order."""
    groups = call(lambda client: client.queue())
    if as_json():
        print_json({"groups": [group.raw for group in groups]})
        return
    for group in [group for group in groups if group.waiting or group.held]:
        if len(groups) > 1:
            click.echo(click.style(plain(group.name), bold=True))
        if group.held:
            click.echo(f"{plain(group.name)} is held: {plain(group.held.why)}")
        if not group.waiting:
            continue
        rows = [
            (w.position or "–", *_whose(w), w.asked or "", ago(w.since), between(w.when), w.why or "")
            for w in group.waiting
        ]
        headings = ("POSITION", "USER", "NAME", "ASKED FOR", "ASKED", "STARTS", "WAITS BECAUSE")
        click.echo(table(headings, rows, columns=available(), prose="WAITS BECAUSE"))
    if not any(group.waiting for group in groups):
        click.echo("Nobody is waiting.")


def _whose(one: "Waiting") -> tuple[str, str]:
    """Person and session, where the caller may see them; the session that has no name is called “default”."""
    return one.user or "", (one.name or "default") if one.user else ""
