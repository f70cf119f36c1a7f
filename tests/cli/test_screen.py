"""What a person sees while `bkai run` works: on a real terminal, made by a pty."""

import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import pytest

from jupyterhub_bkai.client import FakeService
from tests.cli.conftest import BKAI, Environment


class Terminal:
    """A program on a terminal of 60 columns."""

    def __init__(self, variables: Environment, *arguments: object) -> None:
        self.main, other = pty.openpty()
        ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        self.process = subprocess.Popen(
            [*BKAI, *map(str, arguments)],
            env=variables | {"TERM": "xterm"},
            stdin=other, stdout=other, stderr=other, start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(other)
        self.text = ""

    def until(self, condition: Callable[[str], object], seconds: float = 20) -> str:
        end = time.monotonic() + seconds
        while not condition(self.text):
            left = end - time.monotonic()
            assert left > 0, self.text
            if select.select([self.main], [], [], left)[0] and not self._read():
                break
        assert condition(self.text), self.text
        return self.text

    def _read(self) -> bool:
        try:
            data = os.read(self.main, 4096)
        except OSError:  # the other end is closed
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def close(self) -> int:
        code = self.process.wait(20)
        os.close(self.main)
        return code


def _take_terminal() -> None:
    ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.usefixtures("runnable")
def test_the_bar_grows_and_goes(variables: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "data").write_bytes(os.urandom(20 << 20))
    (folder / "main.py").write_text("print('no newline at the end', end='')")
    terminal = Terminal(variables, "run", "sklearn/1.7", folder)
    text = terminal.until(lambda text: "Finished" in text)
    assert terminal.close() == 0
    shares = [int(share) for share in re.findall(r"([0-9]+)%", text)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    assert len(shares) >= 2  # a quick machine is done between two drawings
    drawn = [part for part in re.split(r"\r\n|\r\x1b\[K", text) if "Upload " in part]
    assert max(map(len, drawn)) < 60
    assert "\r\x1b[K∙ Uploaded 2 files, 20 MiB\r\n" in text
    assert re.search(r"at the end\r\n(\x1b\[\d+m)*Finished \(exit code = 0\)", text)


def test_a_failure_begins_its_own_line(variables: Environment, tmp_path: Path, service: FakeService) -> None:
    service.create({"fgpu": "2"})
    (tmp_path / "x.py").touch()
    terminal = Terminal(variables, "run", "sklearn/1.7", tmp_path / "x.py", "--fgpu", "1")
    terminal.until(lambda text: "position 1" in text)
    service.stop(list(service.sessions)[1])
    text = terminal.until(lambda text: text.endswith("\r\n"))
    assert terminal.close() == 1
    assert "\r\x1b[K\x1b[31m\x1b[1mbkai:\x1b[0m The session ended before" in text


@pytest.mark.usefixtures("runnable")
def test_ctrl_c_on_the_keyboard(variables: Environment, tmp_path: Path, runnable: FakeService) -> None:
    file = tmp_path / "x.py"
    file.write_text("import time; print('begun', flush=True); time.sleep(60)")
    terminal = Terminal(variables, "run", "sklearn/1.7", file)
    terminal.until(lambda text: "begun" in text)
    terminal.type("\x03")
    terminal.until(lambda text: "KeyboardInterrupt" in text)
    assert terminal.close() == 130
    assert [s["state"] for s in runnable.sessions.values()] == ["TERMINATED"]


def test_ctrl_c_elsewhere(variables: Environment, service: FakeService) -> None:
    service.create({"fgpu": "2"})
    terminal = Terminal(variables, "session", "create", "--fgpu", "1", "--wait")
    terminal.until(lambda text: "position 1" in text)
    terminal.type("\x03")
    terminal.until(lambda text: "Interrupted." in text)
    assert terminal.close() == 130
    assert "Traceback" not in terminal.text


def test_colours_and_a_table_that_fits(variables: Environment, service: FakeService) -> None:
    service.create({"fgpu": "2", "count": 2})
    terminal = Terminal(variables, "session", "ls")
    text = terminal.until(lambda text: "PENDING" in text and text.endswith("\n"))
    assert terminal.close() == 0
    assert "\x1b[32mRUNNING\x1b[0m" in text
    lines = re.sub(r"\x1b\[[0-9]*m", "", text).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[3:] == ["    waiting at position 1: needs 2 fGPU, 0 are free"]


def test_no_colours_where_they_are_not_wanted(variables: Environment, service: FakeService) -> None:
    service.create({})
    for arguments in (("session", "ls"), ("session", "show", "nothing")):
        terminal = Terminal(variables | {"NO_COLOR": "1"}, *arguments)
        text = terminal.until(lambda text: text.endswith("\n"))
        terminal.close()
        assert "\x1b" not in text


def test_the_token_is_asked_for_and_not_shown(
    variables: Environment, service: FakeService, tmp_path: Path
) -> None:
    terminal = Terminal(variables | {"BKAI_URL": "", "BKAI_TOKEN": ""}, "login", service.url)
    text = terminal.until(lambda text: "Token:" in text)
    assert f"{service.url}/hub/token" in text
    terminal.type(service.token + "\n")
    text = terminal.until(lambda text: "Logged in" in text)
    assert terminal.close() == 0
    assert service.token not in text
