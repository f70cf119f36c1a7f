"""Programs run for a laptop: every byte once, however often the connection breaks, and nothing left behind."""

import base64
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupyterhub_bkai.singleuser.processes import marked
from tests.singleuser.servers import OURS, environment, running, wait_for
from tests.singleuser.standin import StandIn

PYTHON = sys.executable


def start(http: httpx.Client, *words: str, **more: Any) -> str:
    answer = http.post("bkai/run", json={"command": list(words), **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def read(http: httpx.Client, id: str, offset: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
    """The events from `offset` on, at most `limit` of them."""
    events = []
    with http.stream("GET", f"bkai/run/{id}/output", params={"from": offset}) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line:
                events.append(json.loads(line))
            if limit and len(events) == limit:
                break
    return events


def bytes_of(event: dict[str, Any]) -> bytes:
    data = str(event["data"])
    return base64.b64decode(data) if event["encoding"] == "base64" else data.encode()


def text(events: list[dict[str, Any]], stream: str | None = None) -> bytes:
    return b"".join(
        bytes_of(event) for event in events if "data" in event and stream in (None, event["stream"])
    )


def gone(id: str) -> bool:
    return not marked(id)


@pytest.mark.parametrize("code", [0, 7])
def test_output_and_exit_code(http: httpx.Client, code: int) -> None:
    id = start(http, "sh", "-c", f"echo out; sleep 0.1; echo err >&2; exit {code}")
    events = read(http, id)
    assert text(events, "stdout") == b"out\n"
    assert text(events, "stderr") == b"err\n"
    assert events[-1] == {"exit_code": code, "offset": 8, "dropped": 0}
    assert http.get(f"bkai/run/{id}").json()["state"] == "ended"


def test_output_comes_while_it_is_written(http: httpx.Client) -> None:
    program = "import time; print('now'); time.sleep(30)"
    id = start(http, "python", "-c", program)
    assert text(read(http, id, limit=1)).startswith(b"now")
    assert http.get(f"bkai/run/{id}").json()["state"] == "running"
    http.delete(f"bkai/run/{id}")
    assert read(http, id)[-1]["exit_code"] == -signal.SIGINT


def test_every_byte_once_over_broken_connections(http: httpx.Client) -> None:
    program = "import sys\nfor i in range(20000): print(i, file=sys.stdout if i % 3 else sys.stderr)"
    id = start(http, "python", "-c", program)
    whole = read(http, id)
    seen, offset = b"", 0
    while True:
        events = read(http, id, offset, limit=2)
        data = text(events)
        seen, offset = seen + data, offset + len(data)
        if "exit_code" in events[-1]:
            break
    assert seen == text(whole)
    assert list(map(int, text(whole, "stdout").split())) == [i for i in range(20000) if i % 3]
    assert list(map(int, text(whole, "stderr").split())) == [i for i in range(20000) if not i % 3]
    offsets = [event["offset"] for event in whole if "data" in event]
    assert offsets == sorted(set(offsets))


def test_bytes_that_are_no_text(http: httpx.Client) -> None:
    id = start(http, "printf", r"\377\376ok")
    assert text(read(http, id)) == b"\xff\xfeok"


def test_characters_are_not_cut(http: httpx.Client) -> None:
    program = (
        "import sys,time\nfor b in 'é€😀'.encode(): sys.stdout.buffer.write(bytes([b])); time.sleep(0.02)"
    )
    events = read(http, start(http, "python", "-c", program))
    assert text(events).decode() == "é€😀"
    assert {event["encoding"] for event in events if "data" in event} == {"utf-8"}


def test_it_goes_on_without_a_reader(http: httpx.Client, home: Path) -> None:
    id = start(http, "sh", "-c", "sleep 0.4; echo done > later.txt")
    wait_for(lambda: (home / "later.txt").exists())
    assert read(http, id)[-1]["exit_code"] == 0


def test_the_same_id_starts_no_second(http: httpx.Client, home: Path) -> None:
    body = {"command": ["sh", "-c", "echo x >> once.txt"], "id": "only-once"}
    first, second = (http.post("bkai/run", json=body) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] == second.json()["id"]
    read(http, "only-once")
    assert (home / "once.txt").read_text() == "x\n"
    other = http.post("bkai/run", json={"command": ["true"], "id": "only-once"})
    assert (other.status_code, other.json()["error"]["reason"]) == (409, "id-taken")


def test_folder_and_environment(http: httpx.Client, home: Path) -> None:
    (home / "project").mkdir()
    id = start(
        http, "sh", "-c", "pwd; echo $PWD $FRUIT $BKAI_LEASE_ID", cwd="project", environment={"FRUIT": "fig"}
    )
    place = os.path.realpath(home / "project")
    lease = "01kb0000000000000000000000"
    assert text(read(http, id)).decode() == f"{place}\n{place} fig {lease}\n"


def test_python_is_the_images_python(http: httpx.Client) -> None:
    id = start(http, "python", "-c", "import sys; print(sys.prefix)")
    assert text(read(http, id)).decode().strip() == sys.prefix


def test_interrupt_is_heard(http: httpx.Client) -> None:
    program = (
        "import time\n"
        "try: print('on'); time.sleep(60)\n"
        "except KeyboardInterrupt: print('tidy'); raise SystemExit(3)"
    )
    id = start(http, "python", "-c", program)
    wait_for(lambda: http.get(f"bkai/run/{id}").json()["size"] == len("on\n"))
    assert http.delete(f"bkai/run/{id}").status_code == 202
    events = read(http, id)
    assert text(events) == b"on\ntidy\n"
    assert events[-1]["exit_code"] == 3


def test_the_whole_tree_ends_even_when_it_will_not(http: httpx.Client) -> None:
    stubborn = (
        "import os,signal,time\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
        "if os.fork() == 0: os.setsid()\n"
        "print('up'); time.sleep(300)"
    )
    id = start(http, "python", "-c", stubborn)
    wait_for(lambda: http.get(f"bkai/run/{id}").json()["size"] == len("up\nup\n"))
    assert len(marked(id)) == 2
    began = time.monotonic()
    for _ in range(3):  # each further one hurries
        http.delete(f"bkai/run/{id}")
        time.sleep(0.3)
    wait_for(lambda: gone(id))
    assert time.monotonic() - began < 5
    assert read(http, id)[-1]["exit_code"] == -signal.SIGKILL


def test_what_is_left_in_the_background_ends_with_the_program(http: httpx.Client) -> None:
    id = start(http, "sh", "-c", "sleep 300 & echo started")
    events = read(http, id)
    assert events[-1]["exit_code"] == 0
    assert text(events) == b"started\n"
    wait_for(lambda: gone(id))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "command"),
        ({"command": []}, "command"),
        ({"command": "ls"}, "command"),
        ({"command": [""]}, "command"),
        ({"command": ["a\0b"]}, "command"),
        ({"command": [1]}, "command"),
        ({"command": ["x"] * 5000}, "command"),
        ({"command": ["no-such-program-here"]}, "command"),
        ({"command": ["/etc/passwd"]}, "command"),
        ({"command": ["true", "x" * 200_000]}, "command"),
        ({"command": ["true"], "cwd": ["a"]}, "cwd"),
        ({"command": ["true"], "cwd": "../.."}, "path"),
        ({"command": ["true"], "cwd": "/etc"}, "path"),
        ({"command": ["true"], "environment": ["A"]}, "environment"),
        ({"command": ["true"], "environment": {"A": 1}}, "environment"),
        ({"command": ["true"], "environment": {"A=B": "x"}}, "environment"),
        ({"command": ["true"], "environment": {"BKAI_LEASE_ID": "x"}}, "environment"),
        ({"command": ["true"], "environment": {"JUPYTERHUB_USER": "x"}}, "environment"),
        ({"command": ["true"], "id": "../x"}, "id"),
        ({"command": ["true"], "id": 7}, "id"),
        ({"command": ["true"], "id": "x" * 65}, "id"),
    ],
)
def test_wrong_requests(http: httpx.Client, body: dict[str, Any], field: str) -> None:
    before = http.get("bkai/run").json()
    answer = http.post("bkai/run", json=body)
    assert answer.status_code == 400, answer.text
    assert field in answer.json()["error"]["fields"]
    assert http.get("bkai/run").json() == before


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[]", b"\xff", b'{"a":' * 10_000])
def test_bodies_that_are_no_object(http: httpx.Client, content: bytes) -> None:
    assert http.post("bkai/run", content=content).status_code == 400


