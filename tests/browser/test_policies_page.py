"""The page of rules in a real browser: an administrator changes a policy, sees whom that frees, and they start."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.people import PHONE, chromium, log_in, overflows
from tests.chain.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.hub, pytest.mark.timeout(300)]
SHOTS = os.environ.get("BKAI_SHOTS")


@pytest.fixture(scope="module")
def browser(needs: Callable[..., str]) -> Iterator[Browser]:
    with chromium(needs("chromium", "google-chrome")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """The administrator before the page; every rule that a test makes is removed after it."""
    page = log_in(browser, site, "admin")
    open_page(page, site)
    yield page
    page.context.close()
    token = site.token("admin")
    rules = site.call(token, "GET", "/rules").json()["rules"]
    gone = {kind: dict.fromkeys(name for name in rules[kind] if name != "default") for kind in rules}
    put = {**gone, "groups": {**gone["groups"], "default": {"title": "Default", "fgpu_per_gpu": 2, "quantum": 0.1,
        "cpu_overcommit": 50, "session_types": ["interactive", "batch"]}}}  # fmt: skip
    assert site.call(token, "PUT", "/rules", json={"rules": put}).status_code == 200


def open_page(page: Page, site: Site, kind: str = "groups") -> None:
    page.goto(f"{site.url}/services/bkai/admin/policies#{kind}")
    expect(page.locator("#bkai-rules")).not_to_have_attribute("aria-busy", "true")


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def test_an_administrator_allows_more_and_sees_who_starts(page: Page, site: Site) -> None:
    token = site.token("admin")
    assert (
        site.call(
            token, "PUT", "/rules", json={"rules": {"users": {"*": {"limits": {"running": {"sessions": 1}}}}}}
        ).status_code
        == 200
    )
    ada = site.token("ada")
    ask = {"options": {"version": "python/3.11", "cpu": "0.1", "memory": "256m", "name": "wait", "count": 2}}
    assert site.call(ada, "POST", "/sessions", json=ask).status_code == 201
    site.until(
        lambda: sorted(site.states(ada).values()) == ["PENDING", "RUNNING"], 120, "one runs, one waits"
    )
    [waits] = [one for one in site.sessions(ada) if one["state"] == "PENDING"]
    assert waits["why"].startswith("Your policy allows you 1 session running at a time, and 1 session run")

    open_page(page, site, "users")
    page.reload()
    expect(page.get_by_role("tab", name="People")).to_have_attribute("aria-selected", "true")
    shot(page, "policies-users")
    page.get_by_role("button", name="Edit Everybody else").click()
    field = page.get_by_label("Running at a time: sessions")
    expect(field).to_have_value("1")
    field.fill("many")
    page.get_by_role("button", name="See what changes").click()
    expect(page.locator("#bkai-editor")).to_contain_text("“many” is not a number.")
    shot(page, "policies-wrong")
    field.fill("2")
    page.get_by_role("button", name="See what changes").click()
    review = page.locator("#bkai-review")
    expect(review).to_contain_text("limits.running.sessions: 1 2")
    expect(review).to_contain_text("1 who waits starts by this:")
    expect(review).to_contain_text(f"ada / {waits['server']}")
    shot(page, "policies-review")
    page.get_by_role("button", name="Change it").click()
    expect(review).to_be_hidden()
    expect(page.locator("#bkai-rules")).to_contain_text("Running at a time: sessions 2")
    site.until(lambda: list(site.states(ada).values()) == ["RUNNING", "RUNNING"], 60, "both run")


def test_groups_are_edited_opened_filtered_and_removed(page: Page, site: Site) -> None:
    page.get_by_role("button", name="New resource group").click()
    page.get_by_label("Name", exact=True).fill("../evil")
    page.get_by_role("button", name="See what changes").click()
    expect(page.locator("#bkai-editor")).to_contain_text("a name has 1 to 64 of letters")
    page.get_by_label("Name", exact=True).fill("teaching")
    page.get_by_label("Title").fill("<b>Teaching</b>")
    page.get_by_label("Who is next").select_option("fair")
    page.get_by_label("In all at a time: memory").fill("16g")
    shot(page, "policies-editor")
    page.get_by_role("button", name="See what changes").click()
    page.get_by_role("button", name="Change it").click()
    row = page.locator('[data-rule="teaching"]')
    expect(row).to_contain_text("<b>Teaching</b>")
    expect(row).to_contain_text("Who is next: fair")
    rules = site.call(site.token("admin"), "GET", "/rules").json()["rules"]["groups"]
    assert rules["teaching"] == {
        "title": "<b>Teaching</b>",
        "queue": {"discipline": "fair"},
        "limits": {"total": {"memory": "16g"}},
    }
    row.get_by_role("switch").click()
    page.get_by_role("button", name="Change it").click()
    expect(row).to_contain_text("closed")
    options = site.call(site.token("ada"), "GET", "/options").json()["offer"]["groups"]
    assert [group["name"] for group in options] == ["default"]
    page.get_by_label("only closed ones").check()
    expect(page.locator("[data-rule]")).to_have_count(1)
    page.get_by_label("only closed ones").uncheck()
    page.locator("#bkai-filter").fill("nobody")
    expect(page.locator("#bkai-empty")).to_have_text("No name has that in it.")
    page.locator("#bkai-filter").fill("teach")
    shot(page, "policies-groups")
    page.get_by_role("button", name="Remove <b>Teaching</b>").click()
    page.get_by_role("button", name="Yes, remove it").click()
    expect(page.locator("[data-rule]")).to_have_count(0)


def test_somebody_else_changed_it_meanwhile(page: Page, site: Site) -> None:
    page.get_by_role("button", name="Edit Default").click()
    page.get_by_label("Title").fill("Mine")
    page.get_by_role("button", name="See what changes").click()
    expect(page.locator("#bkai-review")).to_be_visible()
    other = {"rules": {"presets": {"small": {"options": {"cpu": 1}}}}}
    assert site.call(site.token("admin"), "PUT", "/rules", json=other).status_code == 200
    page.get_by_role("button", name="Change it").click()
    expect(page.locator("#bkai-editor-trouble")).to_contain_text(
        "Somebody else has changed the rules meanwhile"
    )
    expect(page.get_by_label("Title")).to_have_value("Mine")
    page.get_by_role("button", name="See what changes").click()
    page.get_by_role("button", name="Change it").click()
    expect(page.locator('[data-rule="default"]')).to_contain_text("Mine")


def test_on_a_phone_and_in_the_dark_and_by_keyboard(browser: Browser, site: Site) -> None:
    page = log_in(browser, site, "admin", viewport=PHONE, color_scheme="dark")
    open_page(page, site)
    page.keyboard.press("Tab")
    assert not overflows(page)
    shot(page, "policies-phone")
    page.get_by_role("button", name="Edit Default").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#bkai-editor")).to_be_visible()
    shot(page, "policies-phone-editor")
    page.keyboard.press("Escape")
    expect(page.locator("#bkai-editor")).to_be_hidden()
    page.get_by_role("tab", name="Resource groups").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="People")).to_be_focused()
    expect(page.locator("#bkai-empty")).to_contain_text("No person has a policy")
    page.context.close()


def test_others_are_refused(browser: Browser, site: Site) -> None:
    page = log_in(browser, site, "ada")
    page.goto(f"{site.url}/services/bkai/admin/policies")
    expect(page.get_by_role("alert")).to_contain_text("Only administrators see this page")
    page.context.close()
    assert site.call(site.token("ada"), "GET", "/rules").status_code == 403
    assert site.call(site.token("ada"), "PUT", "/rules", json={"rules": {}}).status_code == 403


def test_a_preset_fills_the_form(page: Page, browser: Browser, site: Site) -> None:
    small = {"title": "Small", "options": {"cpu": 0.5, "memory": "300m", "fgpu": 0.5}}
    change = {"rules": {"presets": {"small": small, "closed": {**small, "public": False}}}}
    assert site.call(site.token("admin"), "PUT", "/rules", json=change).status_code == 200
    ada = log_in(browser, site, "ada")
    ada.goto(f"{site.url}/hub/spawn/ada")
    expect(ada.locator("#bkai-preset")).to_be_visible()
    assert ada.locator("input[name=preset]").count() == 2
    ada.locator("input[name=preset][value=small]").check()
    expect(ada.locator("#bkai-cpu")).to_have_value("0.5")
    expect(ada.locator("#bkai-memory")).to_have_value("300m")
    expect(ada.locator("#bkai-fgpu")).to_have_value("0.5")
    expect(ada.locator("#bkai-gpu")).to_have_value("0.25")
    ada.locator("#bkai-more summary").click()
    ada.locator("#bkai-priority").fill("90")
    expect(ada.locator("#bkai-priority-error")).to_contain_text("at most 10")
    shot(ada, "form-preset")
    ada.context.close()
