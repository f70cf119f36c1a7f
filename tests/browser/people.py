"""People at a browser: Chromium, and a logged-in page of somebody's own."""

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.chain.site import Site

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MINUTE = 60_000


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """One browser; ended with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def log_in(browser: Browser, site: Site, user: str, **context: Any) -> Page:
    """A page of a person's own. An error in a page's script is a failure where it happens."""
    page = browser.new_context(**{"viewport": WIDE, **context}).new_page()
    page.set_default_timeout(MINUTE)
    page.on("pageerror", fail)
    page.goto(f"{site.url}/hub/login")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill("x")
    page.locator("#login_submit").click()
    page.wait_for_url("**/hub/**")
    return page


def fail(error: Exception) -> None:
    """What a page's script did not catch."""
    raise AssertionError(f"an error in the page: {error}")


def overflows(page: Page) -> bool:
    """Whether the page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))