def test_output_beyond_the_limit_is_dropped_and_said_to_be(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    little = "--SessionExtension.output_limit_mib=1"
    with (
        running(
            OURS, environment(standin, tmp_path, free_port()), tmp_path, tmp_path / "log", little
        ) as server,
        server.client() as http,
    ):
        id = start(http, "head", "-c", "1500000", "/dev/zero")
        events = read(http, id)
    assert text(events) == bytes(1 << 20)
    assert events[-1] == {"exit_code": 0, "offset": 1 << 20, "dropped": 1_500_000 - (1 << 20)}


def test_a_huge_body(http: httpx.Client) -> None:
    assert http.post("bkai/run", json={"command": ["x" * 2_000_000]}).status_code == 413


def test_a_folder_that_is_not_there(http: httpx.Client, home: Path, tmp_path: Path) -> None:
    (home / "way-out").symlink_to(tmp_path)
    assert http.post("bkai/run", json={"command": ["true"], "cwd": "absent"}).status_code == 404
    assert http.post("bkai/run", json={"command": ["true"], "cwd": "way-out"}).status_code == 409


@pytest.mark.parametrize("offset", ["-1", "x", "1e3", "9" * 30, "999999"])
def test_offsets_that_are_none(http: httpx.Client, offset: str) -> None:
    id = start(http, "true")
    assert http.get(f"bkai/run/{id}/output", params={"from": offset}).status_code == 400


def test_runs_that_are_not_there(http: httpx.Client) -> None:
    for answer in (http.get("bkai/run/x"), http.delete("bkai/run/x"), http.get("bkai/run/x/output")):
        assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "no-run")


def test_a_silent_program_keeps_the_session_in_use(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    often = "--SessionExtension.activity_s=0.2"
    with (
        running(
            OURS, environment(standin, tmp_path, free_port()), tmp_path, tmp_path / "log", often
        ) as server,
        server.client() as http,
    ):

        def active() -> str:
            return str(http.get("api/status?no_track_activity=1").json()["last_activity"])

        idle = active()
        time.sleep(0.5)
        assert active() == idle
        id = start(http, "sleep", "60")
        asked = active()
        wait_for(lambda: active() > asked)
        http.delete(f"bkai/run/{id}")


def test_the_end_of_the_session_ends_its_programs(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with (
        running(OURS, environment(standin, tmp_path, free_port()), tmp_path, tmp_path / "log") as server,
        server.client() as http,
    ):
        id = start(http, "sleep", "300")
        assert not gone(id)
    assert gone(id)
