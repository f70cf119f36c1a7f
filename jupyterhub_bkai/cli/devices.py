"""`bkai devices`."""

from typing import TYPE_CHECKING

import click

from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import available, memory, plain, table

if TYPE_CHECKING:
    from jupyterhub_bkai.client.nouns import Device, Node


@click.command()
@with_settings
def devices() -> None:
    """Show the machines, their accelerators and what is booked on them."""
    nodes = call(lambda client: client.devices())
    if as_json():
        print_json({"nodes": [node.raw for node in nodes]})
        return
    for number, node in enumerate(nodes):
        click.echo("\n" * bool(number) + _headline(node))
        if node.devices:
            click.echo(
                table(
                    ("#", "KIND", "MODEL", "FREE", "MEMORY BOOKED", "HELD BY"),
                    [_row(device) for device in node.devices],
                    columns=available(),
                    right=("#", "FREE"),
                )
            )
        else:
            click.echo("no accelerator")
    if any(device.fake for node in nodes for device in node.devices):
        click.echo("These devices are made up: nothing is computed on a GPU.")


def _headline(node: "Node") -> str:
    cpu, mib = node.cpu, node.memory_mib
    return (
        f"{click.style(plain(node.name), bold=True)}  {cpu.booked:g} of {cpu.total:g} cores and "
        f"{memory(mib.booked)} of {memory(mib.total)} memory booked"
    )


def _row(device: "Device") -> tuple[object, ...]:
    free = "" if device.share_free is None else f"{float(device.share_free) * 100:.3g} %"
    used = f"{memory(device.booked_mib)} of {memory(device.memory_mib)}"
    held = ", ".join(
        " ".join(str(piece[key]) for key in ("user", "session", "share") if piece.get(key))
        for piece in device.slices
    )
    return device.index, device.slot, device.model, free, used, held
