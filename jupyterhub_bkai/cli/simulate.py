"""`bkai simulate`: reads the command line and shows what came of it. The simulator comes with the hub's parts."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from jupyterhub_bkai.cli.settings import as_json, print_json, with_settings
from jupyterhub_bkai.cli.terminal import available, table
from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.options import duration_text, seconds

FAULTS = ("die-before", "die-after", "refuse", "lose-answer", "device", "node", "clock", "crash")
FILE = click.Path(dir_okay=False, path_type=Path)


def _kinds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    found = tuple(part.strip() for part in value.split(",")) if value else FAULTS
    for kind in found:
        if kind not in FAULTS:
            raise click.BadParameter(f"there is no fault “{kind}”; known are {', '.join(FAULTS)}.")
    return found


def _step(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = seconds(value)
    if not found:
        raise click.BadParameter(f"“{value}” is not a time such as 10s or 1m.")
    return float(found)


def _svg(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".svg":
        raise click.BadParameter(f"the picture is an SVG file; call it {path.stem}.svg.")
    return path


@click.command()
@click.option("--trace", type=FILE, help="Recorded demand: a CSV file as “bkai usage --trace” writes it.")
@click.option("--generate", is_flag=True, help="Made-up demand, in place of a trace.")
@click.option(
    "--days", type=click.FloatRange(0.01, 3660), default=7.0, show_default=True, help="Of made-up demand."
)
@click.option(
    "--load",
    type=click.FloatRange(0.01, 10),
    default=1.0,
    show_default=True,
    help="Of made-up demand: the device-hours asked for, as a part of all there are.",
)
@click.option(
    "--users",
    type=click.IntRange(1, 1_000_000),
    help="Of made-up demand.  [default: a fourth of the devices]",
)
@click.option(
    "--settings",
    type=FILE,
    help="The rules: groups, limits, queues, as “bkai admin rules” prints them or as they stand in bkai.yaml.  "
    "[default: one open group]",
)
@click.option(
    "--devices",
    default="fake:two-80gb",
    show_default=True,
    help="What a machine has: a shipped sample, or a TOML file of fake devices.",
)
@click.option(
    "--nodes", type=click.IntRange(1, 20_000), default=1, show_default=True, help="So many such machines."
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="POLICY",
    help="Queue rules to compare, any number of times: fifo, lifo, drf, fair, balance, pack, spread, KEY=VALUE as "
    "under “queue:” in the settings, several with commas (“fair,backfill=false”), or another settings file.  "
    "[default: settings, the rules of the settings file]",
)
@click.option("--fault-rate", type=click.FloatRange(0, 1000), default=0.0, help="So many faults an hour.")
@click.option(
    "--faults",
    callback=_kinds,
    metavar="KINDS",
    help=f"Of these kinds, with commas.  [default: {','.join(FAULTS)}]",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed gives the same run."
)
@click.option(
    "--step",
    "step_s",
    callback=_step,
    metavar="TIME",
    help="What happens within this time is decided together.  [default: 1s; 10s above 100 machines, 30s above 500]",
)
@click.option("--picture", type=FILE, callback=_svg, help="Draw waits and allocation into this SVG file.")
@click.option("--save", type=FILE, help="Write the demand into this CSV file.")
@with_settings
def simulate(
    trace: Path | None, generate: bool, policies: tuple[str, ...], users: int | None, **words: Any
) -> None:
    """Try queue rules on recorded or made-up demand.

    The scheduler is the one that runs in the service; only time, people and machines are made up. While it runs, a
    judge checks that no slice is given twice or lost, and that everybody is answered; if that fails, the exit code
    is 1 and the command that shows it again is printed.

    Next month's policy on last month's demand:

    \b
      bkai usage --trace --from 2026-10-01 --to 2026-11-01 > october.csv
      bkai admin rules > rules.yaml
      bkai simulate --trace october.csv --settings rules.yaml --policy settings --policy fair --picture october.svg
    """
    if (trace is None) == (not generate):
        raise click.UsageError("Give either --trace FILE or --generate.")
    given = click.get_current_context().get_parameter_source("faults")
    if given is click.core.ParameterSource.COMMANDLINE and not words["fault_rate"]:
        raise click.UsageError(
            "--faults says which faults; give --fault-rate too, which says how many an hour."
        )
    if find_spec("sqlalchemy") is None or find_spec("yaml") is None:
        raise click.ClickException(
            "The simulator comes with the hub's parts, which are not installed here; use: "
            "pip install 'jupyterhub-bkai[hub]'"
        )
    run = import_module("jupyterhub_bkai.simulation.run")
    plan = run.Plan(trace=trace, policies=policies or ("settings",), users=users or 0, **words)
    try:
        report = run.simulate(plan, _Progress())
    except SettingsError as error:
        raise click.UsageError(_sentence(error)) from None
    except run.Failed as error:
        raise click.ClickException(str(error)) from None
    finally:
        _clear()
    if as_json():
        print_json(report.public())
        return
    _show(report.public())


def _sentence(error: SettingsError) -> str:
    place, sentence = error.problems[0]
    more = len(error.problems) - 1
    return f"{place}: {sentence}" + (f" ({more} more like this)" if more else "")


class _Progress:
    """One line that is written over while it runs; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty() and not as_json()

    def __call__(self, policy: str, hours: float, waiting: int, running: int) -> None:
        """Where a simulation is."""
        if self._on:
            text = f"∙ {policy}: day {hours / 24:.1f}, {waiting:,} waiting, {running:,} running"
            click.echo(f"\r\x1b[K{text[:78]}", err=True, nl=False)


