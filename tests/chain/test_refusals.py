"""Wrong input through every door gets one clear sentence and changes nothing."""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chain.site import ADMIN_TOKEN, SETTINGS, Site, remove

pytestmark = pytest.mark.hub
SMALL = {"version": "python/3.11", "cpu": "0.1", "memory": "256m"}

WRONG = [
    ("version", {"version": "nothing/1"}),
    ("version", {"version": "../../../etc/passwd"}),
    ("fgpu", {"fgpu": "0"}),
    ("fgpu", {"fgpu": "-1"}),
    ("fgpu", {"fgpu": "NaN"}),
    ("fgpu", {"fgpu": "1e400"}),
    ("fgpu", {"fgpu": "99999999"}),
    ("fgpu", {"fgpu": "lots"}),
    ("cpu", {"cpu": "four"}),
    ("memory", {"memory": "9" * 30}),
    ("name", {"name": "../escape"}),
    ("name", {"name": "<img src=x onerror=alert(1)>"}),
    ("count", {"count": "1000000"}),
    ("environment", {"environment": {"LD_PRELOAD": "/tmp/x.so"}}),
]


@pytest.fixture
def token(site: Site) -> str:
    return site.token("ada")


def one_sentence(body: dict[str, Any], field: str) -> str:
    text = str(body["error"]["fields"][field])
    assert 10 < len(text) < 400
    assert text[-1] in ".?"
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(("field", "wrong"), WRONG)
def test_by_rest_of_the_service(site: Site, token: str, field: str, wrong: dict[str, Any]) -> None:
    answer = site.call(token, "POST", "/sessions", json={"options": {**SMALL, **wrong}})
    assert answer.status_code == 400, answer.text
    one_sentence(answer.json(), field)
    assert site.sessions(token) == []
    checked = site.call(token, "POST", "/sessions/check", json={"options": {**SMALL, **wrong}})
    assert list(checked.json()["errors"]) == [field]


@pytest.mark.parametrize(("field", "wrong"), [WRONG[0], WRONG[4], WRONG[11]])
def test_by_rest_of_the_hub(site: Site, token: str, field: str, wrong: dict[str, Any]) -> None:
    headers = {"Authorization": f"token {token}"}
    server = f"{site.url}/hub/api/users/ada/servers/wrong"
    answer = httpx.post(
        server, headers=headers, json={"user_options": {**SMALL, **wrong}}, trust_env=False, timeout=30
    )
    text = answer.text
    if answer.status_code == 202:  # the machine was slow: then the progress stream says it
        with httpx.stream(
            "GET", f"{server}/progress", headers=headers, trust_env=False, timeout=30
        ) as events:
            text = events.read().decode()
    else:
        assert answer.status_code == 400, text
    told = site.call(token, "POST", "/sessions/check", json={"options": {**SMALL, **wrong}}).json()["errors"]
    assert json.dumps(told[field])[1:20] in text
    assert site.sessions(token) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 201),
        (b"{", 400),
        (b"[]", 400),
        (b'{"options": "all"}', 400),
        (b'{"options": {}, "keepalive_s": -5}', 400),
        (b"\xff\xfe", 400),
        (b'{"options": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"options": {"name": "' + b"x" * 1_100_000 + b'"}}', 413),
    ],
    ids=["empty", "cut off", "a list", "not an object", "negative", "not text", "deep", "large"],
)
def test_broken_bodies(site: Site, token: str, body: bytes, status: int) -> None:
    answer = site.call(token, "POST", "/sessions", content=body)
    assert answer.status_code == status, answer.text
    if status != 201:
        assert answer.json()["error"]["message"][-1] == "."


def test_somebody_elses_session_is_not_there(site: Site, token: str) -> None:
    (one,) = site.call(
        token, "POST", "/sessions", json={"options": {**SMALL, "fgpu": "2", "name": "mine"}}
    ).json()["sessions"]
    bob = site.token("bob")
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/keepalive"),
        ("GET", "/logs"), ("GET", "/transitions"), ("GET", "/events"),
    ):  # fmt: skip
        answer = site.call(bob, method, f"/sessions/{one['id']}{path}")
        assert answer.status_code == 404, (method, path, answer.text)
        assert answer.json()["error"]["message"] == "There is no such session of yours."
    assert site.call(bob, "GET", "/sessions", params={"user": "ada"}).status_code == 403
    assert site.call(bob, "GET", "/sessions", params={"all": "1"}).status_code == 403
    assert site.call(bob, "GET", "/events", params={"all": "1"}).status_code == 403
    assert site.call(bob, "GET", "/usage", params={"user": "ada"}).status_code == 403
    assert "ada" not in site.call(bob, "GET", "/devices").text
    assert "ada" not in site.call(bob, "GET", "/queue").text
    assert [s["id"] for s in site.sessions(token)] == [one["id"]]
    # An administrator sees and may stop it.
    admin = site.token("admin")
    assert site.call(admin, "GET", f"/sessions/{one['id']}").status_code == 200
    assert "ada" in site.call(admin, "GET", "/devices").text


