"""`bkai session …`: ask for sessions, look at them, end them."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from jupyterhub_bkai.cli.asking import given, option_flags
from jupyterhub_bkai.cli.naming import find
from jupyterhub_bkai.cli.settings import as_json, call, print_json, with_settings
from jupyterhub_bkai.cli.terminal import ago, available, between, coloured, facts, gist, memory, plain, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from jupyterhub_bkai.client import AsyncClient
    from jupyterhub_bkai.client.nouns import Session, Transition


@click.group()
@with_settings
def session() -> None:
    """Ask for, list, look into and stop sessions."""


@session.command()
@option_flags()
@click.option("--wait", is_flag=True, help="Come back only when all of them run.")
@click.option("--check", is_flag=True, help="Only say what would happen.")
@click.option(
    "--smaller",
    is_flag=True,
    help="Where it would wait, take the smallest change with which it starts at once.",
)
@with_settings
def create(wait: bool, check: bool, smaller: bool, **flags: object) -> None:
    """Ask for a session, or several with --count.

    What you do not give has the hub's default. Where there is no room, the session waits in the queue: “bkai session
    ls” says at which position and why.
    """
    options = given(flags)
    if check:
        _check(options)
        return

    async def work(client: "AsyncClient") -> Sequence["Session"]:
        made = await client.create(options)
        if smaller:
            made = tuple([await _smaller(client, one) for one in made])
        return await _all_running(client, made) if wait else made

    made = call(work)
    if as_json():
        print_json({"sessions": [one.raw for one in made]})
    else:
        click.echo(_listed(made))


async def _smaller(client: "AsyncClient", one: "Session") -> "Session":
    """The session with the first change that starts it; as it is where there is none, or somebody was quicker."""
    from jupyterhub_bkai.client.errors import Refused

    for offer in await client.offers(one.id) if one.state == "PENDING" else ():
        try:
            taken = await client.take(one.id, offer["options"])
        except Refused:
            continue
        if not as_json():
            click.echo(f"{plain(one.title)}: {plain(offer['text'])}", err=True)
        return taken
    return one


def _check(options: dict[str, object]) -> None:
    answer = call(lambda client: client.check(options))
    if as_json():
        print_json(answer.raw)
    elif answer.errors:
        click.echo("\n".join(plain(sentence) for sentence in answer.errors.values()))
    elif answer.outlook:
        click.echo(plain(answer.outlook.message) or f"It would start {plain(answer.outlook.starts)}.")
    never = answer.outlook is not None and answer.outlook.starts == "never"
    click.get_current_context().exit(1 if answer.errors or never else 0)


async def _all_running(client: "AsyncClient", made: Sequence["Session"]) -> Sequence["Session"]:
    """The sessions once they run, saying meanwhile what each waits for."""
    return await asyncio.gather(*(_running(client, one) for one in made))


async def _running(client: "AsyncClient", made: "Session") -> "Session":
    from jupyterhub_bkai.client.errors import Refused

    told = ""
    async with aclosing(client.events(made.id)) as events:
        async for one in events:
            if one.state == "RUNNING":
                return one
            if one.over:
                raise Refused(f"{one.title} ended before it ran: {one.message or one.state}", reason="ended")
            news = doing(one)
            if gist(news) != told and not as_json():
                told = gist(news)
                click.echo(f"{plain(one.title)}: {plain(news)}", err=True)
    return made


@session.command()
@click.option("--all", "everybody", is_flag=True, help="Everybody's, for administrators.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only those in this state.")
@click.option("--user", metavar="NAME", help="Only those of this user, for administrators.")
@with_settings
def ls(everybody: bool, states: tuple[str, ...], user: str | None) -> None:
    """List sessions: those that live, then those of the last day."""
    wanted = [state.upper() for state in states]
    found = call(lambda client: client.sessions(all=everybody, states=wanted, user=user))
    if as_json():
        print_json({"sessions": [one.raw for one in found]})
    elif found:
        click.echo(_listed(found, users=everybody or bool(user)))
    else:
        click.echo("There is no session; “bkai session create” asks for one.")


@session.command()
@click.argument("name", metavar="NAME|ID")
@with_settings
def show(name: str) -> None:
    """Show everything about one session, and what has happened to it."""

    async def work(client: "AsyncClient") -> tuple["Session", Sequence["Transition"], str]:
        one = await find(client, name)
        return one, await client.transitions(one.id), client.wire.absolute(one.url)

    one, story, url = call(work)
    if as_json():
        print_json(one.raw)
        return
    click.echo(facts(_facts(one, url)))
    rows = [(ago(step.at), step.origin or "", step.to, step.who, step.why) for step in story]
    if rows:
        click.echo("\n" + table(("WHEN", "FROM", "TO", "BY", "WHY"), rows, columns=available(), prose="WHY"))


@session.command()
@click.argument("names", metavar="NAME|ID…", nargs=-1, required=True)
@click.option("--recursive", is_flag=True, help="Also withdraw those that wait for their end.")
@with_settings
def stop(names: tuple[str, ...], recursive: bool) -> None:
    """End running sessions, or withdraw waiting ones."""

    async def work(client: "AsyncClient") -> list["Session"]:
        found = [await find(client, name) for name in names]  # all names are right, or nothing is stopped
        return [one if one.over else await client.stop(one.id, recursive=recursive) for one in found]

    stopped = call(work)
    if as_json():
        print_json({"sessions": [one.raw for one in stopped]})
        return
    for one in stopped:
        click.echo(f"{plain(one.title)}: {coloured(plain(one.state))}")


@session.command()
@click.argument("name", metavar="NAME|ID")
@click.argument("by", metavar="TIME")
@with_settings
def extend(name: str, by: str) -> None:
    """Give a running session more time, such as 2h or 30m.

    Where somebody waits for what it holds, it can go on until their turn; the refusal says for how long.
    """

    async def work(client: "AsyncClient") -> "Session":
        return await client.extend((await find(client, name)).id, by)

    one = call(work)
    if as_json():
        print_json(one.raw)
    else:
        click.echo(f"{plain(one.title)}: ends {ago(one.deadline)}")


@session.command()
@click.argument("name", metavar="NAME|ID")
@click.option("--tail", type=click.IntRange(1), metavar="LINES", help="Only the last lines.")
@with_settings
def logs(name: str, tail: int | None) -> None:
    """Print what a session's server has written."""

    async def work(client: "AsyncClient") -> tuple[str, str]:
        one = await find(client, name)
        return one.id, await client.logs(one.id, tail=tail)

    id, text = call(work)
    if as_json():
        print_json({"id": id, "log": text})
    else:
        # Somebody else's program wrote it: a terminal must not obey it. A file or a pipe gets every byte.
        click.echo(plain(text, keep="\n\t") if available() else text, nl=False)


