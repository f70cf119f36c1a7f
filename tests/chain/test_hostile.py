"""An ordinary user who tries: names of what is not theirs, rights of yesterday, everybody's patience."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from jupyterhub_bkai.api.operations import MOST_STREAMS
from tests.chain.site import SETTINGS, Site, remove

pytestmark = pytest.mark.hub
SMALL = {"version": "python/3.11", "cpu": "0.1", "memory": "256m"}
MORE = """\
  fast: {{title: Fast, fgpu_per_gpu: 2, cpu_overcommit: 50}}
  secret: {{title: Secret, public: false, hub_groups: [covert], fgpu_per_gpu: 2, cpu_overcommit: 50}}
projects:
  covert: {{limits: {{running: {{sessions: 1}}}}}}
presets:
  hidden: {{title: Hidden, options: {{cpu: 1}}, groups: [secret]}}
  both: {{title: Both, options: {{cpu: 1}}, groups: [secret, default]}}
"""


@pytest.fixture(scope="module")
def guarded(a_site: Callable[..., Site]) -> Iterator[Site]:
    """A site with a group of machines, a project and a preset of some people."""
    members = 'c.JupyterHub.load_groups = {"covert": {"users": ["ada", "eve"]}}'
    site = a_site(settings=SETTINGS + MORE, more=members).start()
    yield site
    remove(site)


def asked(site: Site, token: str, **options: str) -> dict[str, Any]:
    answer = site.call(token, "POST", "/sessions", json={"options": {**SMALL, **options}})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()["sessions"][0]
    return found


def test_what_others_use_is_not_named(guarded: Site) -> None:
    ada, bob = guarded.token("ada"), guarded.token("bob")
    for name in ("one", "two"):
        asked(guarded, ada, project="covert", name=name)
    for path in ("/devices", "/options", "/queue"):
        told = guarded.call(bob, "GET", path).text.lower()
        assert "secret" not in told, path
        assert "covert" not in told, path
    presets = guarded.call(bob, "GET", "/options").json()["offer"]["presets"]
    assert [(one["name"], one["groups"]) for one in presets] == [("both", ["default"])]
    waiting = guarded.call(bob, "GET", "/queue").json()["groups"][0]["waiting"]
    assert [one["why"] for one in waiting] == ["As much as it may count for runs already."]
    mine = guarded.call(ada, "GET", "/queue").json()["groups"][0]["waiting"]
    assert mine[0]["why"].startswith("The project covert allows its members together 1 session")
    guarded.clear()


def test_who_has_left_is_offered_nothing_of_those_who_stay(guarded: Site) -> None:
    eve, admin = guarded.token("eve"), guarded.token("admin")
    held = ("fast", "default")
    for group in held:
        guarded.call(admin, "POST", f"/groups/{group}/hold", json={"why": "a test"})
    try:
        waits = asked(guarded, eve, group="fast", name="waits")
        offers = f"/sessions/{waits['id']}/offers"
        there = {"group": "secret"}
        assert there in [one["options"] for one in guarded.call(eve, "GET", offers).json()["offers"]]
        guarded.hub("DELETE", "/groups/covert/users", json={"users": ["eve"]})
        guarded.until(
            lambda: "covert" not in guarded.call(eve, "GET", "/me").json()["projects"], 30, "it is known"
        )
        assert there not in [one["options"] for one in guarded.call(eve, "GET", offers).json()["offers"]]
        refused = guarded.call(eve, "POST", offers, json={"options": there})
        assert (refused.status_code, refused.json()["error"]["reason"]) == (409, "not-offered")
    finally:
        for group in held:
            guarded.call(admin, "DELETE", f"/groups/{group}/hold")
        guarded.clear()


def test_what_never_starts_together_keeps_nobody_waiting(guarded: Site) -> None:
    eve, bob = guarded.token("eve"), guarded.token("bob")
    five = {"fgpu": "2", "count": "5", "together": "yes", "name": "gang"}
    checked = guarded.call(eve, "POST", "/sessions/check", json={"options": {**SMALL, **five}}).json()
    assert checked["outlook"]["starts"] == "never"
    asked(guarded, eve, **five)
    assert asked(guarded, bob, fgpu="1", name="mine")["state"] != "PENDING"
    guarded.clear()


def test_one_person_follows_only_so_much_at_a_time(guarded: Site) -> None:
    eve, bob = guarded.token("eve"), guarded.token("bob")
    events = f"{guarded.url}/services/bkai/api/v1/events"

    def follow(client: httpx.Client, token: str, stack: ExitStack) -> httpx.Response:
        headers = {"Authorization": f"token {token}"}
        return stack.enter_context(client.stream("GET", events, headers=headers))

    limits = httpx.Limits(max_connections=None)
    with httpx.Client(trust_env=False, timeout=30, limits=limits) as client, ExitStack() as stack:
        for _ in range(MOST_STREAMS):
            assert follow(client, eve, stack).status_code == 200
        refused = follow(client, eve, stack)
        assert refused.status_code == 429
        assert json.loads(refused.read())["error"]["reason"] == "too-many"
        assert follow(client, bob, stack).status_code == 200


def test_a_trace_without_names_has_none_however_it_is_asked_for(guarded: Site) -> None:
    admin = guarded.token("admin")
    asked(guarded, guarded.token("eve"), name="seen")
    for yes in ("1", "True", "on"):
        answer = guarded.call(admin, "GET", "/usage/trace", params={"anonymous": yes})
        assert answer.status_code == 200
        assert "eve" not in answer.text
    assert guarded.call(admin, "GET", "/usage/trace", params={"anonymous": "please"}).status_code == 400
    assert "eve" in guarded.call(admin, "GET", "/usage/trace").text
    guarded.clear()


@pytest.mark.parametrize(
    "text",
    [
        "users: {x: {priority: 0x" + "f" * 5000 + "}}",
        'groups: {x: {title: "\\ud800"}}',
        'groups: {x: {title: "\\0"}}',
    ],
    ids=["digits", "half a character", "control"],
)
def test_rules_that_no_database_keeps_are_refused(guarded: Site, text: str) -> None:
    answer = guarded.call(guarded.token("admin"), "PUT", "/rules", json={"text": text, "only_check": True})
    assert answer.status_code == 400, answer.text
