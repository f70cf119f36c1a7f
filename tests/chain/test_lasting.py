"""More time for a session, by the REST of a whole site: who may ask, and what it answers."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.chain.site import Site

pytestmark = [pytest.mark.hub, pytest.mark.timeout(300)]


def ask(site: Site, token: str, **options: str) -> dict[str, Any]:
    body = {"options": {"version": "python/3.11", "cpu": "0.5", "memory": "256m", **options}}
    answer = site.call(token, "POST", "/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json()["sessions"][0])


@pytest.fixture
def running(site: Site) -> Iterator[dict[str, Any]]:
    """Ada's session with the whole card, for two hours."""
    ada = site.token("ada")
    one = ask(site, ada, name="train", fgpu="2", duration="2h")
    yield site.running(ada, one["id"])
    site.clear()


def test_more_time_while_nobody_starts_later(site: Site, running: dict[str, Any]) -> None:
    ada, bob, path = site.token("ada"), site.token("bob"), f"/sessions/{running['id']}/extend"
    ends = datetime.fromisoformat(running["deadline"])
    assert site.call(ada, "GET", path).json()["seconds"] > 300 * 86400
    longer = site.call(ada, "POST", path, json={"by": "1h"})
    assert datetime.fromisoformat(longer.json()["deadline"]) == ends + timedelta(hours=1)
    for body in ({"by": "soon"}, {"by": "0"}, {"by": "999999d"}, {"by": "-2h"}):
        assert site.call(ada, "POST", path, json=body).status_code == 400
    assert site.call(bob, "POST", path, json={"by": "1h"}).status_code == 404

    ask(site, bob, fgpu="1", duration="1h")
    room = site.call(ada, "GET", path).json()
    assert room["seconds"] == 0
    assert room["why"].startswith("a request that waits is to start by ")
    refused = site.call(ada, "POST", path, json={"by": "1h"})
    assert refused.status_code == 409
    assert refused.json()["error"]["reason"] == "not-extended"
    assert refused.json()["error"]["message"] == f"It cannot go on for longer: {room['why']}."


def test_a_sessions_own_token_extends_that_session_alone(site: Site, running: dict[str, Any]) -> None:
    scopes = ["access:services!service=bkai", "access:servers!server=ada/train", "read:users:name!user"]
    own = site.token("ada", scopes=scopes)
    assert site.call(own, "POST", f"/sessions/{running['id']}/extend", json={"by": "1h"}).status_code == 200
    other = ask(site, site.token("ada"), name="other", duration="2h")
    assert site.call(own, "POST", f"/sessions/{other['id']}/extend", json={"by": "1h"}).status_code == 403
