"""`bkai admin …`: what administrators do by hand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from jupyterhub_bkai.cli.naming import find
from jupyterhub_bkai.cli.rules import apply, rules
from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import plain

if TYPE_CHECKING:
    from jupyterhub_bkai.client import AsyncClient
    from jupyterhub_bkai.client.nouns import Closed, Node, Session


def _said(_: click.Context, __: click.Parameter, text: str) -> str:
    if not text.strip():
        raise click.BadParameter("it is empty; say in a few words why, for those who wait.")
    return text.strip()


WHY = click.option(
    "--why",
    required=True,
    callback=_said,
    metavar="TEXT",
    help="The reason; everybody who waits because of it reads it.",
)


@click.group()
@with_settings
def admin() -> None:
    """Change the rules, drain machines and devices, hold groups, change priorities; for administrators."""


admin.add_command(rules)
admin.add_command(apply)


@admin.command()
@click.argument("name", metavar="NODE[:INDEX]|DEVICE")
@WHY
@with_settings
def drain(name: str, why: str) -> None:
    """Start nothing new on a machine or a device; what runs there goes on.

    NODE is a machine and NODE:INDEX one of its devices, as “bkai devices” lists them; the id of a device does as well.
    """

    async def work(client: "AsyncClient") -> "Closed":
        device = _device(name, await client.devices())
        return await (client.drain_device(device, why) if device else client.drain_node(name, why))

    _tell(name, "drained", call(work))


@admin.command()
@click.argument("name", metavar="NODE[:INDEX]|DEVICE")
@with_settings
def undrain(name: str) -> None:
    """Let a drained machine or device take sessions again."""

    async def work(client: "AsyncClient") -> None:
        device = _device(name, await client.devices())
        await (client.undrain_device(device) if device else client.undrain_node(name))

    call(work)
    _tell(name, "in use again", None)


def _device(name: str, nodes: "Sequence[Node]") -> str | None:
    """The id of the device that somebody means; None for what can only be a machine."""
    from jupyterhub_bkai.client.errors import Refused

    devices = [(node, device) for node in nodes for device in node.devices]
    found = next((d.id for node, d in devices if name in (d.id, f"{node.name}:{d.index}")), None)
    machine, _, index = name.rpartition(":")
    if found is None and machine in (node.name for node in nodes):
        there = ", ".join(str(d.index) for node, d in devices if node.name == machine) or "none"
        raise Refused(f"{machine} has no device {index}; it has {there}.", reason="not-found")
    return found


@admin.command()
@click.argument("group")
@WHY
@with_settings
def hold(group: str, why: str) -> None:
    """Start nothing new in a resource group; people can go on asking, and wait."""
    _tell(group, "held", call(lambda client: client.hold_group(group, why)))


@admin.command()
@click.argument("group")
@with_settings
def release(group: str) -> None:
    """Let those who wait in a held group start again."""
    call(lambda client: client.release_group(group))
    _tell(group, "released", None)


@admin.command()
@click.argument("name", metavar="USER/NAME|ID")
@click.argument("priority", type=click.IntRange(0, 100))
@with_settings
def priority(name: str, priority: int) -> None:
    """Give a waiting session another priority, 0 to 100; a higher one is always served first.

    USER/NAME is the person and the session, as “bkai queue” lists them; without USER/ it is one of your own.
    """

    async def work(client: "AsyncClient") -> "Session":
        return await client.prioritise((await find(client, name)).id, priority)

    session = call(work)
    if as_json():
        print_json(session.raw)
    elif session.position:
        click.echo(
            f"{plain(session.user)}’s {plain(session.title)} has priority {priority}, position {session.position}."
        )
    else:
        click.echo(f"{plain(session.user)}’s {plain(session.title)} has priority {priority}.")


def _tell(name: str, state: str, closed: "Closed | None") -> None:
    if as_json():
        answer: dict[str, Any] = {"name": name, "state": state, **(closed.raw if closed is not None else {})}
        print_json(answer)
    else:
        click.echo(f"{plain(name)} is {state}.")
