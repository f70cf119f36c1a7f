"""`bkai usage`."""

from datetime import datetime

import click

from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import available, memory, table
from jupyterhub_bkai.options import duration_text

DATES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
#: amounts of memory are shown in GiB; the JSON and the CSV have them as the service gives them
HEADINGS = {
    "seconds": "TIME",
    "gpu_hours": "GPU H",
    "gpu_mib_hours": "GPU GIB·H",
    "cpu_hours": "CPU H",
    "memory_mib_hours": "MEMORY GIB·H",
    "booked_mib": "MOST BOOKED",
    "measured_kib": "MOST MEASURED",
}


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
@click.option(
    "--trace", "as_trace", is_flag=True, help="Each session that was asked for, as CSV for “bkai simulate”."
)
@click.option("--anonymous", is_flag=True, help="With --trace: numbers in place of names.")
@with_settings
def usage(
    by: str, since: datetime | None, until: datetime | None, as_csv: bool, as_trace: bool, anonymous: bool
) -> None:
    """Sum up what was booked and used.

    Times are this machine's; administrators see everybody's, others their own.
    """
    since, until = (moment.astimezone() if moment else None for moment in (since, until))
    if anonymous and not as_trace:
        raise click.UsageError("--anonymous goes with --trace.")
    if as_trace:
        text = call(lambda client: client.usage_trace(since=since, until=until, anonymous=anonymous))
        click.echo(text, nl=False)
        return
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
    headings = [by.upper() if name == "key" else HEADINGS.get(name, name.upper()) for name in names]
    cells = [[_cell(name, row.get(name)) for name in names] for row in rows]
    click.echo(table(headings, cells, columns=available(), right=headings[1:]))


def _cell(name: str, value: object) -> str:
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    if name == "seconds":
        return duration_text(round(value))
    if name in ("gpu_mib_hours", "memory_mib_hours"):
        return f"{value / 1024:,.2f}"
    if name in ("booked_mib", "measured_kib"):
        return memory(value if name == "booked_mib" else round(value / 1024))
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
