"""Each person's sessions at a host name of their own: what is reached where, and what is not."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.chain.site import SETTINGS, Site, remove

pytestmark = pytest.mark.hub
HOST = "hub.test"


@pytest.fixture(scope="module")
def lab(a_site: Callable[..., Site]) -> Iterator[Site]:
    site = a_site(settings=f"subdomain_host: http://{HOST}\n" + SETTINGS)
    try:
        yield site.start()
    finally:
        remove(site)


class Browser:
    """One person's; every host name leads to the site, as DNS would have it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cookies: dict[tuple[str, str, str], str] = {}

    def ask(self, method: str, host: str, path: str, **more: Any) -> httpx.Response:
        """Without following anything."""
        mine = {
            name: value
            for (domain, at, name), value in self.cookies.items()
            if (domain == host or (domain.startswith(".") and host.endswith(domain))) and path.startswith(at)
        }
        headers = {"Host": host, "Sec-Fetch-Mode": "navigate", **more.pop("headers", {})}
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in mine.items())
        answer = httpx.request(
            method, self.site.url + path, headers=headers, trust_env=False, timeout=30, **more
        )
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            at = re.search(r"(?i)path=([^;]*)", line)
            wide = re.search(r"(?i)domain=([^;]*)", line)
            domain = "." + wide[1].lstrip(".") if wide else host
            self.cookies[domain, at[1] if at else "/", name] = value
        return answer

    def open(self, host: str, path: str) -> tuple[str, httpx.Response]:
        """The host that answers in the end, and its answer."""
        for _ in range(12):
            answer = self.ask("GET", host, path)
            if answer.status_code not in (301, 302, 303, 307):
                return host, answer
            place = httpx.URL(f"http://{host}{path}").join(answer.headers["location"])
            host, path = place.host, place.raw_path.decode()
        raise AssertionError(f"no end of going on, last to {host}{path}")

    def log_in(self, user: str) -> None:
        page = self.ask("GET", HOST, "/hub/login")
        token = re.search(r'name="_xsrf" value="([^"]*)"', page.text)
        assert token, page.text
        fields = {"username": user, "password": "x", "_xsrf": token[1]}
        assert self.ask("POST", HOST, "/hub/login", data=fields).status_code == 302


def test_sessions_are_at_hosts_of_their_own_and_our_pages_at_the_hubs(lab: Site) -> None:
    token = lab.token("ada")
    asked = {"version": "python/3.11", "accelerator": "none", "name": "one"}
    [one] = lab.call(token, "POST", "/sessions", json={"options": asked}).json()["sessions"]
    session = lab.running(token, one["id"])
    ada = Browser(lab)
    ada.log_in("ada")
    # The page of sessions: our service's own login, by way of the Hub's.
    host, page = ada.open(HOST, "/services/bkai/")
    assert (host, page.status_code) == (HOST, 200)
    assert "ada" in page.text
    told = ada.ask(
        "GET",
        HOST,
        "/services/bkai/api/v1/me",
        headers={"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"},
    )
    assert told.status_code in (200, 401)  # 401 without the page's token
    # A link to the session leads to its host; there the panel reaches the service.
    host, page = ada.open(HOST, session["url"] + "lab")
    assert host == f"ada.{HOST}"
    assert page.status_code == 200, page.text
    there = {"Host": f"ada.{HOST}", "Authorization": f"token {token}"}
    panel = httpx.get(f"{lab.url}{session['url']}bkai/session", headers=there, trust_env=False, timeout=30)
    assert panel.status_code == 200, panel.text
    assert panel.json()["id"] == one["id"]
    # At the Hub's host there is no session; at a session's no service, and nobody is logged in to the Hub.
    direct = httpx.get(
        f"{lab.url}{session['url']}api/status",
        headers={"Host": HOST, "Authorization": f"token {token}"},
        trust_env=False,
        timeout=30,
    )
    assert direct.status_code in (302, 424)
    away = ada.ask("GET", f"ada.{HOST}", "/services/bkai/api/v1/info").headers["location"]
    assert away.startswith(f"http://{HOST}/hub/")
    assert "/hub/login" in ada.ask("GET", f"ada.{HOST}", "/hub/home").headers["location"]
    assert ada.ask("GET", HOST, "/hub/home").status_code == 200
    assert [name for (domain, _, name) in ada.cookies if domain.startswith(".")] == ["jupyterhub-session-id"]
    lab.clear()


@pytest.mark.parametrize("wrong", ["hub.example.org", "https://127.0.0.1", "https://a.org/path", 5])
def test_what_is_no_host(wrong: object) -> None:
    from jupyterhub_bkai.errors import SettingsError
    from jupyterhub_bkai.settings import load

    with pytest.raises(SettingsError, match="subdomain_host"):
        load(f"subdomain_host: {wrong}")
