"""Servers made for one run only are forgotten by the Hub, however the run ends."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.chain.site import Site

pytestmark = pytest.mark.hub


def test_the_hub_forgets_what_was_asked_for_one_run(site: Site) -> None:
    token = site.token("ada")
    found = []
    for name in ("one", "two", "three", "four"):
        options = {"version": "python/3.11", "fgpu": "1", "cpu": "0.1", "memory": "256m", "name": name}
        answer = site.call(token, "POST", "/sessions", json={"options": options, "keepalive_s": 600})
        assert answer.status_code == 201, answer.text
        found.append(answer.json()["sessions"][0])
    one, two, three, four = found

    def known() -> set[str]:
        """The Hub's servers, stopped ones too."""
        return set(site.hub("GET", "/users/ada?include_stopped_servers=1").json()["servers"])

    site.running(token, one["id"])
    site.running(token, two["id"])
    site.until(lambda: {"three", "four"} <= known(), 20, "the hub waits for the two that wait")
    assert site.call(token, "DELETE", f"/sessions/{three['id']}").status_code == 202
    site.until(lambda: "three" not in known(), 20, "a withdrawn one is forgotten")
    assert site.call(token, "DELETE", f"/sessions/{four['id']}").status_code == 202
    site.kill("service")
    site.until(lambda: "four" not in known(), 30, "also by a service that was killed meanwhile")
    site.until(site._answers, 30, "the service is back")
    assert site.call(token, "DELETE", f"/sessions/{one['id']}").status_code == 202
    site.until(lambda: "one" not in known(), 30, "a stopped one is forgotten")
    assert "two" in known()


def test_who_waits_when_the_site_ends_does_not_start_by_itself_next_time(a_site: Callable[..., Site]) -> None:
    """Also those of whom the Hub does not know yet."""
    site = a_site().start()
    token = site.token("ada")
    options = {
        "version": "python/3.11",
        "fgpu": "2",
        "cpu": "0.1",
        "memory": "256m",
        "name": "s",
        "count": "4",
    }
    answer = site.call(token, "POST", "/sessions", json={"options": options})
    assert answer.status_code == 201, answer.text
    site.running(token, answer.json()["sessions"][0]["id"])
    assert (
        site.call(token, "POST", "/sessions", json={"options": {**options, "name": "late"}}).status_code
        == 201
    )
    site.stop()
    with closing(sqlite3.connect(site.data / "bkai.sqlite")) as database:
        states = [state for (state,) in database.execute("SELECT state FROM requests ORDER BY ord")]
    assert states == ["released", *["withdrawn"] * 7]
