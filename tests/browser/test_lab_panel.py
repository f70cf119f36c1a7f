"""The "Session" panel in a real JupyterLab in a real browser, logged in by cookie, with a stand-in for the service.

`BKAI_SHOTS=folder` keeps the pictures, to be looked at.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Response, Route, ViewportSize, expect

from tests.browser.people import chromium
from tests.singleuser.servers import OURS, ROOT, Server, environment, running, wait_for
from tests.singleuser.standin import LEASE, OTHER, SERVER_TOKEN, StandIn, iso, session

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

BUILT = ROOT / "labextension" / "prebuilt"
THIRD = "01kb0000000000000000000002"
WIDE = ViewportSize(width=1280, height=800)
NARROW = ViewportSize(width=900, height=640)
PHONE = ViewportSize(width=390, height=844)
SILENT = "The session service does not answer; your work is not affected."


@pytest.fixture(autouse=True)
def patience() -> None:
    """Two shared cores may take their time."""
    expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    service = StandIn()
    yield service
    service.close()


@pytest.fixture(scope="module")
def jupyter_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Jupyter finds the extension as it is built now."""
    if not (BUILT / "package.json").is_file():
        pytest.fail("the labextension is not built: run `make build`")
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "labextensions").mkdir()
    (folder / "labextensions" / "jupyterhub-bkai").symlink_to(BUILT)
    return folder


def variables(
    standin: StandIn, home: Path, port: int, jupyter_path: Path, *, inside: bool = True
) -> dict[str, str]:
    return {**environment(standin, home, port, inside=inside), "JUPYTER_PATH": str(jupyter_path)}


@pytest.fixture(scope="module")
def server(
    standin: StandIn,
    jupyter_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
) -> Iterator[Server]:
    home, logs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("log")
    given = variables(standin, home, free_port(), jupyter_path)
    with running(OURS, given, home, logs / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def browser(needs: Callable[..., str]) -> Iterator[Browser]:
    with chromium(needs("chromium", "google-chrome")) as browser:
        yield browser


@pytest.fixture
def well(standin: StandIn) -> None:
    """This session runs, another one runs, a third one waits."""
    standin.mood = "well"
    standin.sessions = {
        LEASE: session(),
        OTHER: session(
            OTHER, name="Evaluation", server="eval", url="/user/alice/eval/", accelerator="no accelerator",
            slices=[], fgpu=None, share=None, image="sklearn/1.8",
        ),
        THIRD: session(
            THIRD, name="A sweep with a rather long name", server="sweep", state="PENDING", position=2,
            why="All of the group's 2 devices are taken.", started=None, slices=[],
        ),
    }  # fmt: skip


@pytest.fixture
def page(browser: Browser, server: Server, well: None) -> Iterator[Page]:
    with browser.new_context(viewport=WIDE) as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
        open_lab(page, server)
        yield page


def open_lab(page: Page, server: Server) -> None:
    page.goto(f"{server.url}lab?reset")
    show(page)


def again(page: Page) -> None:
    """Load Lab anew."""
    page.goto(f"{page.url.partition('?')[0]}?reset")
    show(page)


def show(page: Page) -> None:
    """Open the panel, by its tab."""
    page.locator("#jp-main-dock-panel .jp-Launcher").wait_for()
    page.locator(".jp-SideBar [data-id=bkai-session-panel]").click()
    panel(page).wait_for()


def panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Session", exact=True)


def shot(page: Page, name: str) -> None:
    if folder := os.environ.get("BKAI_SHOTS"):
        page.mouse.move(600, 700)
        page.wait_for_timeout(300)
        page.screenshot(path=Path(folder) / f"{name}.png")


def dark(page: Page, server: Server) -> None:
    """As if chosen under Settings › Theme."""
    settings = server.home / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "themes.jupyterlab-settings").write_text('{"theme": "JupyterLab Dark"}')
    again(page)
    expect(page.locator("body[data-jp-theme-light=false]")).to_be_attached()
    (settings / "themes.jupyterlab-settings").unlink()


