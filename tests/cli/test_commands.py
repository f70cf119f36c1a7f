"""Each command as a process against the fake service: what it prints, and its exit code."""

import json
import os
import resource
import socket
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from jupyterhub_bkai.cli.root import COMMANDS, root
from jupyterhub_bkai.client import FakeService
from jupyterhub_bkai.options import FIELDS
from tests.cli.conftest import BKAI, Bkai, Environment, as_process


@pytest.fixture
def process(variables: Environment) -> Bkai:
    """`bkai …` as a process."""
    return as_process(variables)


@pytest.fixture
def bkai(variables: Environment) -> Bkai:
    """`bkai …` within this process, which is quicker; what differs is tested with `process`."""

    def run(*arguments: object, stdin: str = "", **changes: str) -> "subprocess.CompletedProcess[str]":
        done = CliRunner().invoke(root, [*map(str, arguments)], env=variables | changes, input=stdin)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return subprocess.CompletedProcess("bkai", done.exit_code, done.stdout, done.stderr)

    return run


# -- the root ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_they_say_themselves(name: str) -> None:
    command = root.get_command(root.make_context("bkai", [], resilient_parsing=True), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name][2]


def test_help_imports_neither_commands_nor_the_network(bkai: Bkai, variables: Environment) -> None:
    code = "import sys; from jupyterhub_bkai.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run([BKAI[0], "-c", code, "--help"], env=variables, text=True, capture_output=True)
    modules = done.stdout.splitlines()[-1].split()
    assert not {"httpx", "asyncio", "jupyterhub_bkai.options", "jupyterhub_bkai.cli.run"} & set(modules)
    assert all(name in done.stdout for name in COMMANDS)


