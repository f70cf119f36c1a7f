"""`bkai up`: starts the supervisor, which is all it knows of it."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

from jupyterhub_bkai.cli.settings import with_settings


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that holds everything: settings, databases, logs, environments.  [default: ~/.bkai]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port; 0 for any free one.",
)
@click.option("--fake", metavar="SAMPLE", help="Pretend the devices of a shipped sample or of a TOML file.")
@with_settings
def up(data: Path | None, host: str, port: int, fake: str | None) -> None:
    """Start a hub with everything it needs on this machine.

    Says the hub's address when it is ready; the first time, also a login. Ctrl-C stops the sessions and the hub.
    """
    if find_spec("jupyterhub") is None or find_spec("sqlalchemy") is None:
        raise click.ClickException(
            "The hub's own parts are not installed here; use: pip install 'jupyterhub-bkai[hub]'"
        )
    code = import_module("jupyterhub_bkai.supervise").up(data, host=host, port=port, fake=fake)
    click.get_current_context().exit(1 if code else 0)