def test_it_says_what_the_session_has(page: Page, standin: StandIn) -> None:
    here = panel(page)
    for text in (
        "Trial", "RUNNING", "sklearn 1.7", "0.5 fGPU", "25 % of one NVIDIA H200", "35.3 GiB of its memory",
        "Booked, not enforced", "Fake device", "1 h 12 min", "1 core", "2 GiB", "64 MiB",
        "Evaluation", "A sweep with a rather long name", "Number 2 in the queue.",
        "All of the group's 2 devices are taken.",
    ):  # fmt: skip
        expect(here).to_contain_text(text)
    expect(here).not_to_contain_text("Time left")
    meter = here.get_by_role("meter")
    expect(meter).to_have_attribute("aria-valuenow", "25")
    expect(here.get_by_role("link", name="Open the session Evaluation")).to_have_attribute(
        "href", "/user/alice/eval/"
    )
    expect(here.get_by_role("link", name=re.compile("sweep"))).to_have_count(0)
    expect(here.get_by_role("link", name="All sessions and new ones")).to_have_attribute(
        "href", f"{standin.url}/services/bkai/"
    )
    here.get_by_text("Booked, not enforced").click()
    expect(here).to_contain_text("Nothing stops a program from taking more than its part")
    shot(page, "light-wide")
    page.set_viewport_size(NARROW)
    shot(page, "light-narrow")


def test_it_lives(page: Page, standin: StandIn) -> None:
    here = panel(page)
    standin.change(THIRD, position=1, why="One device is being freed.")
    expect(here).to_contain_text("Number 1 in the queue. One device is being freed.")
    standin.change(
        THIRD, state="PULLING", position=None, why=None, progress={"percent": 40, "message": "Installing."}
    )
    expect(here).to_contain_text("Installing.")
    standin.change(THIRD, state="RUNNING", started=iso())
    expect(here.get_by_role("link", name=re.compile("sweep"))).to_be_visible()
    standin.change(OTHER, state="TERMINATED")
    expect(here).not_to_contain_text("Evaluation")


def test_time_left_and_its_warning(page: Page, standin: StandIn) -> None:
    standin.change(LEASE, deadline=iso(timedelta(hours=-2, minutes=-5, seconds=-30)))
    expect(panel(page)).to_contain_text("2 h 5 min")
    expect(status_item(page)).to_have_text("0.5 fGPU")
    standin.change(LEASE, deadline=iso(timedelta(minutes=-9, seconds=-30)))
    expect(status_item(page)).to_have_text("0.5 fGPU, 9 min left")
    expect(page.get_by_text("This session ends in")).to_have_count(0)  # not before the service warns
    warn(standin, "w1")
    expect(page.locator(".Toastify")).to_contain_text("This session ends in 9 min. Save your work")
    shot(page, "deadline")


def warn(standin: StandIn, id: str) -> None:
    standin.change(LEASE, warning={"id": id, "at": iso(), "message": "It ends soon."})