def test_help_is_quick(process: Bkai) -> None:
    """Counted in processor time, which a busy machine does not stretch: 0.06 s where it was written."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.15


def test_version(process: Bkai) -> None:
    from jupyterhub_bkai import __version__

    assert process("--version").stdout == f"bkai {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sesion"], "There is no command “sesion”; did you mean “session”?"),
        (["--bad"], "No such option"),
        (["session", "show"], "Missing argument"),
        (["session", "create", "--colour", "red"], "No such option"),
        (["session", "create", "-e", "=x"], "is not of the form NAME=VALUE"),
        (["usage", "--by", "moon"], "is not one of"),
        (["usage", "--from", "yesterday"], "does not match"),
        (["run", "a/1", "/does/not/exist"], "does not exist"),
    ],
)
def test_a_wrong_command_line(bkai: Bkai, arguments: list[str], sentence: str) -> None:
    done = bkai(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.startswith("bkai: ")
    assert done.stderr.count("\n") == 1
    as_json = bkai("--json", *arguments)
    assert as_json.returncode == 2
    assert json.loads(as_json.stderr)["error"]["reason"] == "usage"
    assert as_json.stdout == ""


def test_more_time(bkai: Bkai, service: FakeService) -> None:
    made = json.loads(bkai("session", "create", "--json").stdout)["sessions"][0]
    refused = bkai("session", "extend", "s1", "2h")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "It has no end, so there is nothing to extend." in refused.stderr
    soon = datetime.now(UTC) + timedelta(minutes=9, seconds=30)
    service.sessions[made["id"]]["deadline"] = soon.isoformat()
    assert bkai("session", "extend", "s1", "2h").stdout.startswith("s1: ends in 2 h 9 min")
    longer = json.loads(bkai("session", "extend", "s1", "1h", "--json").stdout)
    assert datetime.fromisoformat(longer["deadline"]) - soon < timedelta(hours=3, seconds=1)
    assert "is not a time" in bkai("session", "extend", "s1", "long").stderr


def test_a_group_alone_explains_itself(bkai: Bkai) -> None:
    assert bkai("session").stdout.startswith("Usage: bkai session")


# -- sessions ---------------------------------------------------------------------------------


def test_three_sessions_on_two_gpus(bkai: Bkai) -> None:
    made = json.loads(bkai("session", "create", "--fgpu", "1", "--count", "3", "--json").stdout)["sessions"]
    assert [one["state"] for one in made] == ["RUNNING", "RUNNING", "PENDING"]
    listed = bkai("session", "ls").stdout.splitlines()
    assert listed[0].split() == ["NAME", "STATE", "IMAGE", "ACCELERATOR", "SINCE", "NOTE"]
    assert "waiting at position 1: needs 1 fGPU, 0 are free" in listed[3]
    assert bkai("session", "stop", made[0]["server"]).stdout == "s1: TERMINATED\n"
    assert json.loads(bkai("session", "show", "s3", "--json").stdout)["state"] == "RUNNING"
    assert bkai("queue").stdout == "Nobody is waiting.\n"


def test_every_option_is_a_flag(bkai: Bkai, service: FakeService) -> None:
    shown = bkai("session", "create", "--help").stdout
    for field in FIELDS:
        assert f"--{field.key.replace('_', '-')} " in shown
    seen: list[object] = []
    create = service.create

    def spy(options: dict[str, object], keepalive_s: int | None = None) -> object:
        seen.append(options)
        return create(options, keepalive_s)

    service.create = spy  # type: ignore[assignment, method-assign]  # a spy in the place of the method
    done = bkai(
        "session", "create", "--version", "sklearn/1.6", "--session-type", "batch", "--folders", "data:ro",
        "--folders", "out", "-e", "A=1=2", "-e", "B=", "--memory", "1g",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert seen == [
        {
            "version": "sklearn/1.6",
            "session_type": "batch",
            "folders": ["data:ro", "out"],
            "environment": {"A": "1=2", "B": ""},
            "memory": "1g",
        }
    ]


def test_create_and_wait(variables: Environment, service: FakeService) -> None:
    service.create({"fgpu": "2"})
    process = subprocess.Popen(
        [*BKAI, "session", "create", "--fgpu", "1", "--wait"],
        env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr
    assert process.stderr.readline() == "s2: waiting at position 1: needs 1 fGPU, 0 are free\n"
    service.stop(next(iter(service.sessions)))
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "RUNNING" in out


def test_a_refusal_names_each_field(bkai: Bkai, service: FakeService) -> None:
    done = bkai("session", "create", "--version", "x/1", "--fgpu", "nan")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "bkai: Image version: there is no “x/1”.",
        "bkai: fGPU: “nan” is not a number from 0 to 2.",
    ]
    error = json.loads(bkai("session", "create", "--fgpu", "-1", "--json").stderr)["error"]
    assert error["reason"] == "invalid-options"
    assert set(error["fields"]) == {"fgpu"}
    checked = bkai("session", "create", "--fgpu", "nan", "--check")
    assert (checked.returncode, checked.stdout) == (1, "fGPU: “nan” is not a number from 0 to 2.\n")
    assert bkai("session", "create", "--check").stdout == "It would start now.\n"
    assert service.sessions == {}


def test_show(bkai: Bkai) -> None:
    bkai("session", "create", "--fgpu", "0.5", "--name", "mine")
    shown = bkai("session", "show", "mine").stdout
    assert "Accelerator  0.5 fGPU" in shown
    assert "/user/alice/mine/" in shown
    assert "asked" in shown


def test_names_and_ids(bkai: Bkai, service: FakeService) -> None:
    for _ in range(2):
        service.create({"name": "twin"})
    one, two = service.sessions
    twins = bkai("session", "show", "twin")
    assert twins.returncode == 1
    assert one in twins.stderr
    assert two in twins.stderr
    assert bkai("session", "stop", two).returncode == 0
    assert json.loads(bkai("session", "show", "twin", "--json").stdout)["id"] == one
    assert bkai("session", "show", "other").stderr == "bkai: You have no session “other”; you have twin.\n"


def test_stop_knows_all_names_or_stops_none(bkai: Bkai, service: FakeService) -> None:
    service.create({"name": "one"})
    assert bkai("session", "stop", "one", "two").returncode == 1
    assert [s["state"] for s in service.sessions.values()] == ["RUNNING"]


def test_logs_and_open(bkai: Bkai, service: FakeService) -> None:
    service.create({"name": "mine", "fgpu": "2"})
    service.create({"name": "next", "fgpu": "2"})
    assert bkai("session", "logs", "mine", "--tail", "3").stdout == "the session started\n"
    assert bkai("session", "open", "mine").stdout == f"{service.url}/user/alice/mine/\n"
    waiting = bkai("session", "open", "next")
    assert waiting.returncode == 1
    assert "next does not run: waiting at position 1" in waiting.stderr


# -- the machine ------------------------------------------------------------------------------


def test_devices_queue_usage_images(bkai: Bkai, service: FakeService) -> None:
    service.create({"fgpu": "1.5", "count": 2})
    devices = bkai("devices").stdout
    assert "local  0 of 8 cores" in devices
    assert "50 %" in devices
    assert "4 GiB of 8 GiB" in devices
    assert "Nothing here is real." in devices
    assert "needs 1.5 fGPU, 0.5 are free" in bkai("queue").stdout
    assert bkai("usage").stdout.split() == [
        "USER",
        "SESSIONS",
        "TIME",
        "GPU",
        "H",
        "alice",
        "2",
        "0",
        "s",
        "0.00",
    ]
    assert bkai("usage", "--by", "day", "--from", "2026-01-01", "--csv").stdout.startswith("key,sessions")
    trace = bkai("usage", "--trace", "--anonymous")
    assert "Only administrators" in trace.stderr
    service.admin = True
    assert bkai("usage", "--trace", "--anonymous").stdout.splitlines()[1] == "0,1,default,1,1024,60"
    assert "--anonymous goes with --trace" in bkai("usage", "--anonymous").stderr
    listed = bkai("images").stdout.splitlines()
    assert listed[0].split() == ["IMAGE", "TITLE", "READY"]
    assert [line.split()[-1] for line in listed[1:]] == ["ready"] * len(service.images)
    assert "sklearn/1.6" in bkai("images").stdout
    for command in ("devices", "queue", "usage", "images"):
        assert isinstance(json.loads(bkai(command, "--json").stdout), dict)


# -- who and where ----------------------------------------------------------------------------


def test_login_by_standard_input_and_by_file(process: Bkai, service: FakeService, tmp_path: Path) -> None:
    away = {"BKAI_URL": "", "BKAI_TOKEN": ""}
    done = process("login", f"{service.url}/hub/home", stdin=f"{service.token}\n", **away)
    assert (done.returncode, done.stdout) == (0, f"Logged in to {service.url} as alice.\n"), done.stderr
    file = tmp_path / "config" / "bkai" / "profiles.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert process("session", "ls", **away).returncode == 0

    token = tmp_path / "token"
    token.write_text(service.token + "\n")
    done = process("login", service.url, "--token-file", token, "--profile", "lab", "--json", **away)
    assert json.loads(done.stdout) == {"url": service.url, "user": "alice", "admin": False, "profile": "lab"}
    assert process("--profile", "lab", "queue", **away).returncode == 0
    assert process("queue", BKAI_PROFILE="lab", **away).returncode == 0
    wrong = process("queue", "--profile", "labor", **away)
    assert "There is no login named “labor” (there is default, lab)" in wrong.stderr
    assert process("logout", **away).stdout == f"Forgot the token for {service.url}.\n"
    assert process("logout", **away).stdout == "You were not logged in.\n"
    assert list(json.loads(file.read_text())) == ["lab"]


def test_a_wrong_token_is_not_saved(bkai: Bkai, service: FakeService, tmp_path: Path) -> None:
    done = bkai("login", service.url, stdin="nonsense\n", BKAI_URL="", BKAI_TOKEN="")
    assert done.returncode == 1
    assert "does not accept the token" in done.stderr
    assert not (tmp_path / "config" / "bkai").exists()


def test_a_token_stays_with_its_address(bkai: Bkai, service: FakeService) -> None:
    bkai("login", service.url, stdin=f"{service.token}\n")
    assert bkai("queue", BKAI_URL=f"{service.url}/hub/", BKAI_TOKEN="").returncode == 0
    other = bkai("queue", BKAI_URL="http://127.0.0.1:1", BKAI_TOKEN="")
    assert other.returncode == 1
    assert "There is no token for http://127.0.0.1:1" in other.stderr


def test_nobody_is_logged_in(bkai: Bkai) -> None:
    done = bkai("queue", BKAI_URL="", BKAI_TOKEN="")
    assert (done.returncode, done.stderr) == (1, "bkai: You are not logged in; use “bkai login ADDRESS”.\n")


def test_inside_a_session_nobody_needs_to_log_in(bkai: Bkai, service: FakeService) -> None:
    inside = {"BKAI_SERVICE_URL": f"{service.url}/services/bkai", "JUPYTERHUB_API_TOKEN": service.token}
    assert bkai("queue", BKAI_URL="", BKAI_TOKEN="", **inside).returncode == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"default": {}}', "\xff"])
def test_a_broken_file_of_logins(bkai: Bkai, tmp_path: Path, content: str) -> None:
    file = tmp_path / "config" / "bkai" / "profiles.json"
    file.parent.mkdir(parents=True)
    file.write_text(content, "latin-1")
    done = bkai("queue", BKAI_URL="", BKAI_TOKEN="")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1
    assert file.read_text("latin-1") == content


def test_a_hub_that_is_not_there(bkai: Bkai) -> None:
    done = bkai("queue", BKAI_URL="http://127.0.0.1:1")
    assert done.returncode == 3
    assert done.stderr.startswith("bkai: Nothing answers at http://127.0.0.1:1 (")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        process = subprocess.Popen(
            [*BKAI, "queue"],
            env=os.environ | {"BKAI_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "BKAI_TOKEN": "t"}
            | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=subprocess.PIPE,
        )  # fmt: skip
        silent.accept()[0].close()
        assert process.wait(20) == 3
        assert process.stderr
        assert b"broke off" in process.stderr.read()
        process.stderr.close()


def test_not_an_address(bkai: Bkai) -> None:
    done = bkai("login", "hub.example.org", stdin="t\n")
    assert done.returncode == 2
    assert "give the hub's, like https://hub.example.org" in done.stderr


# -- strangers' text --------------------------------------------------------------------------

HOSTILE = "\x1b]0;pwned\x07\x1b[2J\x9b31mred\r\nnext\u202etxt\x00"


def test_hostile_text_does_not_reach_the_terminal(bkai: Bkai, service: FakeService) -> None:
    service.create({"name": "s"})
    (session,) = service.sessions.values()
    session |= {
        "name": HOSTILE,
        "server": HOSTILE,
        "message": HOSTILE,
        "accelerator": HOSTILE,
        "state": "ERROR",
    }
    for arguments in (
        ("session", "ls"),
        ("session", "show", session["id"]),
        ("session", "stop", "x" + HOSTILE.replace("\0", "")),
    ):
        done = bkai(*arguments)
        text = done.stdout + done.stderr
        assert not set(text) & set("\x1b\x9b\x07\r\x00\u202e"), arguments
        assert "red" in text
    assert not set(bkai("session", "ls", "--json").stdout) & set("\x1b\x9b\x07\r\x00\u202e")


def test_a_hostile_error(service: FakeService, bkai: Bkai) -> None:
    service.images = (HOSTILE, "a/1")
    service.token = "another"
    done = bkai("images")
    assert "\x1b" not in done.stderr
    service.token = "fake-token"
    assert "\x1b" not in bkai("images").stdout


# -- up ---------------------------------------------------------------------------------------


def test_up_without_the_hub_installed(variables: Environment, tmp_path: Path) -> None:
    code = "import sys; sys.modules['jupyterhub'] = None; from jupyterhub_bkai.cli import main; main()"
    done = subprocess.run([BKAI[0], "-c", code, "up"], env=variables, text=True, capture_output=True)
    assert done.returncode == 1
    assert "pip install 'jupyterhub-bkai[hub]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_as_processes(process: Bkai) -> None:
    listed = process("session", "ls")
    assert (listed.returncode, listed.stdout) == (
        0,
        "There is no session; “bkai session create” asks for one.\n",
    )
    assert process("session", "show", "x").returncode == 1
    assert process("nothing").returncode == 2
    assert process("queue", BKAI_URL="http://127.0.0.1:1").returncode == 3
    made = process("session", "create", "--fgpu", "1", "--count", "3", "--json")
    assert [one["state"] for one in json.loads(made.stdout)["sessions"]] == ["RUNNING", "RUNNING", "PENDING"]
    letters = process("session", "ls", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert letters.returncode == 0
