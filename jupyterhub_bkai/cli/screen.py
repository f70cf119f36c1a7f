"""What `bkai run` says while it works: lines and a bar for people, one JSON object a line for programs.

What the program writes goes to our standard output and standard error byte by byte; everything we say ourselves goes
to standard error, so that `bkai run … > result` holds the result alone.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from jupyterhub_bkai.cli.terminal import cut, gist, memory, plain

if TYPE_CHECKING:
    from jupyterhub_bkai.client.nouns import Session
    from jupyterhub_bkai.client.workspace import Output

BAR = 24
REDRAW_S = 0.1


class Screen:
    """For people. `quiet` leaves out everything but trouble."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._open_line = False
        self._drawn_at = 0.0
        self._mid_line = False
        self._told = ""

    def asked(self, session: "Session") -> None:
        """A session has been asked for."""

    def waiting(self, session: "Session", news: str) -> None:
        """It is not there yet, because of `news`: on a terminal always the newest, else what is really new."""
        text = f"∙ Session {plain(session.title)}: {plain(news)}"
        if self._terminal and not self._quiet:
            self._draw(text)
        elif gist(news) != self._told:
            self._say(text.removeprefix("∙ "))
        self._told = gist(news)

    def ready(self, session: "Session", seconds: float) -> None:
        """It is there."""
        booked = f", {session.enforcement}" if session.slices and session.enforcement else ""
        self._say(
            f"Session {session.title} ready after {seconds:.1f} s: {session.image}, {session.accelerator}{booked}"
        )

    def uploading(self, done: int, total: int) -> None:
        """So many bytes have arrived."""
        now = time.monotonic()
        if not self._terminal or self._quiet or (now - self._drawn_at < REDRAW_S and done < total):
            return
        self._drawn_at = now
        share = done / total if total else 1.0
        filled = round(BAR * share)
        bar = "█" * filled + "░" * (BAR - filled)
        self._draw(f"∙ Upload {bar} {share:4.0%}  {_size(done)} of {_size(total)}")

    def uploaded(self, files: int, size: int, held_back: Sequence[str] = ()) -> None:
        """All of it, but for files that may hold passwords."""
        self._say(f"Uploaded {files} file{'' if files == 1 else 's'}, {_size(size)}")
        if held_back:
            self._say(
                f"Not uploaded, since such files often hold passwords: {', '.join(held_back)} "
                f"(a line !{held_back[0]} in .bkaiignore uploads it)"
            )

    def building(self, title: str) -> None:
        """A step of the build begins."""
        self._say(f"Build: {title}")

    def built(self, skipped: bool) -> None:
        """The build is over."""
        self._say("Build skipped: nothing to build" if skipped else "Build finished")

    def build_output(self, output: "Output") -> None:
        """What a step of the build writes."""
        if not self._quiet:
            self._write(sys.stderr, output.data)

    def started(self) -> None:
        """The program begins."""

    def output(self, output: "Output") -> None:
        """What the program writes."""
        self._write(sys.stderr if output.stream == "stderr" else sys.stdout, output.data)

    def trouble(self, message: str) -> None:
        """Something people must know, even where they asked for quiet."""
        self._line(click.style(f"∙ {plain(message)}", fg="yellow"))

    def restored(self) -> None:
        """The connection is back."""
        self._line(click.style("∙ Connected again; the output goes on where it stopped.", fg="green"))

    def finished(self, code: int) -> None:
        """The program ended."""
        if not self._quiet:
            self._line(click.style(f"Finished (exit code = {code})", fg="green" if code == 0 else "red"))

    def close(self) -> None:
        """Whoever writes next begins a line."""
        self._begin_line()

    # -- lines --------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._line(f"∙ {plain(text)}")

    def _line(self, text: str) -> None:
        """A line of ours, never in the middle of another."""
        self._begin_line()
        click.echo(text, err=True)

    def _begin_line(self) -> None:
        if self._mid_line:
            click.echo(err=True)
            self._mid_line = False
        if self._open_line:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._open_line = False

    def _draw(self, text: str) -> None:
        """A line that will be drawn over."""
        click.echo("\r\x1b[K" + cut(text, _columns() - 1), nl=False, err=True)
        self._open_line = True

    def _write(self, stream: Any, data: bytes) -> None:
        buffer: BinaryIO = stream.buffer
        buffer.write(data)
        buffer.flush()
        if data and stream.isatty():
            self._mid_line = not data.endswith(b"\n")


class JsonScreen(Screen):
    """For programs: one JSON object a line on standard output."""

    def asked(self, session: "Session") -> None:
        """A session has been asked for."""
        self._event("session", session=session.raw)

    def waiting(self, session: "Session", news: str) -> None:
        """It is not there yet."""
        self._event("session", session=session.raw)

    def ready(self, session: "Session", seconds: float) -> None:
        """It is there."""
        self._event("session", session=session.raw)

    def uploading(self, done: int, total: int) -> None:
        """Only the end is told."""

    def uploaded(self, files: int, size: int, held_back: Sequence[str] = ()) -> None:
        """All of it, but for files that may hold passwords."""
        self._event("uploaded", files=files, bytes=size, held_back=list(held_back))

    def building(self, title: str) -> None:
        """A step of the build begins."""
        self._event("building", step=title)

    def built(self, skipped: bool) -> None:
        """The build is over."""
        self._event("built", skipped=skipped)

    def build_output(self, output: "Output") -> None:
        """What a step of the build writes."""
        self._event("build-output", **_text(output))

    def started(self) -> None:
        """The program begins."""
        self._event("started")

    def output(self, output: "Output") -> None:
        """What the program writes."""
        self._event("output", **_text(output))

    def trouble(self, message: str) -> None:
        """Something people must know."""
        self._event("trouble", message=message)

    def restored(self) -> None:
        """The connection is back."""
        self._event("restored")

    def finished(self, code: int) -> None:
        """The program ended."""
        self._event("finished", exit_code=code)

    def _event(self, kind: str, **facts: Any) -> None:
        click.echo(json.dumps({"event": kind, **facts}))
        sys.stdout.flush()


def _text(output: "Output") -> dict[str, str]:
    try:
        return {"stream": output.stream, "data": output.data.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        data = base64.b64encode(output.data).decode()
        return {"stream": output.stream, "data": data, "encoding": "base64"}


def _size(count: int) -> str:
    return (
        f"{count} bytes"
        if count < 1024
        else f"{count / 1024:.1f} KiB"
        if count < 1 << 20
        else memory(count >> 20)
    )


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