def test_names_are_one_persons_own_and_each_is_used_once(site: Site) -> None:
    """Of several sessions that one request asked for, each has a name that no other has."""
    token = site.token("nora")
    asked = {"options": {**SMALL, "name": "tri", "count": "2"}}
    made = site.call(token, "POST", "/sessions", json=asked).json()["sessions"]
    try:
        assert [one["name"] for one in made] == [one["server"] for one in made] == ["tri", "tri-2"]
        sentence = "Name: you have a session called “tri” already; choose another name."
        again = {"options": {**SMALL, "name": "tri"}}
        refused = site.call(token, "POST", "/sessions", json=again)
        assert (refused.status_code, refused.json()["error"]["message"]) == (409, sentence)
        checked = site.call(token, "POST", "/sessions/check", json=again).json()
        assert checked == {"errors": {"name": sentence}, "outlook": None}
    finally:
        for one in made:
            site.call(token, "DELETE", f"/sessions/{one['id']}")
    site.until(lambda: not site.sessions(token), 60, "they have ended")


def test_an_image_version_that_is_made_first_is_said(site: Site, token: str) -> None:
    def told() -> bool:
        images = site.call(token, "GET", "/options").json()["offer"]["images"]
        for image in images:
            asked = {"options": {"version": image["version"]}}
            outlook = site.call(token, "POST", "/sessions/check", json=asked).json()["outlook"]
            assert outlook["starts"] == "now", outlook
            if ("is made first" in outlook["message"]) == image["ready"]:
                return False  # it became ready between the two questions
        return True

    site.until(told, 30, "the outlook and the offer agree")


@pytest.mark.parametrize("wrong", ["nonsense", secrets.token_hex(16), "a" * 5000, "ümlaut".encode().hex()])
def test_tokens_that_are_none(site: Site, wrong: str) -> None:
    answer = site.call(wrong, "GET", "/sessions")
    assert answer.status_code == 401, answer.text
    assert answer.json()["error"]["reason"] == "not-logged-in"


def test_an_expired_token(site: Site) -> None:
    short = site.token("ada", expires_in=1)
    site.until(
        lambda: site.call(short, "GET", "/me").status_code == 401, 30, "the token is refused once it expired"
    )


def test_a_service_is_no_person(site: Site) -> None:
    assert site.call(ADMIN_TOKEN, "GET", "/me").status_code == 403


def test_a_token_without_the_services_scope(site: Site) -> None:
    narrow = site.token("ada", scopes=["read:users:name!user=ada"])
    answer = site.call(narrow, "GET", "/me")
    assert answer.status_code == 403, answer.text


def test_an_administrators_narrow_token_is_one_of_anybodys(site: Site) -> None:
    site.token("admin")
    narrow = site.token("admin", scopes=["access:services!service=bkai"])
    assert site.call(narrow, "GET", "/me").json()["admin"] is False
    assert site.call(narrow, "GET", "/sessions", params={"all": "1"}).status_code == 403
    assert site.call(site.token("admin"), "GET", "/me").json()["admin"] is True


@pytest.mark.parametrize(
    "query",
    [
        "/usage?to=0001-01-02",
        "/usage?from=0001-01-01T00:00%2B14:00",
        "/sessions?state=%FF",
    ],
)
def test_questions_that_are_none(site: Site, token: str, query: str) -> None:
    answer = site.call(token, "GET", query)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"][-1] == "."


def test_a_file_of_ours_that_cannot_be(site: Site, token: str) -> None:
    answer = httpx.get(f"{site.url}/services/bkai/static/%00", trust_env=False, timeout=30)
    assert answer.status_code == 404


