"""Logs are rotated under writers that keep them open."""

import stat
import subprocess
import sys
from pathlib import Path

from jupyterhub_bkai.supervise.console import Console
from jupyterhub_bkai.supervise.logs import open_log, rotate
from tests.supervise.running import until

WRITER = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True)"


def test_a_writer_goes_on_in_the_emptied_file(tmp_path: Path) -> None:
    log = tmp_path / "hub.log"
    output = open_log(log)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=output, text=True
    ) as writer:
        assert writer.stdin is not None

        def write(line: str) -> None:
            assert writer.stdin is not None
            writer.stdin.write(line + "\n")
            writer.stdin.flush()
            until(lambda: log.read_text().endswith(line + "\n"), 10, line)

        write("first")
        assert not rotate(log, largest=5000)
        assert rotate(log, largest=3)
        write("second")
        assert log.read_text() == "second\n"
        assert (tmp_path / "hub.log.1").read_text() == "first\n"
        for number in range(3, 7):
            assert rotate(log, largest=3, kept=2)
            write(f"line {number}")
        writer.stdin.close()
    assert {path.name for path in tmp_path.iterdir()} == {"hub.log", "hub.log.1", "hub.log.2"}
    assert (tmp_path / "hub.log.2").read_text() == "line 4\n"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_a_log_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert not rotate(tmp_path / "hub.log")


def test_what_is_private_is_not_written_down(tmp_path: Path) -> None:
    console = Console()
    console.keep(tmp_path / "up.log")
    console.say("It starts.")
    console.say("password  abcd", private=True)
    assert (tmp_path / "up.log").read_text().endswith(" It starts.\n")
    assert len((tmp_path / "up.log").read_text().splitlines()) == 1