@pytest.fixture
def soon(page: Page, standin: StandIn) -> Locator:
    """The warning, in a session that ends in nine minutes."""
    standin.room = {**standin.room, "seconds": 2700}
    standin.change(LEASE, deadline=iso(timedelta(minutes=-9, seconds=-30)))
    warn(standin, "w1")
    shown = page.locator(".Toastify__toast", has_text="This session ends in 9 min.")
    expect(shown).to_be_visible()
    return shown


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_more_time_from_the_warning(
    page: Page, server: Server, standin: StandIn, theme: str, soon: Locator
) -> None:
    if theme == "dark":
        dark(page, server)
        expect(soon).to_be_visible()  # who loads Lab again is warned again
    soon.get_by_role("button", name="More time…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("At most 45 min: A request that waits is to start by 14:20 UTC.")
    choices = dialog.get_by_role("combobox")
    expect(choices.get_by_role("option")).to_have_text(["15 min", "30 min", "45 min"])
    shot(page, f"more-time-{theme}")
    expect(choices).to_have_value("45 min")
    dialog.get_by_role("button", name="Extend").click()
    expect(page.locator(".Toastify")).to_contain_text("This session goes on until")
    expect(soon).to_have_count(0)
    expect(status_item(page)).to_have_text(re.compile("0.5 fGPU, 5[34] min left"))
    assert [(method, path) for method, path, _ in standin.asked if path.endswith("/extend")][-2:] == [
        ("GET", f"/sessions/{LEASE}/extend"),
        ("POST", f"/sessions/{LEASE}/extend"),
    ]
    shot(page, f"more-time-given-{theme}")


def test_each_warning_is_shown_and_the_newest_stays(page: Page, standin: StandIn, soon: Locator) -> None:
    soon.get_by_role("button", name="Hide notification").or_(
        soon.locator(".Toastify__close-button")
    ).first.click()
    expect(soon).to_have_count(0)
    standin.change(LEASE, name="Changed")
    expect(panel(page)).to_contain_text("Changed")
    expect(soon).to_have_count(0)
    warn(standin, "w2")
    expect(soon).to_have_count(1)


def test_no_more_time_says_why(page: Page, standin: StandIn, soon: Locator) -> None:
    standin.room = {**standin.room, "seconds": 0}
    panel(page).get_by_role("button", name="More time…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This session cannot go on for longer")
    expect(dialog).to_contain_text("A request that waits is to start by 14:20 UTC.")
    shot(page, "no-more-time")
    dialog.get_by_role("button", name="Ok").click()
    standin.room = {**standin.room, "seconds": 2700}
    panel(page).get_by_role("button", name="More time…").click()
    standin.room = {**standin.room, "seconds": 60}  # somebody was quicker
    dialog.get_by_role("button", name="Extend").click()
    expect(page.locator(".Toastify")).to_contain_text("No more time: It cannot go on for longer: a request")
    expect(soon).to_be_visible()


def test_dark(page: Page, server: Server) -> None:
    dark(page, server)
    expect(panel(page)).to_contain_text("0.5 fGPU")
    shot(page, "dark-wide")
    page.set_viewport_size(NARROW)
    shot(page, "dark-narrow")
    panel(page).get_by_role("button", name="Stop this session…").click()
    shot(page, "dark-dialog")


def test_a_service_that_is_silent_and_comes_back(page: Page, standin: StandIn) -> None:
    standin.fall_silent()
    expect(panel(page).get_by_role("status")).to_contain_text(SILENT)
    expect(panel(page).get_by_role("status")).to_contain_text("This is how things were at")
    expect(panel(page)).to_contain_text("0.5 fGPU")
    shot(page, "silent")
    standin.mood = "well"
    panel(page).get_by_role("button", name="Try now").click()
    expect(panel(page).get_by_role("status")).not_to_contain_text(SILENT)
    standin.change(LEASE, name="Renamed")
    expect(panel(page)).to_contain_text("Renamed")


def test_a_session_that_was_stopped_elsewhere(page: Page, standin: StandIn) -> None:
    """The service still tells it, in the moment before the server goes away."""
    standin.change(LEASE, state="TERMINATED", message="Stopped by alice.")
    said = panel(page).get_by_role("status")
    expect(said).to_contain_text("This session has ended: Stopped by alice.")
    expect(said).to_contain_text("What was not saved is only in this page now: copy it before you close")
    expect(said.get_by_role("link", name="Start it again")).to_have_attribute(
        "href", f"{standin.url}/hub/spawn/alice/trial"
    )
    expect(said.get_by_role("link", name="All sessions and new ones")).to_be_visible()
    expect(panel(page)).to_contain_text("TERMINATED")
    expect(panel(page)).not_to_contain_text("Running for")
    expect(panel(page).get_by_role("button", name="Stop this session…")).to_have_count(0)
    expect(status_item(page)).to_have_text("session ended")
    shot(page, "ended")
    page.set_viewport_size(PHONE)
    shot(page, "ended-phone")


def test_a_session_whose_server_is_gone(page: Page, standin: StandIn) -> None:
    """The hub answers in its place, with its status for that; then nobody asks every few seconds any more."""
    asked: list[float] = []

    def hub(route: Route) -> None:
        asked.append(time.monotonic())
        route.fulfill(status=424, json={"message": "JupyterHub server no longer running"})

    page.route(re.compile(r"/bkai/sessions?(/events)?(\?|$)"), hub)
    standin.fall_silent()
    expect(panel(page).get_by_role("status")).to_contain_text("This session has ended.")
    expect(panel(page).get_by_role("status")).not_to_contain_text("Retrying")
    before = len(asked)
    page.wait_for_timeout(4000)
    assert len(asked) == before
    page.unroute_all()
    standin.mood = "well"
    hide(page, True)
    hide(page, False)  # who looks again is told at once that it runs again
    expect(panel(page)).to_contain_text("0.5 fGPU")


@pytest.mark.parametrize("size", [NARROW, PHONE], ids=["narrow", "phone"])
def test_on_a_narrow_window_the_panel_waits_until_it_is_asked_for(
    browser: Browser, server: Server, well: None, size: ViewportSize
) -> None:
    with browser.new_context(viewport=size) as context:
        page = context.new_page()
        page.goto(f"{server.url}lab?reset")
        page.locator(".jp-SideBar [data-id=bkai-session-panel]").wait_for(timeout=60_000)
        page.wait_for_timeout(1500)
        shot(page, f"opened-{size['width']}")
        expect(panel(page)).to_be_hidden()
        page.reload()
        page.locator(".jp-SideBar [data-id=bkai-session-panel]").wait_for(timeout=60_000)
        page.wait_for_timeout(1500)
        expect(panel(page)).to_be_hidden()


def test_it_comes_back_by_itself(page: Page, standin: StandIn) -> None:
    standin.fall_silent()
    expect(panel(page).get_by_role("status")).to_contain_text(SILENT)
    standin.mood = "well"
    expect(panel(page).get_by_role("status")).not_to_contain_text(SILENT)


def test_a_service_that_was_never_there(page: Page, server: Server, standin: StandIn) -> None:
    standin.fall_silent()
    again(page)
    expect(panel(page)).to_contain_text(SILENT)
    expect(panel(page)).not_to_contain_text("fGPU")
    standin.mood = "broken"
    expect(panel(page)).to_contain_text("The session service says: Something went wrong; id 42.")
    shot(page, "never-there")


def test_stop_asks_first_and_leaves(page: Page, standin: StandIn) -> None:
    panel(page).get_by_role("button", name="Stop this session…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("What it holds in memory is lost.")
    expect(dialog).to_contain_text("Files in your home folder stay.")
    expect(dialog).to_contain_text("Your slice (0.5 fGPU) goes to whoever waits for it.")
    shot(page, "dialog")
    dialog.get_by_role("button", name="Keep working").click()
    expect(dialog).to_have_count(0)
    assert standin.sessions[LEASE]["state"] == "RUNNING"

    panel(page).get_by_role("button", name="Stop this session…").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop session").click()
    page.wait_for_url(f"{standin.url}/services/bkai/")
    assert standin.sessions[LEASE]["state"] == "TERMINATING"


def test_stop_that_is_refused_says_so(page: Page, standin: StandIn) -> None:
    standin.mood = "broken"
    panel(page).get_by_role("button", name="Stop this session…").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop session").click()
    expect(page.locator(".Toastify")).to_contain_text("The session goes on: Something went wrong; id 42.")
    assert standin.sessions[LEASE]["state"] == "RUNNING"


def test_unsaved_work_can_be_saved_first(page: Page, server: Server, standin: StandIn) -> None:
    page.locator(".jp-LauncherCard", has_text="Text File").click()
    editor = page.locator(".jp-FileEditor .cm-content")
    editor.click()
    page.keyboard.insert_text("precious")
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty, .jp-mod-dirty").first).to_be_attached()
    panel(page).get_by_role("button", name="Stop this session…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Save all open files first")).to_be_checked()
    shot(page, "dialog-unsaved")
    dialog.get_by_role("button", name="Stop session").click()
    page.wait_for_url(f"{standin.url}/services/bkai/")
    wait_for(lambda: (server.home / "untitled.txt").read_text() == "precious")


def test_without_a_mouse(page: Page) -> None:
    page.keyboard.press("Control+Shift+C")
    page.keyboard.insert_text("Show This Session")
    page.keyboard.press("Enter")
    reached = []
    panel(page).get_by_text("Booked, not enforced").focus()
    for _ in range(4):
        reached.append(page.evaluate("document.activeElement.textContent"))
        page.keyboard.press("Tab")
    assert reached == ["Booked, not enforced", "Stop this session…", "Open", "All sessions and new ones"]
    panel(page).get_by_role("button", name="Stop this session…").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    # JupyterLab takes the keyboard there a moment after it shows the dialog.
    expect(page.get_by_role("dialog").locator(":focus")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_hidden_page_holds_no_connection(page: Page, standin: StandIn) -> None:
    wait_for(lambda: standin.readers == 1, 60)
    hide(page, True)
    wait_for(lambda: standin.readers == 0)
    standin.sessions[LEASE]["name"] = "Changed meanwhile"
    hide(page, False)
    expect(panel(page)).to_contain_text("Changed meanwhile")


def test_the_browser_never_sees_the_token(page: Page, server: Server) -> None:
    seen: list[Response] = []
    page.on("response", lambda response: seen.append(response))  # playwright wants a function of Python
    again(page)
    expect(panel(page)).to_contain_text("0.5 fGPU")
    assert len(seen) > 20
    for response in seen:
        assert SERVER_TOKEN not in response.url
        assert SERVER_TOKEN not in str(response.request.headers)
    assert SERVER_TOKEN not in page.content()
    cookies = str(page.context.cookies())
    assert SERVER_TOKEN not in cookies


def test_outside_bkai(
    browser: Browser,
    standin: StandIn,
    jupyter_path: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    given = variables(standin, tmp_path, free_port(), jupyter_path, inside=False)
    with running(OURS, given, tmp_path, tmp_path / "log") as server, browser.new_context() as context:
        page = context.new_page()
        open_lab(page, server)
        expect(panel(page)).to_contain_text("was not started as a bkai session")
        expect(status_item(page)).to_have_count(0)
        shot(page, "outside")


def status_item(page: Page) -> Locator:
    return page.locator(".bkai-status button")


def hide(page: Page, hidden: bool) -> None:
    """What the browser tells a page that is covered by another tab."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )
