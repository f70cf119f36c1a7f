"""`bkai run` in a real session: a real single-user server, reached over a network that can break."""

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupyterhub_bkai.client import FakeService
from tests.cli.conftest import BKAI, Bkai, Environment
from tests.cli.relay import Relay
from tests.singleuser.servers import Server

pytestmark = pytest.mark.usefixtures("runnable")


def all_ended(service: FakeService) -> bool:
    """No session lives. What a session takes along when it ends is for `test_site`: here nothing ends it."""
    return all(one["state"] in ("TERMINATED", "CANCELLED") for one in service.sessions.values())


def end_programs(server: Server) -> None:
    """What the end of the session would do."""
    with server.client() as http:
        for run in http.get("bkai/run").json()["runs"]:
            for _ in range(3):
                http.delete(f"bkai/run/{run['id']}")


@contextmanager
def started(variables: Environment, *arguments: object) -> Iterator["subprocess.Popen[bytes]"]:
    """`bkai …` as a process that a test may disturb."""
    process = subprocess.Popen(
        [*BKAI, *map(str, arguments)], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# -- the phases -------------------------------------------------------------------------------


def test_a_file(bkai: Bkai, project: Path, service: FakeService) -> None:
    file = project / "hello.py"
    file.write_text("import os, sys; print('hello', os.environ['WHO']); print('oh', file=sys.stderr)")
    done = bkai("run", "sklearn/1.7", file, "--fgpu", "0.5", "-e", "WHO=you")
    assert (done.returncode, done.stdout) == (0, "hello you\n"), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("∙ Session run-")
    assert "ready after" in lines[0]
    assert "sklearn/1.7, 0.5 fGPU" in lines[0]
    assert lines[1:] == [
        "∙ Uploaded 1 file, 79 bytes",
        "∙ Build skipped: nothing to build",
        "oh",
        "Finished (exit code = 0)",
    ]
    assert all_ended(service)


def test_the_exit_code_is_the_programs(bkai: Bkai, project: Path, service: FakeService) -> None:
    file = project / "seven.py"
    file.write_text("raise SystemExit(7)")
    done = bkai("run", "sklearn/1.7", file)
    assert done.returncode == 7
    assert done.stderr.endswith("Finished (exit code = 7)\n")
    (session,) = service.sessions.values()
    assert (session["cause"], session["message"]) == ("exited", "Its program ended by itself (exit code 7).")


def test_arguments_for_the_file(bkai: Bkai, project: Path) -> None:
    file = project / "fit.py"
    file.write_text("import sys; print(sys.argv[1:])")
    done = bkai("run", "-q", "sklearn/1.7", file, "--", "--alpha", "0.2")
    assert (done.returncode, done.stdout) == (0, "['--alpha', '0.2']\n"), done.stderr


def test_a_build_that_is_none(bkai: Bkai, project: Path, service: FakeService) -> None:
    (project / "x.py").touch()
    done = bkai("run", "sklearn/1.7", project / "x.py", "--build", "make", "--no-build")
    assert done.returncode == 2
    assert "--build and --no-build contradict each other" in done.stderr
    assert service.sessions == {}


def test_passwords_stay_here_and_that_is_said(bkai: Bkai, project: Path) -> None:
    (project / "main.py").write_text("import os; print(os.path.exists('.env'))")
    (project / ".env").write_text("PASSWORD=x")
    done = bkai("run", "sklearn/1.7", project)
    assert done.stdout == "False\n"
    assert "∙ Not uploaded, since such files often hold passwords: .env (a line !.env in" in done.stderr


def test_a_signal_is_an_exit_code(bkai: Bkai, project: Path) -> None:
    file = project / "killed.sh"
    file.write_text("kill -9 $$")
    assert bkai("run", "sklearn/1.7", file).returncode == 128 + 9


def test_a_folder_with_a_command(bkai: Bkai, project: Path) -> None:
    (project / "data").mkdir()
    (project / "data" / "größe 1.txt").write_text("1")
    (project / "go").write_text("#!/bin/sh\ncat data/*; ls; exit 3")
    (project / "go").chmod(0o755)
    (project / "notes.log").write_text("x")
    (project / ".git").mkdir()
    (project / ".git" / "config").write_text("x")
    (project / ".bkaiignore").write_text("*.log\n")
    done = bkai("run", "sklearn/1.7", project, "-q", "--", "./go", "--flag")
    assert (done.returncode, done.stdout, done.stderr) == (3, "1data\ngo\n", "")


def test_a_notebook(bkai: Bkai, project: Path) -> None:
    cell: dict[str, object] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": "print(6*7)",
    }
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    notebook = {"nbformat": 4, "nbformat_minor": 4, "metadata": kernel, "cells": [cell]}
    (project / "sum.ipynb").write_text(json.dumps(notebook))
    done = bkai("run", "-q", "sklearn/1.7", project / "sum.ipynb")
    assert (done.returncode, done.stderr) == (0, "")
    assert "42" in done.stdout


def test_a_package_is_built(bkai: Bkai, project: Path, service: FakeService) -> None:
    """Without a network: the package brings its own build backend."""
    (project / "backend.py").write_text(BACKEND)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "greet"\nversion = "1"\n'
    )
    (project / "main.py").write_text("import greet_module, sys; print(greet_module.WORD); sys.exit(5)")
    done = bkai("run", "sklearn/1.7", project)
    assert (done.returncode, done.stdout) == (5, "from the package\n"), done.stderr
    assert "∙ Build: pip install ." in done.stderr
    assert "∙ Build finished" in done.stderr
    assert all_ended(service)


BACKEND = """
import zipfile

def build_wheel(folder, settings=None, metadata=None):
    name = "greet-1-py3-none-any.whl"
    files = {
        "greet_module.py": "WORD = 'from the package'",
        "greet-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: greet\\nVersion: 1\\n",
        "greet-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "greet-1.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
"""


def test_a_failed_build_runs_nothing(bkai: Bkai, project: Path, service: FakeService) -> None:
    (project / "main.py").write_text("print('never')")
    done = bkai("run", "sklearn/1.7", project, "--build", "echo building; exit 9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "building\n" in done.stderr
    assert "bkai: The build failed (exit code = 9); nothing was run." in done.stderr
    assert all_ended(service)


def test_for_programs(bkai: Bkai, project: Path) -> None:
    file = project / "x.py"
    file.write_text("import sys; sys.stdout.buffer.write(b'\\xff'); print('é', file=sys.stderr); sys.exit(2)")
    done = bkai("run", "sklearn/1.7", file, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2
    assert [e["event"] for e in events if e["event"] not in ("session", "output")] == [
        "uploaded", "built", "started", "finished",
    ]  # fmt: skip
    outputs = [(e["stream"], e["data"], e["encoding"]) for e in events if e["event"] == "output"]
    assert ("stdout", "/w==", "base64") in outputs
    assert "".join(data for stream, data, _ in outputs if stream == "stderr") == "é\n"
    assert events[-1] == {"event": "finished", "exit_code": 2}


def test_a_command_that_does_not_exist(bkai: Bkai, project: Path, service: FakeService) -> None:
    (project / "x.py").touch()
    done = bkai("run", "sklearn/1.7", project / "x.py", "--", "no-such-program")
    assert done.returncode == 1
    assert "cannot be run in this session" in done.stderr
    assert all_ended(service)


def test_a_refusal_costs_nothing(bkai: Bkai, project: Path, service: FakeService) -> None:
    (project / "x.py").touch()
    done = bkai("run", "nothing/0", project / "x.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "bkai: Image version: there is no “nothing/0”.\n"
    assert service.sessions == {}


# -- waiting ----------------------------------------------------------------------------------


def test_it_waits_and_says_why(variables: Environment, project: Path, service: FakeService) -> None:
    service.create({"fgpu": "2", "name": "other"})
    file = project / "x.py"
    file.write_text("print('ran')")
    with started(variables, "run", "sklearn/1.7", file, "--fgpu", "1") as process:
        assert process.stderr
        assert b"waiting at position 1: needs 1 fGPU, 0 are free" in process.stderr.readline()
        service.stop(next(iter(service.sessions)))
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"ran\n"), err


def test_ctrl_c_while_it_waits(variables: Environment, project: Path, service: FakeService) -> None:
    service.create({"fgpu": "2", "name": "other"})
    (project / "x.py").touch()
    with started(variables, "run", "sklearn/1.7", project / "x.py", "--fgpu", "1") as process:
        assert process.stderr
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert [s["state"] for s in service.sessions.values()] == ["RUNNING", "CANCELLED"]


def test_ctrl_c_before_the_service_has_answered(
    variables: Environment, project: Path, service: FakeService
) -> None:
    """The request may have arrived: then there is a session whose id we never heard."""
    create, asked, go_on = service.create, threading.Event(), threading.Event()

    def slow(options: dict[str, object], keepalive_s: int | None = None) -> object:
        made = create(options, keepalive_s)
        asked.set()
        go_on.wait(0.5)  # holds the answer back, and everything else for as long
        return made

    service.create = slow  # type: ignore[assignment, method-assign]  # in the place of the method
    (project / "x.py").touch()
    with started(variables, "run", "sklearn/1.7", project / "x.py") as process:
        assert asked.wait(10)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
        go_on.set()
    assert [s["state"] for s in service.sessions.values()] == ["TERMINATED"]


# -- Ctrl-C -----------------------------------------------------------------------------------

CAREFUL = """
import sys, time
print("begun", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("saved", flush=True)
    sys.exit(4)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
time.sleep(60)
"""


def test_a_warning_of_the_end_is_passed_on_once(
    variables: Environment, project: Path, service: FakeService
) -> None:
    (project / "x.py").write_text(CAREFUL)
    with started(variables, "run", "sklearn/1.7", project / "x.py") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"begun\n"
        [one] = service.sessions.values()
        one["warning"] = {"id": "w1", "at": one["started"], "message": "It ends in 2 min."}
        for line in process.stderr:
            if b"ends" in line:
                break
        more = f"For more time: bkai session extend {one['server']} 1h"
        assert line.decode().strip() == f"∙ It ends in 2 min. {more}"
        one["cpu"] = 2.0  # something else changes
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert b"It ends in" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_lets_the_program_end_itself(
    variables: Environment,
    project: Path,
    service: FakeService,
    session_server: Server,
    number: signal.Signals,
) -> None:
    (project / "x.py").write_text(CAREFUL)
    with started(variables, "run", "sklearn/1.7", project / "x.py") as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"saved\n")
    assert b"Interrupted: ending the session." in err
    assert all_ended(service)


def test_a_second_ctrl_c_leaves_at_once(
    variables: Environment, project: Path, service: FakeService, session_server: Server
) -> None:
    (project / "x.py").write_text(STUBBORN)
    with started(variables, "run", "sklearn/1.7", project / "x.py") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        while b"Interrupted" not in process.stderr.readline():
            pass
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        assert time.monotonic() - began < 4
    # Nobody ended anything: that is for the service, which misses the keepalives. It is not here, so we do it.
    (session,) = service.sessions.values()
    assert session["state"] == "RUNNING"
    service.stop(session["id"])
    end_programs(session_server)


def test_ctrl_c_during_the_build(variables: Environment, project: Path, service: FakeService) -> None:
    (project / "main.py").write_text("print('never')")
    with started(variables, "run", "sklearn/1.7", project, "--build", "echo going; sleep 60") as process:
        assert process.stderr
        while b"going" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert all_ended(service)


def test_whoever_reads_us_goes_away(
    variables: Environment, project: Path, service: FakeService, session_server: Server
) -> None:
    """`bkai run … | head -1`: no traceback, and nothing stays."""
    (project / "x.py").write_text("import itertools\nfor n in itertools.count(): print(n)")
    with started(variables, "run", "sklearn/1.7", project / "x.py") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.wait(30) == 1
        err = process.stderr.read()
    assert b"Traceback" not in err
    assert all_ended(service)
    end_programs(session_server)


# -- a bad network ----------------------------------------------------------------------------

COUNTS = """
import sys, time
for n in range(2000):
    print(f"line {n} " + "é" * 20, flush=True)
    if n % 100 == 0:
        time.sleep(0.05)
sys.exit(7)
"""
COUNTED = "".join(f"line {n} " + "é" * 20 + "\n" for n in range(2000))


def test_a_cut_connection_loses_and_doubles_nothing(
    bkai: Bkai, project: Path, relay: Relay, service: FakeService
) -> None:
    (project / "x.py").write_text(COUNTS)
    relay.cut_after(60_000)
    done = bkai("run", "sklearn/1.7", project / "x.py")
    assert relay.cuts
    assert done.returncode == 7, done.stderr
    assert done.stdout == COUNTED
    assert "broke off" in done.stderr
    assert "Connected again; the output goes on where it stopped." in done.stderr
    assert all_ended(service)


def test_a_network_that_goes_away_for_a_while(
    variables: Environment, project: Path, relay: Relay, service: FakeService
) -> None:
    (project / "x.py").write_text(COUNTS)
    with started(variables, "run", "sklearn/1.7", project / "x.py") as process:
        assert process.stdout
        first = process.stdout.readline()
        relay.open = False
        relay.cut()
        assert process.stderr
        while b"Trying again" not in process.stderr.readline():
            pass
        relay.open = True
        out, err = process.communicate(timeout=30)
    assert (first + out).decode() == COUNTED
    assert process.returncode == 7
    assert b"Connected again" in err


def test_an_upload_over_a_bad_network(bkai: Bkai, project: Path, relay: Relay, service: FakeService) -> None:
    content = os.urandom(5 << 20)
    (project / "data").write_bytes(content)
    relay.cut_after(100)
    done = bkai("run", "sklearn/1.7", project, "-q", "--", "sha256sum", "data")
    assert done.returncode == 0, done.stderr
    assert relay.cuts
    assert done.stdout.split()[0] == hashlib.sha256(content).hexdigest()


def test_a_session_that_ends_meanwhile(
    variables: Environment, project: Path, relay: Relay, service: FakeService
) -> None:
    (project / "x.py").write_text(CAREFUL)
    with started(variables, "run", "sklearn/1.7", project / "x.py") as process:
        assert process.stdout
        process.stdout.readline()
        (id,) = service.sessions
        service.sessions[id]["message"] = "The administrator ended it."
        service.stop(id)
        relay.open = False
        relay.cut()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"bkai: The administrator ended it." in err
