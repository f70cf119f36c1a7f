"""The panel's questions reach the service, and the session's token stays where it is."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.singleuser.servers import OURS, Server, environment, running, wait_for
from tests.singleuser.standin import LEASE, OTHER, SERVER_TOKEN, StandIn, session

ROUTES = ["bkai/session", "bkai/sessions", "bkai/session/events", "bkai/sessions/events", "bkai/run"]


def test_this_session_comes_from_the_books(http: httpx.Client, standin: StandIn) -> None:
    answer = http.get("bkai/session")
    assert answer.status_code == 200
    assert answer.json() == standin.sessions[LEASE]
    assert standin.asked == [("GET", f"/sessions/{LEASE}", f"token {SERVER_TOKEN}")]


def test_all_sessions_of_the_owner(http: httpx.Client, standin: StandIn) -> None:
    standin.sessions[OTHER] = session(OTHER, name="Second", state="PENDING", position=2)
    assert [row["id"] for row in http.get("bkai/sessions").json()["sessions"]] == [LEASE, OTHER]


def test_nothing_of_the_callers_request_goes_to_the_service(http: httpx.Client, standin: StandIn) -> None:
    http.get("bkai/session?all=1&user=bob", headers={"X-Mine": "1"})
    assert [(method, path) for method, path, _ in standin.asked] == [("GET", f"/sessions/{LEASE}")]


def test_stop_ends_this_session_only(http: httpx.Client, standin: StandIn) -> None:
    standin.sessions[OTHER] = session(OTHER)
    answer = http.post("bkai/session/stop", json={"id": OTHER})
    assert answer.status_code == 202
    assert standin.sessions[LEASE]["state"] == "TERMINATING"
    assert standin.sessions[OTHER]["state"] == "RUNNING"


def test_events_arrive_as_they_happen(http: httpx.Client, standin: StandIn) -> None:
    with http.stream("GET", "bkai/session/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = data(response)
        assert next(events)["state"] == "RUNNING"
        standin.change(OTHER, state="PENDING")
        standin.change(LEASE, state="TERMINATING")
        assert next(events)["state"] == "TERMINATING"


def test_events_of_all_sessions(http: httpx.Client, standin: StandIn) -> None:
    with http.stream("GET", "bkai/sessions/events") as response:
        events = data(response)
        assert next(events)["id"] == LEASE
        standin.change(OTHER, state="PENDING")
        assert (next(events)["id"]) == OTHER


def test_a_browser_that_leaves_takes_its_stream_with_it(http: httpx.Client, standin: StandIn) -> None:
    wait_for(lambda: standin.readers == 0)  # those of other tests
    with http.stream("GET", "bkai/session/events") as response:
        next(data(response))
        assert standin.readers == 1
    wait_for(lambda: standin.readers == 0)


@pytest.mark.parametrize("path", ["bkai/session", "bkai/sessions", "bkai/session/events"])
def test_a_dead_service_is_one_sentence(http: httpx.Client, standin: StandIn, path: str) -> None:
    standin.mood = "silent"
    answer = http.get(path)
    assert answer.status_code == 503
    assert answer.json()["error"]["reason"] == "unavailable"
    assert answer.json()["message"] == "The session service does not answer; your work is not affected."


def test_the_services_own_refusal_is_handed_on(http: httpx.Client, standin: StandIn) -> None:
    del standin.sessions[LEASE]
    answer = http.get("bkai/session")
    assert answer.status_code == 404
    assert answer.json()["error"] == {"reason": "not-found", "message": "There is no such session."}


def test_a_stream_ends_when_the_service_does(http: httpx.Client, standin: StandIn) -> None:
    with http.stream("GET", "bkai/session/events") as response:
        events = data(response)
        next(events)
        standin.fall_silent()
        assert list(events) == []


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("token", ["", "wrong"])
def test_strangers_get_nothing(
    server: Server, http: httpx.Client, standin: StandIn, path: str, token: str
) -> None:
    with server.client(token) as stranger:
        assert stranger.get(path).status_code == 403
        assert stranger.post("bkai/session/stop").status_code == 403
        assert stranger.post("bkai/run", json={"command": ["true"]}).status_code == 403
    assert standin.asked == []


def test_the_token_is_nowhere_to_be_read(server: Server, http: httpx.Client, standin: StandIn) -> None:
    for path in ("bkai/session", "bkai/sessions", "bkai/run", "lab", "api/status"):
        answer = http.get(path)
        assert SERVER_TOKEN not in answer.text
        assert SERVER_TOKEN not in str(answer.headers)
    standin.mood = "broken"
    assert SERVER_TOKEN not in http.get("bkai/session").text
    assert SERVER_TOKEN not in server.log.read_text()


def test_looking_is_not_working(http: httpx.Client) -> None:
    before = http.get("api/status?no_track_activity=1").json()["last_activity"]
    http.get("bkai/session")
    http.get("bkai/sessions")
    assert http.get("api/status?no_track_activity=1").json()["last_activity"] == before


def test_the_page_knows_where_the_sessions_page_is(http: httpx.Client) -> None:
    assert '"bkaiPages": "/services/bkai/"' in http.get("lab").text


def test_a_server_outside_bkai_says_so(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    outside = environment(standin, tmp_path, free_port(), inside=False)
    with running(OURS, outside, tmp_path, tmp_path / "log") as server, server.client() as http:
        answer = http.get("bkai/session")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "no-session")
        assert answer.json()["message"] == "This JupyterLab was not started as a bkai session."
        assert http.get("bkai/run").status_code == 404
        assert not list(tmp_path.rglob("receipt*"))


def data(response: httpx.Response) -> Iterator[dict[str, object]]:
    """The data of each event in a stream."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
