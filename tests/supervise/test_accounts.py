"""Accounts as people meet them: sign up, wait, be let in, change a password; and what must not work."""

import os
import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.chain.site import Site
from tests.supervise.running import ACCOUNTS, TINY, Running

pytestmark = pytest.mark.hub
PASSWORD = "battery-horse-1"


class Person:
    """Somebody with a browser of their own."""

    def __init__(self, site: Site) -> None:
        self.browser = httpx.Client(
            base_url=site.url,
            trust_env=False,
            follow_redirects=True,
            timeout=30,
            limits=httpx.Limits(max_keepalive_connections=0),  # nothing to close at the end
        )

    def fill(self, page: str, **fields: str) -> httpx.Response:
        """Fill in the form of a page and send it."""
        token = re.search(r'name="_xsrf" value="([^"]*)"', self.browser.get(page).text)
        assert token is not None, page
        return self.browser.post(page, data={"_xsrf": token[1], **fields})

    def sign_up(self, name: str, password: str = PASSWORD, again: str | None = None) -> str:
        answer = self.fill(
            "/hub/signup",
            username=name,
            signup_password=password,
            signup_password_confirmation=password if again is None else again,
        )
        return said(answer.text, "alert")

    def sign_in(self, name: str, password: str = PASSWORD) -> str:
        """What the login form says; empty when it lets in."""
        answer = self.fill("/hub/login?next=/hub/home", username=name, password=password)
        return "" if answer.url.path == "/hub/home" else said(answer.text, "login_error")

    def press(self, path: str) -> httpx.Response:
        """A button of the page of accounts."""
        token = re.search(r'name="_xsrf" value="([^"]*)"', self.browser.get("/hub/authorize").text)
        return self.browser.post(path, data={"_xsrf": token[1] if token else ""})


def said(page: str, kind: str) -> str:
    found = re.search(rf'class="{kind}[^"]*"[^>]*>\s*(.*?)\s*<', page, re.DOTALL)
    assert found is not None, page
    return found[1].replace("&#39;", "'")


@pytest.fixture(scope="module")
def lab(a_site: Callable[..., Site]) -> Iterator[tuple[Site, Person]]:
    """A running site with accounts, and its administrator, logged in."""
    one = Running(a_site(more=TINY, settings=ACCOUNTS))
    try:
        one.up()
        password = re.search(r"^    password  (\S+)$", one.said(), re.MULTILINE)
        assert password is not None
        if os.geteuid() == 0:  # accounts of their own, and one address for all: what is missing is said
            assert "Set subdomain_host in bkai.yaml" in one.said()
        administrator = Person(one.site)
        assert administrator.sign_in("admin", password[1]) == ""
        yield one.site, administrator
    finally:
        one.end()


def test_from_signing_up_to_a_changed_password(lab: tuple[Site, Person]) -> None:
    site, administrator = lab
    bob = Person(site)
    assert bob.sign_up("bob") == "Your account waits for an administrator's approval; then you can sign in."
    assert bob.sign_in("bob") == "Your account waits for an administrator's approval."
    assert bob.sign_in("bob", "wrong") == "Invalid username or password"
    waiting = re.compile(r'<span class="badge[^>]*>1</span>\s*account waits\s+for approval')
    for page in ("/hub/home", "/hub/token", "/hub/admin"):
        assert waiting.search(administrator.browser.get(page).text), page
    assert ">1 waiting</span>" in administrator.browser.get("/hub/admin").text
    assert administrator.press("/hub/authorize/bob").url.path == "/hub/authorize"
    assert "for approval" not in administrator.browser.get("/hub/home").text
    assert bob.sign_in("bob") == ""
    assert "change-password" in bob.browser.get("/hub/home").text
    Person(site).sign_up("ann")
    assert "for approval" not in bob.browser.get("/hub/home").text
    administrator.press("/hub/discard/ann")
    changed = bob.fill(
        "/hub/change-password",
        old_password=PASSWORD,
        new_password="another-horse-2",
        new_password_confirmation="another-horse-2",
    )
    assert "changed" in said(changed.text, "alert")
    assert Person(site).sign_in("bob", "another-horse-2") == ""
    administrator.press("/hub/authorize/bob")
    assert "approval" in Person(site).sign_in("bob", "another-horse-2")


