"""`bkai queue`."""

import click

from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import ago, available, between, plain, table


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
            click.echo(f"held: {plain(group.held.why)}")
        if not group.waiting:
            continue
        rows = [
            (w.position, w.user or "", w.asked or "", ago(w.since), between(w.when), w.why or "")
            for w in group.waiting
        ]
        headings = ("POSITION", "USER", "ASKED FOR", "ASKED", "STARTS", "WAITS BECAUSE")
        click.echo(table(headings, rows, columns=available(), prose="WAITS BECAUSE"))
    if not any(group.waiting for group in groups):
        click.echo("Nobody is waiting.")
