"""The page of sessions in a real browser, in front of a real hub and service.

What a session does inside is not looked at here: waiting ones are enough, with one that holds the only card. Lists
that no site of a test has (many, hostile) are put in the service's mouth on the way to the page.
"""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.people import MINUTE, PHONE, chromium, log_in, overflows
from tests.chain.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.hub, pytest.mark.timeout(300)]
EVIL = """<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>'"&"""


@pytest.fixture(scope="module")
def browser(needs: Callable[..., str]) -> Iterator[Browser]:
    with chromium(needs("chromium", "google-chrome")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """Ada before her list."""
    page = log_in(browser, site, "ada")
    open_list(page, site)
    yield page
    page.context.close()


def open_list(page: Page, site: Site, query: str = "") -> None:
    page.goto(f"{site.url}/services/bkai/{query}")
    expect(page.locator("#bkai-live")).not_to_have_attribute("aria-busy", "true")


@pytest.fixture
def held(site: Site) -> Iterator[str]:
    """Bob holds the only card; the id of his session."""
    bob = site.token("bob")
    [one] = ask(site, bob, name="hog", fgpu="2")
    yield one["id"]
    site.call(bob, "DELETE", f"/sessions/{one['id']}")
    site.until(lambda: not site.sessions(bob), 60, "the card is free again")


def ask(site: Site, token: str, **options: str) -> list[dict[str, Any]]:
    body = {"options": {"version": "python/3.11", "cpu": "0.5", "memory": "256m", **options}}
    answer = site.call(token, "POST", "/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return list(answer.json()["sessions"])


def row(page: Page, name: str) -> Any:
    return page.locator("#bkai-live li.bkai-session").filter(has=page.get_by_text(name, exact=True))


def session(number: int, **changes: Any) -> dict[str, Any]:
    """A session as the service's JSON has one."""
    name = f"s-{number}"
    found: dict[str, Any] = {
        "id": f"{number:026d}",
        "user": "ada",
        "server": name,
        "name": name,
        "url": f"/user/ada/{name}/",
        "image": "python/3.11",
        "group": "default",
        "project": None,
        "session_type": "interactive",
        "state": "PENDING",
        "state_since": "2026-01-01T00:00:00.000Z",
        "position": number,
        "why": "It waits.",
        "progress": None,
        "accelerator": "no accelerator",
        "fgpu": None,
        "share": None,
        "slices": [],
        "cpu": 1.0,
        "memory_mib": 1024,
        "shm_mib": 64,
        "asked": "2026-01-01T00:00:00.000Z",
        "granted": None,
        "started": None,
        "ended": None,
        "deadline": None,
        "cause": None,
        "message": None,
        "node": None,
        "enforcement": "booked, not enforced",
        "fake": True,
    }
    return found | changes


def put_in_mouth(page: Page, sessions: list[dict[str, Any]]) -> None:
    """The list that the page loads is this one."""

    def answer(route: Route) -> None:
        route.fulfill(status=200, content_type="application/json", body=json.dumps({"sessions": sessions}))

    page.route(re.compile(r"/api/v1/sessions(\?.*)?$"), answer)


def test_an_empty_list_says_what_to_do(page: Page, site: Site) -> None:
    expect(page.locator("#bkai-empty")).to_contain_text("No session just now")
    page.get_by_role("link", name="Start a session").click()
    page.wait_for_url("**/hub/spawn/ada")
    expect(page.get_by_role("heading", name="New session")).to_be_visible()


def test_more_time_as_far_as_others_leave_it(page: Page, site: Site, tmp_path: Path) -> None:
    ada, bob = site.token("ada"), site.token("bob")
    [mine] = ask(site, ada, name="mine", fgpu="2", duration="2h")
    site.running(ada, mine["id"])
    more = row(page, "mine").get_by_role("button", name="More time for mine")
    expect(more).to_be_visible()
    more.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="More time for mine")
    expect(dialog.get_by_role("combobox")).to_have_value("3600s")
    dialog.get_by_role("combobox").select_option("2 h")
    shots(page, tmp_path, "more-time")
    dialog.get_by_role("button", name="Extend").click()
    expect(row(page, "mine")).to_contain_text(re.compile("3 h 5[89] min left"))

    ask(site, bob, name="waits", fgpu="1", duration="1h")
    more.click()
    expect(dialog).to_contain_text("It cannot go on for longer: a request that waits is to start by")
    expect(dialog.get_by_role("button", name="Extend")).to_be_hidden()
    page.set_viewport_size({"width": 390, "height": 844})
    assert not overflows(page)
    shots(page, tmp_path, "no-more-time-phone")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    site.clear()


def test_a_warning_of_the_end_is_shown(page: Page, site: Site, tmp_path: Path) -> None:
    warning = {"id": "w", "at": "2026-01-01T00:00:00.000Z", "message": f"Your session ends in 9 min. {EVIL}"}
    running = {"state": "RUNNING", "position": None, "why": None, "warning": warning}
    put_in_mouth(page, [session(1, **running, deadline="2099-01-01T00:00:00.000Z")])
    open_list(page, site)
    expect(row(page, "s-1")).to_contain_text(f"Your session ends in 9 min. {EVIL}")
    assert page.evaluate("window.hurt") is None
    shots(page, tmp_path, "warning")


def shots(page: Page, folder: Path, name: str) -> None:
    """Pictures in both colour schemes, to be looked at."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=Path(os.environ.get("BKAI_SHOTS", folder)) / f"{name}-{scheme}.png")


def test_a_smaller_wish_that_would_start_now_is_offered_and_taken(
    page: Page, site: Site, tmp_path: Path
) -> None:
    """Bob has half of the card, and Ada asks for all of it."""
    ada, bob = site.token("ada"), site.token("bob")
    site.running(bob, ask(site, bob, name="half", fgpu="1")[0]["id"])
    (whole,) = ask(site, ada, name="whole", fgpu="2")
    waits = row(page, "whole")
    expect(waits).to_contain_text("It needs 2 fGPU on one device; at most 1 fGPU is free on one.")
    offer = waits.get_by_role("button", name="Start now with 1 fGPU")
    expect(offer).to_be_visible()
    page.screenshot(path=tmp_path / "offer.png")
    offers = site.call(ada, "GET", f"/sessions/{whole['id']}/offers").json()["offers"]
    assert offers == [{"options": {"fgpu": "1"}, "text": "Start now with 1 fGPU"}]
    assert site.call(bob, "POST", f"/sessions/{whole['id']}/offers", json=offers[0]).status_code == 404
    wrong = site.call(ada, "POST", f"/sessions/{whole['id']}/offers", json={"options": {"fgpu": "1.5"}})
    assert (wrong.status_code, wrong.json()["error"]["reason"]) == (409, "not-offered")
    offer.focus()
    page.keyboard.press("Enter")
    expect(waits.locator(".bkai-state")).to_have_text("RUNNING", timeout=MINUTE)
    assert site.running(ada, whole["id"])["fgpu"] == "1"
    moves = site.call(ada, "GET", f"/sessions/{whole['id']}/transitions").json()["transitions"]
    assert [move["why"] for move in moves][:2] == ["asked", "Start now with 1 fGPU"]


def test_a_request_comes_waits_with_its_reason_and_is_cancelled(page: Page, site: Site, held: str) -> None:
    ada = site.token("ada")
    ask(site, ada, name="first", fgpu="1")
    ask(site, ada, name="second", fgpu="1")
    first, second = row(page, "first"), row(page, "second")
    expect(first.locator(".bkai-state")).to_have_text("PENDING")
    expect(first).to_contain_text("Next in the queue of Default")
    expect(first).to_contain_text("It needs 1 fGPU on one device; no fGPU is free.")
    expect(first).to_contain_text("1 fGPU (50 % of a device)")
    expect(second).to_contain_text("Number 2 in the queue of Default")
    expect(page.locator("#bkai-capacity")).to_contain_text("2 requests wait")
    expect(page.locator("#bkai-capacity")).to_contain_text("0 % free")

    first.get_by_role("button", name="Cancel first").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("It loses its place in the queue (number 1).")
    dialog.get_by_role("button", name="Keep waiting").click()
    assert site.states(ada) == {"first": "PENDING", "second": "PENDING"}
    first.get_by_role("button", name="Cancel first").click()
    dialog.get_by_role("button", name="Yes, cancel it").click()
    expect(second).to_contain_text("Next in the queue of Default")
    expect(first).to_have_count(0)
    page.locator("#bkai-ended summary").click()
    ended = page.locator("#bkai-past li", has_text="first")
    expect(ended).to_contain_text("Cancelled by ada.")
    expect(ended.locator(".bkai-state")).to_have_text("CANCELLED")
    [rest] = site.sessions(ada)
    site.call(ada, "DELETE", f"/sessions/{rest['id']}")
    expect(page.locator("#bkai-empty")).to_be_visible()


def test_new_session_leads_to_a_name_that_is_free(page: Page, site: Site, held: str) -> None:
    ada = site.token("ada")
    new = page.get_by_role("link", name="New session")
    assert (new.get_attribute("href") or "").endswith("/hub/spawn/ada")
    site.hub("POST", "/users/ada/server", json={"version": "python/3.11", "fgpu": "1", "memory": "256m"})
    expect(row(page, "Default session")).to_be_visible()
    expect(new).to_have_attribute("href", re.compile("/hub/spawn/ada/session-2$"))
    new.click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("session-2")
    # Opening a form makes nothing: neither the Hub nor its pages know such a server.
    known = site.hub("GET", "/users/ada?include_stopped_servers=1").json()["servers"]
    assert "session-2" not in known
    page.goto(f"{site.url}/hub/home")
    expect(page.locator(".home-server-row[data-state=PENDING]")).to_contain_text("Default session")
    expect(page.get_by_text("session-2")).to_have_count(0)
    site.hub("DELETE", "/users/ada/server")
    site.until(lambda: not site.sessions(ada), 30, "the default session is withdrawn")


def test_administrators_see_everyone_and_filter(browser: Browser, site: Site, held: str) -> None:
    page = log_in(browser, site, "admin")
    page.goto(f"{site.url}/hub/admin")
    page.get_by_role("link", name="Everyone’s sessions").click()
    expect(row(page, "hog")).to_contain_text("bob")
    expect(row(page, "hog").get_by_role("link", name="Open hog")).to_have_count(0)
    tab = page.get_by_role("tab", name="Everyone’s")
    expect(tab).to_have_attribute("aria-selected", "true")
    page.get_by_label("Show only sessions of").fill("nobody")
    expect(page.locator("#bkai-empty")).to_contain_text("“nobody”")
    page.get_by_label("Show only sessions of").fill("BO")
    expect(row(page, "hog")).to_be_visible()
    tab.press("ArrowLeft")
    expect(page.get_by_role("tab", name="Mine")).to_be_focused()
    expect(page.locator("#bkai-empty")).to_contain_text("No session just now")
    page.context.close()


def test_others_see_their_own_only(page: Page, site: Site, held: str) -> None:
    open_list(page, site, "?everyone")
    expect(page.locator("#bkai-empty")).to_be_visible()
    expect(page.get_by_role("tab")).to_have_count(0)
    assert "bob" not in page.content()


def test_hostile_texts_are_shown_as_texts(page: Page, site: Site) -> None:
    slices = [
        {"device": "d", "index": 0, "slot": "cuda", "model": EVIL, "share": "1/4", "fgpu": "0.5", "mig": None}
    ]
    evil = dict.fromkeys(("server", "name", "image", "group", "why", "accelerator", "session_type"), EVIL)
    put_in_mouth(
        page,
        [
            session(1, **evil, progress={"percent": 50, "message": EVIL}, slices=slices, node=EVIL),
            session(2, **evil, state="ERROR", ended="2999-01-01T00:00:00Z", message=EVIL, cause=EVIL),
        ],
    )
    open_list(page, site)
    item = page.locator("#bkai-live li.bkai-session")
    for part in (".bkai-name", ".bkai-why", ".bkai-where", ".bkai-slice"):
        expect(item.locator(part)).to_contain_text(EVIL)
    item.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_contain_text(EVIL)
    page.get_by_role("dialog").get_by_role("button", name=re.compile("Keep|Let it start")).click()
    assert page.evaluate("window.hurt") is None
    assert page.locator("#bkai-sessions img, #bkai-sessions script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_hundred_with_long_names_fit_a_phone(browser: Browser, site: Site, scheme: str) -> None:
    page = log_in(browser, site, "ada", viewport=PHONE, color_scheme=scheme)
    long = "a" * 30
    put_in_mouth(page, [session(n, server=long, image="x" * 80, why="y" * 300) for n in range(1, 201)])
    open_list(page, site)
    expect(page.locator("#bkai-live li.bkai-session")).to_have_count(200)
    assert not overflows(page)
    page.context.close()


def test_a_lost_service_is_said_and_found_again(page: Page, site: Site, held: str) -> None:
    ada = site.token("ada")
    [mine] = ask(site, ada, name="mine", fgpu="1")
    expect(row(page, "mine")).to_be_visible()
    # Stopped, the service cannot be restarted by the supervisor before the page has noticed its silence.
    os.kill(site.pid("service"), signal.SIGSTOP)
    expect(page.locator("#bkai-lost")).to_contain_text("is lost. This is how things were", timeout=60_000)
    expect(row(page, "mine")).to_be_visible()
    os.kill(site.pid("service"), signal.SIGCONT)
    site.kill("service")
    expect(page.locator("#bkai-lost")).to_be_hidden(timeout=90_000)
    site.call(ada, "DELETE", f"/sessions/{mine['id']}")
    expect(row(page, "mine")).to_have_count(0)


def test_a_stream_that_ends_in_order_is_taken_up_again_without_a_word(
    page: Page, site: Site, held: str
) -> None:
    """The service ends streams after a while. What comes after two such ends can only come by a third stream."""

    def answer(route: Route) -> None:
        route.fulfill(status=200, content_type="text/event-stream", body="event: ready\ndata: {}\n\n")

    page.add_init_script(
        """document.addEventListener("DOMContentLoaded", () => new MutationObserver(() => { window.worried = true; })
            .observe(document.getElementById("bkai-lost"), { childList: true }));"""
    )
    page.route("**/api/v1/events", answer, times=2)
    open_list(page, site)
    with page.expect_request("**/api/v1/events"):
        pass
    ada = site.token("ada")
    [mine] = ask(site, ada, name="late", fgpu="1")
    expect(row(page, "late")).to_be_visible()
    assert page.evaluate("window.worried") is None
    site.call(ada, "DELETE", f"/sessions/{mine['id']}")
    expect(row(page, "late")).to_have_count(0)


def test_a_login_that_has_run_out_is_said(page: Page, site: Site) -> None:
    page.context.clear_cookies()
    site.kill("service")  # the page connects again, and finds that nobody is logged in
    expect(page.locator("#bkai-lost")).to_contain_text("Your login has run out.", timeout=60_000)
    page.get_by_role("link", name="Log in again").click()
    expect(page.get_by_label("Username")).to_be_visible()


def test_the_page_needs_a_login_and_is_not_framed(site: Site, page: Page) -> None:
    answer = page.request.get(f"{site.url}/services/bkai/")
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    page.context.clear_cookies()
    page.goto(f"{site.url}/services/bkai/")
    expect(page.get_by_label("Username")).to_be_visible()
