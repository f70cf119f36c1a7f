"""Notices of a whole site: the service is killed meanwhile; what people choose, and what administrators see."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chain.site import SETTINGS, Site, remove
from tests.notices.receiving import Receiver, mails

pytestmark = [pytest.mark.hub, pytest.mark.timeout(300)]

NOTICES = """\
warn_before: [45s]
notices:
  webhook: {{url: "http://127.0.0.1:{port}/hook", secret_file: webhook.key}}
  email: {{smtp: "127.0.0.1:{smtp}", from: bkai@example.org, to: "{{user}}@example.org", security: none,
    own_address: true}}
"""


@pytest.fixture
def told_site(
    a_site: Callable[..., Site], receiver: Receiver, post_office: tuple[int, Path]
) -> Iterator[Site]:
    """A site of its own that tells people."""
    port = int(receiver.url.split(":")[2].split("/")[0])
    told = NOTICES.format(port=port, smtp=post_office[0]).replace("{", "{{").replace("}", "}}")
    one = a_site(settings=SETTINGS + told)
    one.prepare()
    (one.data / "webhook.key").write_text("a-key-for-tests")
    yield one.start()
    remove(one)


def kinds(receiver: Receiver) -> list[str]:
    return [json.loads(body)["kind"] for _, _, body in receiver.once.values()]


def test_warned_and_ended_each_once_through_a_killed_service(
    told_site: Site, receiver: Receiver, post_office: tuple[int, Path]
) -> None:
    site, ada, admin = told_site, told_site.token("ada"), told_site.token("admin")
    assert site.call(ada, "GET", "/notices").status_code == 403
    receiver.mood = 500  # what is written cannot be delivered before the service is killed
    options = {"version": "python/3.11", "cpu": "0.5", "memory": "256m", "duration": "1m", "name": "train"}
    [one] = site.call(ada, "POST", "/sessions", json={"options": options}).json()["sessions"]
    site.running(ada, one["id"])
    warned = site.until(lambda: shown(site, ada, one["id"])["warning"], 60, "it is warned")
    assert "Your session train ends in " in warned["message"]
    site.until(lambda: receiver.posts, 30, "it was tried")
    before = site.kill("service")
    site.until(lambda: site.pid("service") != before and site._answers(), 60, "the service is back")
    again = shown(site, ada, one["id"])
    assert again["warning"] in (warned, None)  # None when it has ended meanwhile
    site.until(lambda: shown(site, ada, one["id"])["ended"], 90, "it has ended")
    receiver.mood = 200
    site.until(lambda: sorted(kinds(receiver)) == ["ended", "ending"], 120, "both have arrived")
    site.until(lambda: len(mails(post_office[1])) >= 2, 30, "and both mails")
    assert {mail["Subject"] for mail in mails(post_office[1])} == {
        "[bkai] train ends soon",
        "[bkai] train has ended",
    }
    both = {(kind, way) for kind in ("ended", "ending") for way in ("webhook", "email")}

    def delivered() -> Any:
        found = site.call(admin, "GET", "/notices", params={"state": "delivered"}).json()["notices"]
        return found if {(row["kind"], row["way"]) for row in found} == both else None

    found = site.until(delivered, 30, "all are known to be delivered")
    assert [row["tries"] > 1 for row in found if row["way"] == "webhook"] == [True, True]
    assert all(row["user"] == "ada" and row["session"] == one["id"] for row in found)
    log = (site.data / "log" / "service.log").read_text()
    assert "it answered 500" in log
    assert "/hook" not in log
    assert "a-key-for-tests" not in log
    for name in ("bkai.sqlite", "bkai.sqlite-wal"):
        assert b"a-key-for-tests" not in (site.data / name).read_bytes()


def shown(site: Site, token: str, id: str) -> dict[str, Any]:
    return dict(site.call(token, "GET", f"/sessions/{id}").json())


def test_people_choose_for_themselves(told_site: Site) -> None:
    site, ada, bob = told_site, told_site.token("ada"), told_site.token("bob")
    now = site.call(ada, "GET", "/me/notices").json()
    assert now["ways"] == ["webhook", "email"]
    assert now["address"] == "ada@example.org"
    assert all(kind["wanted"] for kind in now["kinds"])
    new = site.call(ada, "PUT", "/me/notices", json={"off": ["extended"], "address": "ada@home.example"})
    assert new.status_code == 200, new.text
    assert new.json()["address"] == "ada@home.example"
    assert [kind["kind"] for kind in new.json()["kinds"] if not kind["wanted"]] == ["extended"]
    for body in (
        {"off": ["everything"]},
        {"address": "a@b\nBcc: x@y"},
        {"address": "x"},
        {"off": "ended"},
        {"off": [1]},
    ):
        assert site.call(ada, "PUT", "/me/notices", json=body).status_code == 400, body
    assert site.call(bob, "GET", "/me/notices").json()["address"] == "bob@example.org"
    before = site.kill("service")
    site.until(lambda: site.pid("service") != before and site._answers(), 60, "the service is back")
    assert site.call(ada, "GET", "/me/notices").json() == new.json()
