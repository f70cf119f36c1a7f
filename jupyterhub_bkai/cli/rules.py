"""`bkai admin rules` and `bkai admin apply`: groups, policies and presets as a text, and changed by one."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import click

from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import plain

SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command()
@with_settings
def rules() -> None:
    """Print groups, policies and presets, as “bkai admin apply” reads them."""
    if as_json():
        print_json(call(lambda client: client.rules()))
    else:
        click.echo(plain(call(lambda client: client.rules_yaml()), keep="\n"), nl=False)


@click.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--prune", is_flag=True, help="Remove what the file does not name, of each kind that it names.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--check", is_flag=True, help="Only say what would change.")
@with_settings
def apply(file: IO[str], prune: bool, yes: bool, check: bool) -> None:
    """Change groups, policies and presets to what FILE says (“-” reads standard input).

    FILE is YAML like the settings file: groups, users, projects, presets. An entry that it does not name stays as it
    is; one that it names becomes what FILE says, and what the entry leaves out is not set any more: begin with what
    “bkai admin rules” prints. What differs, and who of those that wait would start by it, is shown before anything is
    changed.
    """
    from jupyterhub_bkai.client.errors import Refused

    try:
        text = file.read()
    except UnicodeDecodeError:
        raise Refused(
            f"{Path(file.name).name} is no text in UTF-8; give a YAML file.", reason="invalid"
        ) from None
    found = call(lambda client: client.change_rules(text=text, prune=prune, only_check=True))
    quiet = as_json()
    if not quiet:
        show(found)
    if check or not found["differences"]:
        if quiet:
            print_json(found)
        return
    if not yes and not quiet:
        if file.name == "<stdin>":
            raise Refused(
                "There is nobody to ask when the file is standard input; add --yes.", reason="not-asked"
            )
        if not click.confirm("Change this?"):
            click.echo("Nothing was changed.")
            click.get_current_context().exit(1)
    elif not yes:
        raise Refused("With --json nobody is asked; add --yes, or --check to only look.", reason="not-asked")
    done = call(lambda client: client.change_rules(text=text, prune=prune, revision=found["revision"]))
    if quiet:
        print_json(done)
    else:
        click.echo("Changed.")


def show(found: Mapping[str, Any]) -> None:
    """What differs, place by place, and who starts."""
    if not found["differences"]:
        click.echo("Nothing differs: the rules are so already.")
        return
    for one in found["differences"]:
        click.echo(plain(f"{SIGNS[one['change']]} {one['kind']} {one['name']}: {one['change']}"))
        for line in one["lines"]:
            click.echo(
                plain(f"    {line['place']}: {line['before'] or 'not set'} → {line['after'] or 'not set'}")
            )
    starts = found["starts"]
    if not starts:
        click.echo("Nobody who waits starts by this.")
        return
    click.echo("At once starts:" if len(starts) == 1 else f"At once start {len(starts)}:")
    for one in starts:
        click.echo(plain(f"    {one['user']}/{one['name']} in {one['group']}"))
