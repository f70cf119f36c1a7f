"""What administrators do by hand, by the REST of a whole site: who may, what it does, what is seen of it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chain.site import Site

pytestmark = [pytest.mark.hub, pytest.mark.timeout(300)]


@pytest.fixture
def admin(site: Site) -> Iterator[str]:
    """An administrator's token; what a test closed is open again after it."""
    token = site.token("admin")
    yield token
    for node in site.call(token, "GET", "/devices").json()["nodes"]:
        site.call(token, "DELETE", f"/nodes/{node['name']}/drain")
        for device in node["devices"]:
            site.call(token, "DELETE", f"/devices/{device['id']}/drain")
    site.call(token, "DELETE", "/groups/default/hold")


def ask(site: Site, token: str, **options: str) -> dict[str, Any]:
    body = {"options": {"version": "python/3.11", "cpu": "0.5", "memory": "256m", "fgpu": "1", **options}}
    answer = site.call(token, "POST", "/sessions", json=body)
    assert answer.status_code == 201, answer.text
    [one] = answer.json()["sessions"]
    return dict(one)


def places(site: Site, token: str) -> list[tuple[str, str]]:
    """Everything that can be closed."""
    [node] = site.call(token, "GET", "/devices").json()["nodes"]
    paths = (
        f"/nodes/{node['name']}/drain",
        f"/devices/{node['devices'][0]['id']}/drain",
        "/groups/default/hold",
    )
    return list(zip(("drains", "drains", "holds"), paths, strict=True))


def restarted(site: Site) -> None:
    """The service is killed, and comes back."""
    before = site.kill("service")
    site.until(lambda: site.pid("service") != before and site._answers(), 60, "the service is back")


def granted(site: Site, token: str, id: str) -> None:
    site.until(lambda: site.call(token, "GET", f"/sessions/{id}").json()["granted"], 30, "it is granted")


def test_only_administrators_close_and_prioritise(site: Site, admin: str) -> None:
    ada = site.token("ada")
    narrow = site.token("admin", scopes=["access:services!service=bkai", "read:users:name!user"])
    for _, path in places(site, ada):
        for method, body in (("POST", {"why": "x"}), ("DELETE", None)):
            for token in (ada, narrow):
                answer = site.call(token, method, path, json=body)
                assert answer.status_code == 403, answer.text
                assert answer.json()["error"]["message"] == "Only administrators may do this."
            assert site.call("nobody", method, path, json=body).status_code in (401, 403)
    one = ask(site, ada, fgpu="2")
    answer = site.call(ada, "PUT", f"/sessions/{one['id']}/priority", json={"priority": 90})
    assert answer.status_code == 403
    assert not [node for node in site.call(admin, "GET", "/devices").json()["nodes"] if node["drained"]]


def test_what_is_closed_starts_nothing_says_why_and_survives_a_killed_service(site: Site, admin: str) -> None:
    ada = site.token("ada")
    for verb, path in places(site, admin):
        answer = site.call(admin, "POST", path, json={"why": "new\nfans"})
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"since": answer.json()["since"], "why": "new fans", "who": "admin"}
        waits = ask(site, ada)
        assert waits["state"] == "PENDING"
        assert waits["why"].startswith(f"The administrator {verb} ")
        assert waits["why"].endswith(": new fans.")
        restarted(site)
        again = site.call(ada, "GET", f"/sessions/{waits['id']}").json()
        assert (again["state"], again["why"]) == ("PENDING", waits["why"])
        assert site.call(admin, "DELETE", path).status_code == 204
        granted(site, ada, waits["id"])
        site.clear()


def test_what_is_closed_is_shown_and_by_whom_to_administrators_only(site: Site, admin: str) -> None:
    ada = site.token("ada")
    for _, path in places(site, admin):
        site.call(admin, "POST", path, json={"why": "new fans"})
    for token, who in ((admin, "admin"), (ada, None)):
        [node] = site.call(token, "GET", "/devices").json()["nodes"]
        [group] = site.call(token, "GET", "/queue").json()["groups"]
        found = [node["drained"], node["devices"][0]["drained"], group["held"]]
        assert [(one["why"], one["who"]) for one in found] == [("new fans", who)] * 3
        assert node["devices"][0]["healthy"] is True
        assert node["groups"] == ["default"]


def test_the_queue_tells_others_names_to_administrators_only(site: Site, admin: str) -> None:
    ada, bob = site.token("ada"), site.token("bob")
    site.call(admin, "POST", "/groups/default/hold", json={"why": "exam"})
    first, second = ask(site, ada, name="mine"), ask(site, bob, name="his")
    answer = site.call(admin, "PUT", f"/sessions/{second['id']}/priority", json={"priority": 90})
    assert answer.json()["position"] == 1
    [group] = site.call(admin, "GET", "/queue").json()["groups"]
    assert [(w["user"], w["name"], w["priority"], w["position"]) for w in group["waiting"]] == [
        ("bob", "his", 90, 1),
        ("ada", "mine", 10, 2),
    ]
    assert (group["title"], group["all"]) == ("Default", 2)
    [group] = site.call(ada, "GET", "/queue").json()["groups"]
    assert [(w["user"], w["id"]) for w in group["waiting"]] == [(None, None), ("ada", first["id"])]
    assert (group["fragmentation"], group["idle_minutes"]) == (None, None)
    [group] = site.call(admin, "GET", "/queue", params={"most": "1"}).json()["groups"]
    assert (len(group["waiting"]), group["all"]) == (1, 2)
    assert site.call(admin, "GET", "/queue", params={"most": "-1"}).status_code == 400
    # Devices stand free while these two wait, and that is counted.
    site.until(
        lambda: site.call(admin, "GET", "/queue").json()["groups"][0]["idle_minutes"] > 0,
        30,
        "minutes are counted",
    )
    story = site.call(bob, "GET", f"/sessions/{second['id']}/transitions").json()["transitions"]
    assert [(one["who"], one["why"]) for one in story][1:] == [("admin", "priority 10 → 90")]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/nodes/nowhere/drain", {"why": "x"}, 404, "There is no node nowhere"),
        ("/devices/a%2Fb/drain", {"why": "x"}, 404, "There is no device a/b"),
        (
            "/groups/defaul/hold",
            {"why": "x"},
            404,
            "There is no resource group defaul; the nearest is default.",
        ),
        ("/groups/default/hold", {}, 400, "why"),
        ("/groups/default/hold", {"why": ""}, 400, "why"),
        ("/groups/default/hold", {"why": "x" * 301}, 400, "why"),
    ],
)
def test_what_cannot_be_closed(
    site: Site, admin: str, path: str, body: dict[str, str], status: int, message: str
) -> None:
    answer = site.call(admin, "POST", path, json=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_priorities_are_numbers_from_0_to_100(site: Site, admin: str) -> None:
    site.call(admin, "POST", "/groups/default/hold", json={"why": "exam"})
    one = ask(site, site.token("ada"))
    for wrong in (-1, 101, "10", None, 1.5):
        answer = site.call(admin, "PUT", f"/sessions/{one['id']}/priority", json={"priority": wrong})
        assert answer.status_code == 400, answer.text
