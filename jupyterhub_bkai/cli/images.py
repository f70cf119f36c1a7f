"""`bkai images`."""

import click

from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import available, memory, table


@click.command()
@with_settings
def images() -> None:
    """List the image versions you can choose from."""
    offered = call(lambda client: client.options()).offer.get("images", [])
    if as_json():
        print_json({"images": offered})
        return
    rows = [
        (
            image.get("version", ""),
            image.get("title", ""),
            "ready" if image.get("ready", True) else "is made on first use",
            _least(image),
            image.get("description", ""),
        )
        for image in offered
    ]
    if rows:
        click.echo(
            table(("IMAGE", "TITLE", "READY", "NEEDS", "ABOUT"), rows, columns=available(), prose="ABOUT")
        )
    else:
        click.echo("There is no image version you may use; ask an administrator.")


def _least(image: dict[str, object]) -> str:
    cpu, mib = image.get("minimum_cpu_milli"), image.get("minimum_memory_mib")
    parts = [f"{cpu / 1000:g} cpu"] if isinstance(cpu, int) and cpu else []
    parts += [memory(mib)] if isinstance(mib, int) and mib else []
    return ", ".join(parts)
