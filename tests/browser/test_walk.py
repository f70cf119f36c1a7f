"""The main job in a real browser: choose an image version and a slice, wait in the queue, work in JupyterLab, stop.

Ada holds the only card. Bob asks, reads why he waits, arrives in JupyterLab when Ada stops, and runs a cell that
prints the imported library's version and his slice as the lease API has it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.people import chromium
from tests.chain.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.hub, pytest.mark.timeout(900)]
MINUTE = 60_000
CELL = (
    "import sklearn\n"
    "from jupyterhub_bkai.client import current_session\n"
    "session = current_session()\n"
    "print('library', sklearn.__version__, 'slice', session.accelerator, '/', session.enforcement)"
)


@pytest.fixture
def browser(needs: Callable[..., str]) -> Iterator[Browser]:
    with chromium(needs("chromium", "google-chrome")) as browser:
        yield browser


def log_in(browser: Browser, site: Site, user: str) -> Page:
    """A person at a browser of their own, logged in."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(MINUTE)
    page.goto(f"{site.url}/hub/login")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill("x")
    page.locator("#login_submit").click()
    page.wait_for_url("**/hub/**")
    return page


def choose(page: Page, site: Site, user: str, name: str, version: str, fgpu: str) -> None:
    """The form, as a person fills it in."""
    page.goto(f"{site.url}/hub/spawn/{user}/{name}")
    page.locator(f"input[name=version][value='{version}']").check(force=True)
    page.locator("input[name=accelerator][value=cuda]").check(force=True)
    page.locator("#bkai-fgpu").fill(fgpu)
    page.locator("#bkai-cpu").fill("0.5")
    page.locator("#bkai-memory").fill("1g")


def test_from_login_to_a_cell_and_back(site: Site, browser: Browser, tmp_path: Path) -> None:
    ada, bob = site.token("ada"), site.token("bob")
    asked = {
        "options": {"name": "first", "fgpu": "2", "version": "python/3.11", "cpu": "0.5", "memory": "256m"}
    }
    (held,) = site.call(ada, "POST", "/sessions", json=asked).json()["sessions"]
    site.running(ada, held["id"])

    page = log_in(browser, site, "bob")
    choose(page, site, "bob", "lab", "sklearn/1.7", "1")
    expect(page.locator("body")).to_contain_text("It needs 1 fGPU on one device", timeout=MINUTE)
    page.screenshot(path=tmp_path / "form.png", full_page=True)
    page.get_by_role("button", name="Join the queue").click()

    expect(page.locator("body")).to_contain_text("number 1", timeout=MINUTE, ignore_case=True)
    page.screenshot(path=tmp_path / "waiting.png", full_page=True)
    assert site.states(bob) == {"lab": "PENDING"}

    site.call(ada, "DELETE", f"/sessions/{held['id']}")
    page.wait_for_url("**/user/bob/lab/lab**", timeout=5 * MINUTE)
    (session,) = site.sessions(bob)
    assert session["image"] == "sklearn/1.7"

    text = run_cell(page, f"{site.url}/user/bob/lab/lab")
    page.screenshot(path=tmp_path / "lab.png")
    assert "library 1.7.2" in text
    assert f"slice {session['accelerator']} / booked, not enforced" in text
    assert session["accelerator"].startswith("1 fGPU (50 % of ")

    page.goto(f"{site.url}/services/bkai/")
    page.locator("li.bkai-session", has_text="lab").locator("[data-action='Stop']").click()
    confirm = page.get_by_role("dialog").get_by_role("button", name="Stop")
    confirm.click()
    site.until(lambda: not site.sessions(bob), 60, "bob's session has ended")
    page.screenshot(path=tmp_path / "sessions.png", full_page=True)
    nodes = site.call(bob, "GET", "/devices").json()["nodes"]
    assert all(device["booked_mib"] == 0 for node in nodes for device in node["devices"])


def test_three_by_one_form(site: Site, browser: Browser) -> None:
    """Two fGPU, one submission of three sessions of one: two run, one waits; stop one and the third runs."""
    token = site.token("bob")
    page = log_in(browser, site, "bob")
    choose(page, site, "bob", "train", "python/3.11", "1")
    page.get_by_text("More: name, how many").click()
    page.locator("#bkai-count").fill("3")
    page.locator("#bkai-cpu").fill("0.1")
    page.locator("#bkai-memory").fill("256m")
    page.get_by_role("button", name="Start 3 sessions").click()
    site.until(
        lambda: sorted(site.states(token).values()) == ["PENDING", "RUNNING", "RUNNING"],
        180,
        "2 RUNNING + 1 PENDING",
    )
    page.goto(f"{site.url}/services/bkai/")
    expect(page.locator("li.bkai-session[data-state=PENDING]")).to_contain_text(
        "It needs 1 fGPU on one device"
    )
    expect(page.locator("li.bkai-session[data-state=RUNNING]")).to_have_count(2)
    page.locator("li.bkai-session[data-state=RUNNING]").first.locator("[data-action='Stop']").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    site.until(lambda: sorted(site.states(token).values()) == ["RUNNING", "RUNNING"], 90, "the third runs")
    expect(page.locator("li.bkai-session[data-state=PENDING]")).to_have_count(0)


def run_cell(page: Page, lab: str) -> str:
    """Opens a notebook in JupyterLab, runs one cell, and gives what it printed."""
    page.goto(f"{lab}?reset")  # a workspace with nothing but the launcher
    page.locator(".jp-LauncherCard[data-category='Notebook']").first.click()
    # What is run before there is a kernel, JupyterLab forgets.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=2 * MINUTE)
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    cell.click()
    page.keyboard.insert_text(CELL)
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-Notebook .jp-OutputArea-output").first
    output.wait_for(timeout=2 * MINUTE)
    return output.inner_text()
