"""`bkai usage`."""

from datetime import datetime

import click

from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import available, table

DATES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.command()
@click.option(
    "--by",
    type=click.Choice(["user", "image", "day"]),
    default="user",
    show_default=True,
    help="What to sum up by.",
)
@click.option("--from", "since", type=DATES, help="Leave out what was before this day or moment.")
@click.option("--to", "until", type=DATES, help="Leave out what was after this day or moment.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
@with_settings
def usage(by: str, since: datetime | None, until: datetime | None, as_csv: bool) -> None:
    """Sum up what was booked and used.

    Times are this machine's; administrators see everybody's, others their own.
    """
    since, until = (moment.astimezone() if moment else None for moment in (since, until))
    if as_csv:
        click.echo(call(lambda client: client.usage_csv(by, since=since, until=until)), nl=False)
        return
    answer = call(lambda client: client.usage(by, since=since, until=until))
    if as_json():
        print_json(answer)
        return
    rows = [row for row in answer.get("rows", []) if isinstance(row, dict)]
    if not rows:
        click.echo("Nothing was used in that time.")
        return
    names = list(rows[0])
    headings = [name.replace("_", " ").upper() for name in names]
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    click.echo(table(headings, cells, columns=available(), right=headings[1:]))


def _cell(value: object) -> str:
    return "" if value is None else f"{value:,.6g}" if isinstance(value, float) else str(value)