@session.command()
@click.argument("name", metavar="NAME|ID")
@click.option("--take", type=click.IntRange(1), metavar="NUMBER", help="Take the change of this number.")
@with_settings
def offers(name: str, take: int | None) -> None:
    """Show with which changes a waiting session would start at once, each the smallest of its kind."""

    async def work(client: "AsyncClient") -> tuple["Session", Sequence["Mapping[str, Any]"]]:
        one = await find(client, name)
        found = await client.offers(one.id)
        if take is None:
            return one, found
        if take > len(found):
            have = f"there are {len(found)}" if found else "there is none just now"
            raise Refused(f"There is no change number {take}; {have}.", reason="not-offered")
        return await client.take(one.id, found[take - 1]["options"]), found

    from jupyterhub_bkai.client.errors import Refused

    one, found = call(work)
    if as_json():
        print_json({"id": one.id, "state": one.state, "offers": list(found)})
    elif take is not None:
        click.echo(f"{plain(one.title)}: {coloured(plain(one.state))}")
    elif found:
        click.echo("\n".join(f"{number}. {plain(offer['text'])}" for number, offer in enumerate(found, 1)))
    else:
        click.echo(
            "There is no smaller request with which it would start now."
            if one.state == "PENDING"
            else f"{plain(one.title)} does not wait: it is {plain(one.state)}."
        )