def test_an_administrator_gives_a_new_password(lab: tuple[Site, Person]) -> None:
    site, administrator = lab
    Person(site).sign_up("carol")
    administrator.press("/hub/authorize/carol")
    new = {"new_password": "forgotten-horse-3", "new_password_confirmation": "forgotten-horse-3"}
    assert "changed" in said(administrator.fill("/hub/change-password/carol", **new).text, "alert")
    assert Person(site).sign_in("carol", "forgotten-horse-3") == ""


NAMES = ["b ob", "a/b", "../../etc", "<script>alert(1)</script>", "x" * 32, "9lives", "ä"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_cannot_be_folders_and_users(lab: tuple[Site, Person], name: str) -> None:
    assert Person(lab[0]).sign_up(name).startswith("This name cannot be used")


@pytest.mark.parametrize("password", ["short", "password123", "x" * 73, "ü" * 37])
def test_passwords_that_are_no_good(lab: tuple[Site, Person], password: str) -> None:
    assert Person(lab[0]).sign_up("dora", password).startswith("This password is too easy or too long")


def test_other_mistakes_of_signing_up(lab: tuple[Site, Person]) -> None:
    person = Person(lab[0])
    assert person.sign_up("dora", again="other") == "The two passwords differ: type the same one twice."
    assert person.sign_up("admin") == "This name is taken: choose another."
    assert person.sign_up("ADMIN") == "This name is taken: choose another."
    assert person.sign_in("admin", "x" * 73) == "Invalid username or password"


def test_a_link_lets_nobody_in(lab: tuple[Site, Person]) -> None:
    """An administrator can be made to follow a link, but not to press our button on another site."""
    site, administrator = lab
    Person(site).sign_up("eve")
    assert administrator.browser.get("/hub/authorize/eve").url.path == "/hub/authorize"
    assert administrator.browser.get("/hub/discard/eve").url.path == "/hub/authorize"
    assert administrator.browser.post("/hub/authorize/eve").status_code == 403
    assert "approval" in Person(site).sign_in("eve")
    assert Person(site).sign_up("eve") == "This name is taken: choose another."
    administrator.press("/hub/discard/eve")
    assert Person(site).sign_in("eve") == "Invalid username or password"


def test_wrong_passwords_lock_out_only_where_they_come_from(lab: tuple[Site, Person]) -> None:
    """As others do who know the administrator's name; the proxy appends where somebody really is."""
    site, administrator = lab
    Person(site).sign_up("harry")
    administrator.press("/hub/authorize/harry")
    thief, harry = Person(site), Person(site)
    thief.browser.headers["X-Forwarded-For"] = "203.0.113.9"
    harry.browser.headers["X-Forwarded-For"] = "203.0.113.10"
    for _ in range(10):
        assert thief.sign_in("harry", "wrong") == "Invalid username or password"
    refused = thief.sign_in("harry")
    assert re.fullmatch(r"Too many wrong passwords: wait \d+ seconds, then try again\.", refused)
    # Neither another header nor what stands before the address of a proxy makes somebody else of them.
    thief.browser.headers["X-Real-Ip"] = "203.0.113.77"
    thief.browser.headers["X-Forwarded-For"] = "203.0.113.78, 203.0.113.9"
    assert thief.sign_in("harry").startswith("Too many wrong passwords")
    assert thief.sign_in("admin", "wrong") == "Invalid username or password"
    assert harry.sign_in("harry") == ""


def test_what_is_for_administrators(lab: tuple[Site, Person]) -> None:
    site, administrator = lab
    frank = Person(site)
    frank.sign_up("frank")
    administrator.press("/hub/authorize/frank")
    assert frank.sign_in("frank") == ""
    for path in ("/hub/authorize", "/hub/change-password/admin"):
        assert frank.browser.get(path).status_code == 403
    assert frank.press("/hub/authorize/admin").status_code == 403
    assert administrator.press("/hub/authorize/admin").status_code == 400
    assert administrator.press("/hub/discard/frank").status_code == 400
    assert administrator.press("/hub/authorize/nobody").status_code == 404


def test_a_name_that_the_configuration_makes_an_administrator_waits_too(a_site: Callable[..., Site]) -> None:
    more = TINY + "c.Authenticator.admin_users = {'admin', 'grace'}\n"
    one = Running(a_site(more=more, settings=ACCOUNTS))
    try:
        one.up()
        mallory = Person(one.site)
        assert "waits for an administrator" in mallory.sign_up("grace")
        assert "approval" in mallory.sign_in("grace")
    finally:
        one.end()
