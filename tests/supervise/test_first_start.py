"""The first start gives a login once; a part that cannot start is said so, and nothing stays behind."""

import re
import stat
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.chain.site import Site
from tests.supervise.running import ACCOUNTS, TINY, Running, alive, run_up, until

pytestmark = pytest.mark.hub


@pytest.fixture
def fresh(a_site: Callable[..., Site]) -> Iterator[Running]:
    """As `bkai up` comes, with accounts."""
    one = Running(a_site(more=TINY, settings=ACCOUNTS))
    yield one
    one.end()


def password_in(text: str) -> str:
    found = re.search(r"^    name      admin\n    password  (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return found[1]


def login(site: Site, name: str, password: str) -> httpx.Response:
    """The login form, filled in."""
    with httpx.Client(base_url=site.url, trust_env=False) as browser:
        form = browser.get("/hub/login").text
        token = re.search(r'name="_xsrf" value="([^"]*)"', form)
        assert token is not None
        fields = {"_xsrf": token[1], "username": name, "password": password}
        return browser.post("/hub/login?next=/hub/home", data=fields)


def test_the_login_is_shown_once_and_works(fresh: Running) -> None:
    fresh.up()
    said = fresh.said()
    password = password_in(said)
    assert said.splitlines()[-1].startswith(f"Ready: {fresh.site.url} ")
    assert "fake" in said
    assert login(fresh.site, "admin", "wrong").status_code == 403
    assert login(fresh.site, "admin", password).headers["location"] == "/hub/home"
    fresh.interrupt()
    assert fresh.wait() == 0
    fresh.up()
    assert "password" not in fresh.said()
    assert login(fresh.site, "admin", password).status_code == 302
    for path in fresh.site.data.rglob("*"):
        if path.is_file() and "cache" not in path.parts and "envs" not in path.parts:
            assert password.encode() not in path.read_bytes(), path


def test_removing_the_note_gives_a_new_login(fresh: Running) -> None:
    fresh.up()
    first = password_in(fresh.said())
    fresh.kill_supervisor()
    hub = fresh.site.pid("hub")
    (fresh.site.data / "first-login-shown.txt").unlink()
    fresh.up()
    second = password_in(fresh.said())
    assert not alive(hub)
    assert login(fresh.site, "admin", first).status_code == 403
    assert login(fresh.site, "admin", second).status_code == 302


def test_with_another_authenticator_no_login_is_made_up(fresh: Running) -> None:
    fresh.site.prepare()
    config = fresh.site.data / "jupyterhub_config.py"
    config.write_text(
        config.read_text().replace("configure(", "c.JupyterHub.authenticator_class = 'null'\nconfigure(", 1)
    )
    fresh.up()
    assert "password" not in fresh.said()
    assert not (fresh.site.data / "run" / "first-login.json").exists()


def test_the_dummy_login_is_warned_of(running: Running) -> None:
    running.up()
    assert "WARNING: `auth: dummy`" in running.said()
    assert login(running.site, "anybody", "anything").status_code == 302


def test_a_hub_that_cannot_start_is_quoted_and_nothing_stays(fresh: Running) -> None:
    fresh.site.more = "c.JupyterHub = = 1\n"
    fresh.up(ready=False)
    assert fresh.wait() == 1
    said = fresh.said()
    assert "The hub ended with exit code 1 while starting: " in said
    assert "SyntaxError: invalid syntax" in said
    assert str(fresh.site.data / "log" / "hub.log") in said
    assert "password" not in said
    assert fresh.site.leftovers() == []
    # Mended, it starts, and the login that was not shown is shown now.
    fresh.site.more = TINY
    fresh.site.prepare()
    fresh.up()
    assert password_in(fresh.said())


def test_files_are_closed_to_others(running: Running) -> None:
    running.up()
    data = running.site.data
    assert stat.S_IMODE(data.stat().st_mode) & 0o066 == 0
    for name in ("run", "log"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o700
    private = [
        data / "secrets.json",
        *data.glob("*.sqlite*"),
        *(data / "log").glob("*.log"),
        *(data / "run").iterdir(),
    ]
    assert len(private) > 10
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_internal_ports_stay_while_they_are_free(running: Running) -> None:
    running.up()
    addresses = running.site.data / "run" / "addresses.json"
    before = addresses.read_text()
    running.interrupt()
    running.wait()
    running.up()
    assert addresses.read_text() == before


def test_a_new_port_moves_the_proxy_and_keeps_the_sessions(
    running: Running, free_port: Callable[[], int]
) -> None:
    running.up()
    session = running.start_session("ada")
    before = running.pids()
    running.kill_supervisor()
    old, running.site.port = running.site.port, free_port()
    running.up()
    assert running.pids()["proxy"] != before["proxy"]
    assert until(lambda: running.session_pid("ada"), 90, "the session's route") == session
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{old}/", trust_env=False)


def test_help_names_the_default_folder() -> None:
    assert "data folder" in run_up("--help").stdout
