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
    default=lambda: Path.home() / ".bkai",
    show_default="~/.bkai",
    help="The folder that holds everything: settings, databases, logs, environments.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="The port.")
@with_settings
def up(data: Path, host: str, port: int) -> None:
    """Start a hub with everything it needs on this machine.

    Ends with the hub's address; the first time, also with a login. Ctrl-C stops the sessions and the hub.
    """
    if find_spec("jupyterhub") is None:
        raise click.ClickException(
            "The hub's own parts are not installed here; use: pip install 'jupyterhub-bkai[hub]'"
        )
    code = import_module("jupyterhub_bkai.supervise").up(data, host=host, port=port)
    click.get_current_context().exit(code or 0)