def test_what_other_people_may_not_use_is_not_in_their_news(a_site: Callable[..., Site]) -> None:
    secret = "  secret:\n    title: Secret\n    public: false\n    users: [ada]\n"
    site = a_site(settings=SETTINGS + secret).start()
    try:
        for user, names in (("bob", ["default"]), ("ada", ["default", "secret"])):
            mine = site.token(user)
            with httpx.stream(
                "GET",
                f"{site.url}/services/bkai/api/v1/events",
                headers={"Authorization": f"token {mine}"},
                trust_env=False,
                timeout=30,
            ) as events:
                lines = events.iter_lines()
                next(line for line in lines if line == "event: ready")
                asked = {"options": {**SMALL, "fgpu": "2"}}
                site.call(mine, "POST", "/sessions", json=asked)
                next(line for line in lines if line == "event: capacity")
                told = json.loads(next(lines).removeprefix("data: "))
                assert [group["name"] for group in told["groups"]] == names
    finally:
        remove(site)


def test_a_sessions_own_token_may_little_and_dies_with_it(site: Site) -> None:
    admin = site.token("admin")
    asked = {"options": {**SMALL, "name": "own"}}
    (one,) = site.call(admin, "POST", "/sessions", json=asked).json()["sessions"]
    site.running(admin, one["id"])
    inside = _token_inside(one["id"])
    me = site.call(inside, "GET", "/me").json()
    assert (me["name"], me["admin"], me["session"]) == ("admin", False, one["id"])
    assert site.call(inside, "GET", "/sessions", params={"all": "1"}).status_code == 403
    assert site.call(inside, "POST", "/sessions", json=asked).status_code == 403
    # Whatever runs in the session can read its token: it sees the owner's other sessions and can do nothing to them.
    other = {"options": {**SMALL, "fgpu": "2", "name": "other"}}
    (second,) = site.call(admin, "POST", "/sessions", json=other).json()["sessions"]
    assert site.call(inside, "GET", f"/sessions/{second['id']}").status_code == 200
    for method, path in (("DELETE", ""), ("GET", "/logs"), ("POST", "/keepalive")):
        refused = site.call(inside, method, f"/sessions/{second['id']}{path}")
        assert refused.status_code == 403, (method, path, refused.text)
    assert second["id"] in [s["id"] for s in site.sessions(admin)]
    site.call(admin, "DELETE", f"/sessions/{second['id']}")
    assert site.call(inside, "GET", f"/sessions/{one['id']}/logs").status_code == 200
    assert site.call(inside, "POST", f"/sessions/{one['id']}/keepalive").status_code == 204
    assert site.call(inside, "DELETE", f"/sessions/{one['id']}").status_code == 202
    site.until(lambda: not site.sessions(admin), 60, "it has ended")
    site.until(lambda: site.call(inside, "GET", "/me").status_code == 401, 30, "its token is refused")


def _token_inside(lease: str) -> str:
    """What a program in the session finds in its environment."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            pairs = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found = dict(pair.partition(b"=")[::2] for pair in pairs)
        if found.get(b"BKAI_LEASE_ID") == lease.encode() and b"JUPYTERHUB_API_TOKEN" in found:
            return found[b"JUPYTERHUB_API_TOKEN"].decode()
    raise AssertionError("no process of the session shows its environment")


def test_paths_that_are_none(site: Site, token: str) -> None:
    assert site.call(token, "GET", "/nothing").status_code == 404
    assert site.call(token, "PUT", "/sessions").status_code == 405
    assert site.call(token, "GET", "/sessions/..%2f..%2fetc").status_code == 404
    assert site.call(token, "GET", "/usage", params={"by": "colour"}).status_code == 400
    assert site.call(token, "GET", "/usage", params={"from": "yesterday"}).status_code == 400


def test_the_hubs_door_is_not_on_the_network(site: Site, token: str) -> None:
    for path in (
        "/trusted/v1/acquire",
        "/services/bkai/trusted/v1/acquire",
        "/services/bkai/api/v1/../../trusted/v1/choices",
    ):
        answer = httpx.post(
            f"{site.url}{path}",
            headers={"Authorization": f"token {token}"},
            json={"user": "admin"},
            trust_env=False,
        )
        assert answer.status_code in (302, 401, 403, 404, 405), (path, answer.status_code)
        assert "offer" not in answer.text
    socket = site.data / "run" / "hub.sock"
    assert socket.stat().st_mode & 0o077 == 0
    assert (site.data / "run").stat().st_mode & 0o077 == 0
