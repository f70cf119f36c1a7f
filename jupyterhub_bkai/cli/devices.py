"""`bkai devices`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import available, memory, plain, table

if TYPE_CHECKING:
    from fractions import Fraction

    from jupyterhub_bkai.client import AsyncClient
    from jupyterhub_bkai.client.nouns import Device, Info, Node


@click.command()
@with_settings
def devices() -> None:
    """Show the machines, their accelerators and what is booked on them."""
    nodes, info = call(_ask)
    if as_json():
        print_json({"nodes": [node.raw for node in nodes]})
        return
    for number, node in enumerate(nodes):
        click.echo("\n" * bool(number) + _headline(node))
        if node.drained:
            click.echo(f"drained: {plain(node.drained.why)}")
        if node.devices:
            click.echo(
                table(
                    ("#", "KIND", "MODEL", "FREE", "MEMORY BOOKED", "HELD BY"),
                    [_row(device) for device in node.devices],
                    columns=available(),
                    right=("#", "FREE"),
                    prose="HELD BY",
                )
            )
        else:
            click.echo("no accelerator")
    if info.fake_devices and info.statement:
        click.echo("\n" + plain(info.statement))


async def _ask(client: "AsyncClient") -> "tuple[Sequence[Node], Info]":
    return await client.devices(), await client.info()


def _headline(node: "Node") -> str:
    cpu, mib = node.cpu, node.memory_mib
    most = cpu.most or cpu.total
    over = f" (up to {most / cpu.total:.3g} times the {cpu.total / 1000:g})" if most > cpu.total else ""
    return (
        f"{click.style(plain(node.name), bold=True)}  {cpu.booked / 1000:g} of {most / 1000:g} cores{over} and "
        f"{memory(mib.booked)} of {memory(mib.total)} memory booked"
    )


def _row(device: "Device") -> tuple[object, ...]:
    free = "broken" if not device.healthy else "drained" if device.drained else _percent(device.share_free)
    used = f"{memory(device.booked_mib)} of {memory(device.memory_mib)}"
    held = ", ".join(f"{piece.user or 'somebody'} {_percent(piece.share)}" for piece in device.slices)
    return device.index, device.slot, device.model, free, used, held


def _percent(share: "Fraction | None") -> str:
    return "" if share is None else f"{float(share) * 100:.3g} %"