@session.command("open")
@click.argument("name", metavar="NAME|ID")
@click.option("--browser", is_flag=True, help="Also open it in your browser.")
@with_settings
def open_(name: str, browser: bool) -> None:
    """Print the address of a running session."""

    async def work(client: "AsyncClient") -> tuple["Session", str]:
        one = await find(client, name)
        return one, client.wire.absolute(one.url)

    from jupyterhub_bkai.client.errors import Refused

    one, url = call(work)
    if one.state != "RUNNING":
        raise Refused(f"{one.title} does not run: {doing(one)}", reason="not-running")
    if as_json():
        print_json({"id": one.id, "url": url})
    else:
        click.echo(plain(url))
    if browser:
        click.launch(url)


# -- in words ---------------------------------------------------------------------------------


def doing(one: "Session") -> str:
    """What a session does or waits for, in one sentence."""
    if one.state == "PENDING":
        place = f"waiting at position {one.position}" if one.position else "waiting"
        soon = f" Starts {between(one.when)}." if one.when else ""
        return f"{place}: {one.why}{soon}" if one.why else place
    if one.progress and one.state in ("PREPARING", "PULLING"):
        percent = "" if one.progress.percent is None else f" ({one.progress.percent} %)"
        return one.progress.message + percent
    if one.warning and one.deadline and not one.trouble:
        return f"ends {ago(one.deadline)}"
    return one.trouble or one.message or one.cause or one.state.lower()


def _note(one: "Session") -> str:
    note = doing(one)
    return "" if note.upper() == one.state else note


def _listed(found: Sequence["Session"], users: bool = False) -> str:
    rows = [
        (
            one.title,
            one.user if users else "",
            one.state,
            one.image,
            _accelerator(one),
            ago(one.state_since),
            _note(one),
        )
        for one in found
    ]
    headings = ("NAME", "USER", "STATE", "IMAGE", "ACCELERATOR", "SINCE", "NOTE")
    return table(headings, rows, columns=available(), styles={"STATE": coloured}, prose="NOTE")


def _accelerator(one: "Session") -> str:
    """In the hub's unit and as a share of a device; in full where there is no such thing (MIG, none)."""
    if one.fgpu is None or one.share is None:
        return one.accelerator
    return f"{float(one.fgpu):g} fGPU ({float(one.share):.3g} GPU)"


def _facts(one: "Session", url: str) -> list[tuple[str, object]]:
    pieces = ", ".join(f"{piece.share} of #{piece.index} {piece.model}" for piece in one.slices)
    return [
        ("Name", one.title),
        ("Id", one.id),
        ("User", one.user),
        ("State", one.state),
        ("Now", _note(one)),
        ("Image", one.image),
        ("Accelerator", one.accelerator),
        ("Slices", pieces),
        ("Enforcement", one.enforcement if one.slices else ""),
        ("Processor", f"{one.cpu:g} core{'' if one.cpu == 1 else 's'}"),
        ("Memory", f"{memory(one.memory_mib)}, {memory(one.shm_mib)} of it shared"),
        ("Group", one.group),
        ("Project", one.project),
        ("Type", one.session_type),
        ("Priority", one.raw.get("priority", "")),
        ("Not before", ago(one.not_before) if one.state == "PENDING" else ""),
        ("After", ", ".join(one.after) if one.state == "PENDING" else ""),
        ("Asked", ago(one.asked)),
        ("Started", ago(one.started)),
        ("Ended", ago(one.ended)),
        ("Ends", ago(one.deadline) if not one.over else ""),
        ("Address", url if one.state == "RUNNING" else ""),
    ]
