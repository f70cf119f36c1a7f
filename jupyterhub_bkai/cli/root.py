"""The root of the command line: which commands there are, and how every failure ends.

The commands stand in a table with their one-line help, so that `bkai --help` imports none of them.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from jupyterhub_bkai.cli.settings import with_settings
from jupyterhub_bkai.client.errors import BkaiError, Unreachable

#: name → (module, attribute, one line of help)
COMMANDS = {
    "login": ("login", "login", "Remember a hub's address and a token for it."),
    "logout": ("login", "logout", "Forget a hub's address and token."),
    "run": ("run", "run", "Run a file or a folder in a session of its own, and end the session."),
    "session": ("session", "session", "Ask for, list, look into and stop sessions."),
    "images": ("images", "images", "List the image versions you can choose from."),
    "devices": ("devices", "devices", "Show the machines, their accelerators and what is booked on them."),
    "queue": ("queue", "queue", "Show who waits for what, in order."),
    "usage": ("usage", "usage", "Sum up what was booked and used."),
    "admin": (
        "admin",
        "admin",
        "Change the rules, drain machines and devices, hold groups, change priorities; for administrators.",
    ),
    "simulate": ("simulate", "simulate", "Try queue rules on recorded or made-up demand."),
    "up": ("up", "up", "Start a hub with everything it needs on this machine."),
}


class Root(click.Group):
    """Loads a command when it is named; turns every failure into one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"jupyterhub_bkai.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list on the help page, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The named command, or a usage error that names the nearest one."""
        from difflib import get_close_matches

        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean “{near[0]}”?" if near else "“bkai --help” lists them."
            ctx.fail(f"There is no command “{_plain(name)}”; {hint}")
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, say what went wrong if something did, and leave with the code that belongs to it."""
        arguments = list(sys.argv[1:] if args is None else args)
        as_json = (
            "--json" in arguments[: arguments.index("--")] if "--" in arguments else "--json" in arguments
        )
        try:
            result = super().main(arguments, prog_name or "bkai", complete_var, False, **extra)
            sys.stdout.flush()
            code = result if isinstance(result, int) else 0
        except click.Abort:
            code = _told(as_json, 130, "interrupted", "Interrupted.")
        except click.ClickException as error:
            code = _explained(error, as_json)
        except BrokenPipeError:
            code = _quiet()
        except BkaiError as error:
            code = _told(as_json, _code(error), error.reason, error.message, error.fields)
        sys.exit(code)


def _code(error: BkaiError) -> int:
    if isinstance(error, Unreachable):
        return 3
    return 2 if error.reason == "bad-address" else 1


def _told(as_json: bool, code: int, reason: str, message: str, fields: dict[str, str] | None = None) -> int:
    if as_json:
        body = {"error": {"reason": reason, "message": message, "fields": fields or {}}}
        click.echo(json.dumps(body), err=True)
    else:
        name = click.style("bkai:", fg="red", bold=True)
        for sentence in (fields or {"": message}).values():
            click.echo(f"{name} {_plain(sentence)}", err=True, color=_colour())
    return code


def _colour() -> bool | None:
    """No colour where the user says so; otherwise as click decides, by whether there is a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _explained(error: click.ClickException, as_json: bool) -> int:
    alone = getattr(
        click.exceptions, "NoArgsIsHelpError", ()
    )  # since click 8.2; before, click shows it itself
    if isinstance(error, alone) and not as_json:
        click.echo(error.format_message())
        return 0
    return _told(as_json, error.exit_code, "usage", _sentence(error))


def _sentence(error: click.ClickException) -> str:
    text = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx and "--help" not in text:
        text += f" (“{error.ctx.command_path} --help” explains)"
    return text


def _plain(text: str) -> str:
    from jupyterhub_bkai.cli.terminal import plain

    return plain(text)


def _quiet() -> int:
    """Whoever read our output has gone: say nothing more, not even while Python shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from jupyterhub_bkai import __version__

        click.echo(f"bkai {__version__}")
        ctx.exit()


@click.group("bkai", cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@with_settings
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Sessions with a slice of a GPU and an image version of your choice.

    Log in once with “bkai login ADDRESS”, then try “bkai session create --wait” or “bkai run”.

    \b
    Exit codes: 0 it worked; 1 refused or failed; 2 wrong command line;
    3 cannot reach the hub; 130 Ctrl-C. “bkai run” gives the program's own code.
    """
    ctx.color = _colour()