def _clear() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)


def _show(report: dict[str, Any]) -> None:
    policies = report["policies"]
    sessions, machines, devices = (
        f"{report[key]:,} {word}{'' if report[key] == 1 else 's'}"
        for key, word in (("sessions", "session"), ("nodes", "machine"), ("devices", "device"))
    )
    length = duration_text(round(report["hours"] * 3600))
    click.echo(f"{sessions} in {length}, {machines} with {devices}, seed {report['seed']}")
    rows = [[name, *(value(one) for one in policies)] for name, value in _ROWS]
    groups = list(dict.fromkeys(group for one in policies for group in one["waits"]))
    for group in groups if len(groups) > 1 else ():
        if group != "all":
            rows.append([f"waiting in {group}", *(_three(one["waits"].get(group)) for one in policies)])
    headings = ["", *(one["policy"] for one in policies)]
    click.echo(table(headings, rows, columns=available(), right=headings[1:]))


def _time(value: float) -> str:
    return duration_text(round(value)) if value >= 1 else "at once"


def _three(waits: dict[str, float] | None) -> str:
    if waits is None:
        return "–"
    return " / ".join(_time(waits[key]) for key in ("median_s", "p95_s", "worst_s"))


def _percent(key: str) -> Any:
    return lambda one: f"{100 * one[key]:.1f} %"


def _amount(key: str, digits: int = 0) -> Any:
    return lambda one: f"{one[key]:,.{digits}f}"


_ROWS: Sequence[tuple[str, Any]] = (
    ("waiting, median", lambda one: _time(one["waits"]["all"]["median_s"])),
    ("waiting, 95 of 100 below", lambda one: _time(one["waits"]["all"]["p95_s"])),
    ("waiting, worst", lambda one: _time(one["waits"]["all"]["worst_s"])),
    ("fairness (Jain, 0 to 1)", _amount("fairness", 3)),
    ("devices held", _percent("allocation")),
    ("idle slice-hours", _amount("idle_slice_hours")),
    ("fragmentation", _percent("fragmentation")),
    ("sessions finished a day", _amount("finished_a_day", 1)),
    ("device-hours a day", _amount("device_hours_a_day")),
    ("refused", _amount("refused")),
    ("gave up waiting", _amount("gave_up")),
    ("deaths of the service", _amount("service_deaths")),
)
