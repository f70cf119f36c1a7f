"""The spawn form in a real browser, in front of a real hub and service.

No session is started here: what is asked for is looked at on its way and cancelled.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.browser.people import PHONE, chromium, log_in, overflows
from tests.chain.site import Site, remove

pytestmark = [pytest.mark.browser, pytest.mark.hub, pytest.mark.timeout(300)]

SETTINGS = """\
version: 1
auth: dummy
devices: {devices}
groups:
  default:
    title: Default
    fgpu_per_gpu: 2
    quantum: 0.1
    cpu_overcommit: 50
    session_types: [interactive, batch]
    default_duration: 8h
  fifths:
    title: Fifths
    fgpu_per_gpu: 5
    quantum: 1
    cpu_overcommit: 50
    session_types: [interactive]
    images: [python, sklearn]
folders:
  datasets:
    path: /srv
    groups: {{default: ro, fifths: ro}}
  models:
    path: /srv
    groups: {{default: rw}}
"""


@pytest.fixture(scope="module")
def site(a_site: Callable[..., Site]) -> Iterator[Site]:
    """Two 80 GB cards in two groups that count them differently."""
    one = a_site(settings=SETTINGS, devices="fake:two-80gb").start()
    yield one
    remove(one)


@pytest.fixture(scope="module")
def browser(needs: Callable[..., str]) -> Iterator[Browser]:
    with chromium(needs("chromium", "google-chrome")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """Ada before the form."""
    page = log_in(browser, site, "ada")
    open_form(page, site)
    yield page
    page.context.close()


def open_form(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/hub/spawn")
    expect(page.locator("#bkai-outlook")).to_be_visible()


def card(page: Page) -> None:
    """Chooses the GPU."""
    page.get_by_role("radio", name="NVIDIA H100 80GB HBM3").last.check()


def asks(page: Page, change: Callable[[], None], **wanted: str | None) -> None:
    """After a change the live check is asked with these options; None for one that is not sent."""

    def fits(request: Request) -> bool:
        if not request.url.endswith("/form/check"):
            return False
        options = json.loads(request.post_data or "")["options"]
        return all(options.get(key) == value for key, value in wanted.items())

    with page.expect_request(fits):
        change()


def test_what_would_happen_is_said_while_one_types(page: Page) -> None:
    outlook = page.locator("#bkai-outlook")
    expect(outlook).to_contain_text("Starts at once")
    page.get_by_label("Processor cores").fill("0.25")
    expect(page.locator("#bkai-cpu-error")).to_have_text(
        "Processor cores: give a multiple of 0.1, such as 0.5 or 2."
    )
    expect(outlook).to_have_attribute("data-kind", "wrong")
    cores = page.get_by_label("Processor cores")
    expect(cores).to_have_attribute("aria-invalid", "true")
    assert "bkai-cpu-error" in (cores.get_attribute("aria-describedby") or "")
    cores.fill("0.5")
    expect(page.locator("#bkai-cpu-error")).to_be_empty()
    expect(outlook).to_have_attribute("data-kind", "now")


def test_fgpu_and_share_stay_in_step_and_one_is_sent(page: Page) -> None:
    card(page)
    fgpu, share = page.locator("#bkai-fgpu"), page.locator("#bkai-gpu")
    expect(fgpu).to_have_value("1")
    expect(share).to_have_value("0.5")
    asks(page, lambda: share.fill("0.25"), gpu="0.25", fgpu=None)
    expect(fgpu).to_have_value("0.5")
    expect(page.locator("#bkai-amount-words")).to_contain_text("25 % of one NVIDIA H100 80GB HBM3")
    asks(page, lambda: fgpu.fill("0.7"), gpu=None, fgpu="0.7")
    expect(share).to_have_value("0.35")
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("ArrowRight")
    expect(fgpu).to_have_value("0.8")
    slider.press("End")
    expect(fgpu).to_have_value("4")
    expect(share).to_have_value("2")
    expect(page.locator("#bkai-amount-words")).to_have_text("2 whole NVIDIA H100 80GB HBM3")
    expect(page.locator("#bkai-summary")).to_contain_text("4 fGPU = 2 whole")
    none = page.get_by_role("radio", name="None")
    asks(page, none.check, accelerator="none", fgpu=None, gpu=None, spread=None, mig=None)


def test_an_empty_amount_says_what_it_will_be(page: Page) -> None:
    card(page)
    fgpu = page.locator("#bkai-fgpu")
    page.get_by_role("slider").press("End")
    fgpu.fill("")
    words = "50 % of one NVIDIA H100 80GB HBM3"
    expect(page.locator("#bkai-amount-words")).to_contain_text(
        f"Nothing filled in: it will be 1 fGPU, {words}"
    )
    expect(page.locator("#bkai-summary")).to_contain_text(f"1 fGPU = {words}")
    expect(page.get_by_role("slider")).to_have_value("9")
    expect(fgpu).to_have_attribute("placeholder", "1")
    fgpu.fill("1,5")
    expect(page.locator("#bkai-amount-words")).to_be_empty()
    expect(page.locator("#bkai-fgpu-error")).to_have_text("fGPU: write a decimal point, not a comma: 1.5.")
    expect(page.locator("#bkai-summary")).to_contain_text("no amount yet")


def test_back_by_the_browsers_history_everything_fits_together(page: Page, site: Site) -> None:
    """The browser puts values into fields without an event, whether it kept the page or loads it anew."""
    card(page)
    page.locator("#bkai-gpu").fill("0.25")
    page.get_by_role("radio", name="Fifths").check()
    page.get_by_role("link", name="Home", exact=True).click()
    page.wait_for_url("**/hub/home")
    page.go_back()
    expect(page.locator("#bkai-outlook")).to_be_visible()
    summary = page.locator("#bkai-summary")
    where = page.locator("input[name=group]:checked").get_attribute("value") or ""
    expect(summary).to_contain_text(where.capitalize())
    if page.locator("input[name=accelerator]:checked").get_attribute("value") == "none":
        expect(summary).to_contain_text("no accelerator")
        expect(page.locator("#bkai-amount")).to_be_hidden()
        return
    fgpu, share = page.locator("#bkai-fgpu").input_value(), page.locator("#bkai-gpu").input_value()
    assert float(fgpu) == float(share) * {"default": 2, "fifths": 5}[where]
    expect(summary).to_contain_text(f"{fgpu} fGPU = {float(share) * 100:g} % of one")


def test_fields_changed_behind_the_scripts_back_are_seen_when_the_page_is_shown(page: Page) -> None:
    page.evaluate(
        """() => {
            document.querySelector("input[name=accelerator][value=cuda]").checked = true;
            document.querySelector("input[name=group][value=fifths]").checked = true;
            document.getElementById("bkai-fgpu").value = "2";
            window.dispatchEvent(new PageTransitionEvent("pageshow"));
        }"""
    )
    expect(page.locator("#bkai-gpu")).to_have_value("0.4")
    expect(page.locator("#bkai-summary")).to_contain_text("Fifths")
    expect(page.locator("#bkai-summary")).to_contain_text("2 fGPU = 40 % of one")


def test_the_bar_has_a_legend(page: Page) -> None:
    card(page)
    legend = page.locator("#bkai-legend")
    expect(legend).to_have_text("yoursstays free")
    page.get_by_role("slider").press("End")
    expect(legend).to_have_text("yours")


def test_an_amount_between_the_steps_names_both_neighbours(page: Page) -> None:
    card(page)
    page.locator("#bkai-fgpu").fill("0.55")
    expect(page.locator("#bkai-fgpu-error")).to_contain_text("the nearest are 0.5 fGPU and 0.6 fGPU")
    page.get_by_role("button", name="Start session").click()
    expect(page.locator("#bkai-fgpu")).to_be_focused()
    assert page.url.endswith("/hub/spawn")


def test_a_group_shows_its_unit_and_greys_what_it_has_not(page: Page) -> None:
    page.locator("summary", has_text="More").click()
    page.get_by_role("radio", name="batch").check()
    page.locator("[data-folder=models] select").select_option("models:rw")
    card(page)
    page.get_by_role("radio", name="Fifths").check()
    expect(page.locator("#bkai-fgpu-help")).to_contain_text("In Fifths, 5 fGPU make one device")
    page.locator("#bkai-fgpu").fill("1")
    expect(page.locator("#bkai-gpu")).to_have_value("0.2")
    batch = page.get_by_role("radio", name="batch")
    expect(batch).to_be_disabled()
    expect(batch.locator("xpath=..")).to_contain_text("not in Fifths")
    expect(page.get_by_role("radio", name="interactive")).to_be_checked()
    models = page.locator("[data-folder=models]")
    expect(models.locator("select")).to_be_disabled()
    expect(models).to_contain_text("not shared in Fifths")


def test_what_is_taken_makes_the_outlook_say_why_one_would_wait(page: Page, site: Site) -> None:
    bob = site.token("bob")
    options = {"name": "hog", "gpu": "2", "accelerator": "cuda", "memory": "256m", "version": "python/3.11"}
    answer = site.call(bob, "POST", "/sessions", json={"options": options})
    assert answer.status_code == 201, answer.text
    [hog] = answer.json()["sessions"]
    try:
        card(page)
        expect(page.locator("#bkai-outlook")).to_contain_text("Would wait")
        expect(page.locator("#bkai-outlook")).to_contain_text("It needs 1 fGPU on one device")
        expect(page.locator("#bkai-legend")).to_contain_text("taken by others")
        expect(page.locator("#bkai-legend")).to_contain_text("yours, not free yet")
        expect(page.get_by_role("button", name="Join the queue")).to_be_visible()
        expect(page.locator("[data-group=default]")).to_contain_text("all 2 in use")
    finally:
        site.call(bob, "DELETE", f"/sessions/{hog['id']}")
    site.until(lambda: not site.sessions(bob), 60, "the hog has ended")


def test_the_name_is_the_address_and_cancelling_ends_that_server(page: Page, site: Site) -> None:
    """The page with the Cancel button is the Hub's own for a start that waits; its stock button stops the default."""
    ada, bob = site.token("ada"), site.token("bob")
    options = {"name": "hog", "gpu": "2", "accelerator": "cuda", "memory": "256m", "version": "python/3.11"}
    [hog] = site.call(bob, "POST", "/sessions", json={"options": options}).json()["sessions"]
    try:
        card(page)
        page.locator("summary", has_text="More").click()
        name = page.get_by_label("Name", exact=True)
        name.fill("Not_a name")
        expect(page.locator("#bkai-name-error")).to_contain_text("Name: use 1 to 30")
        page.get_by_role("button", name="Start session").or_(page.get_by_role("button", name="Join")).click()
        expect(name).to_be_focused()
        name.fill("train-2")
        page.get_by_role("button", name="Join the queue").click()
        page.wait_for_url("**/hub/spawn-pending/ada/train-2")
        expect(page.locator("#bkai-state")).to_have_text("PENDING")
        expect(page.locator("#bkai-place")).to_have_text("next in the queue")
        expect(page.locator("#progress-message")).to_contain_text("It needs 1 fGPU on one device")
        asked = page.locator("#bkai-asked")
        for words in ("python/3.11", "1 fGPU (50 % of a device)", "Default", "Asked at"):
            expect(asked).to_contain_text(words)
        assert site.states(ada) == {"train-2": "PENDING"}

        # While nothing answers, the page says so, and what that may mean; then it goes on by itself.
        away = re.compile(r"/hub/api/users/ada/servers/train-2")
        page.route(away, lambda route: route.abort())
        page.reload()
        expect(page.locator("#bkai-lost")).to_contain_text("The hub does not answer; trying again.")
        page.unroute(away)
        expect(page.locator("#bkai-lost")).to_be_hidden(timeout=30_000)

        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Keep waiting").click()
        assert site.states(ada) == {"train-2": "PENDING"}
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Yes, cancel").click()
        expect(page.locator("#bkai-state")).to_have_text("CANCELLED")
        site.until(lambda: not site.sessions(ada), 30, "the request is withdrawn")
        assert site.hub("GET", "/users/ada").json()["servers"] == {}
        assert site.states(bob).keys() == {"hog"}
        site.hub("DELETE", "/users/ada/servers/train-2", json={"remove": True})
        page.reload()
        expect(page.get_by_role("heading", name="There is nothing at this address")).to_be_visible()
        expect(page.locator("main").get_by_role("link", name="Home")).to_be_visible()
        page.locator("main").get_by_role("link", name="Sessions").click()
        page.wait_for_url("**/services/bkai/")
    finally:
        site.call(bob, "DELETE", f"/sessions/{hog['id']}")
    site.until(lambda: not site.sessions(bob), 60, "the hog has ended")


def test_without_the_live_answer_the_form_works_and_loses_nothing(page: Page, site: Site) -> None:
    page.route("**/form/check", lambda route: route.abort())
    page.get_by_label("Memory", exact=True).fill("1m")
    expect(page.locator("#bkai-outlook")).to_contain_text("No answer from the session service")
    page.locator("summary", has_text="More").click()
    page.get_by_label("Environment").fill("A=<b>1</b>")
    page.get_by_role("button", name="Start session").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("needs at least")
    expect(alert).to_be_focused()
    expect(page.get_by_label("Memory", exact=True)).to_have_value("1m")
    expect(page.get_by_label("Environment")).to_have_value("A=<b>1</b>")
    assert site.sessions(site.token("ada")) == []


def test_the_live_answer_comes_back_after_the_service_was_killed(page: Page, site: Site) -> None:
    site.kill("service")
    page.get_by_label("Processor cores").fill("0.2")
    expect(page.locator("#bkai-outlook")).to_contain_text("No answer from the session service")
    expect(page.locator("#bkai-outlook")).to_contain_text("Starts at once", timeout=60_000)


def test_an_administrator_asks_for_somebody_else(browser: Browser, site: Site) -> None:
    """The live answer is for whom the session is for: bob may not use more than there is, whoever asks."""
    site.token("bob")
    page = log_in(browser, site, "admin")
    page.goto(f"{site.url}/hub/spawn/bob/given")
    expect(page.get_by_text("You ask for bob, not for yourself.")).to_be_visible()
    expect(page.locator("#bkai-outlook")).to_contain_text("Starts at once")
    page.locator("summary", has_text="More").click()
    page.get_by_label("Name", exact=True).fill("renamed")
    with page.expect_request(
        lambda request: request.method == "POST" and "/hub/spawn/" in request.url
    ) as sent:
        page.get_by_role("button", name="Start session").click()
    assert "/hub/spawn/bob/renamed?" in sent.value.url
    bob = site.token("bob")
    site.until(lambda: site.states(bob).keys() == {"renamed"}, 30, "bob has the session")
    # The name that the page was opened with was never one of a server.
    assert "given" not in site.hub("GET", "/users/bob?include_stopped_servers=1").json()["servers"]
    [one] = site.sessions(bob)
    site.call(bob, "DELETE", f"/sessions/{one['id']}")
    site.until(lambda: not site.sessions(bob), 60, "bob's session has ended")
    page.context.close()


def test_without_any_script_it_is_sent_and_comes_back_with_the_sentences(
    page: Page, browser: Browser, site: Site
) -> None:
    plain = browser.new_context(java_script_enabled=False, storage_state=page.context.storage_state())
    bare = plain.new_page()
    bare.goto(f"{site.url}/hub/spawn")
    bare.get_by_label("Processor cores").fill("<script>alert(1)</script>")
    bare.locator("input[name=group][value=fifths]").check()
    bare.get_by_role("button", name="Start session").click()
    expect(bare.get_by_role("alert")).to_contain_text("is not a number of cores")
    expect(bare.get_by_label("Processor cores")).to_have_value("<script>alert(1)</script>")
    expect(bare.locator("input[name=group][value=fifths]")).to_be_checked()
    plain.close()


def test_every_control_is_reached_and_shown_by_the_keyboard(page: Page) -> None:
    """From the top with Tab alone: each stop has a name and a visible ring; Enter sends the form."""
    card(page)
    page.locator("summary", has_text="More").click()
    page.get_by_role("heading", name="New session").click()
    stops: list[dict[str, Any]] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            """() => {
                const at = document.activeElement;
                const box = at.closest(".bkai-chip") ?? at;
                const form = at.closest("#spawn_form") !== null;
                const label = at.labels?.[0]?.innerText || at.getAttribute("aria-label") || at.innerText || "";
                return { form, name: at.name || at.id || at.tagName, label, ring: getComputedStyle(box).outlineStyle };
            }"""
        )
        if stop["form"]:
            stops.append(stop)
        elif stops:
            break
    names = {stop["name"] for stop in stops}
    assert {
        "version",
        "group",
        "accelerator",
        "fgpu",
        "gpu",
        "spread",
        "bkai-range",
        "cpu",
        "memory",
        "shm",
    } <= names
    assert {
        "duration",
        "name",
        "count",
        "session_type",
        "folders",
        "environment",
        "SUMMARY",
        "BUTTON",
    } <= names
    assert [stop["name"] for stop in stops if not stop["label"].strip()] == []
    assert [stop["name"] for stop in stops if stop["ring"] == "none"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_with_the_button_in_sight(browser: Browser, site: Site, scheme: str) -> None:
    page = log_in(browser, site, "ada", viewport=PHONE, color_scheme=scheme)
    open_form(page, site)
    card(page)
    page.locator("summary", has_text="More").click()
    assert not overflows(page)
    expect(page.get_by_role("button", name="Start session")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.dataset.bsTheme") == scheme
    page.context.close()


@pytest.mark.parametrize("path", ["/hub/token", "/hub/home", "/hub/nothing", "/services/bkai/"])
def test_the_other_pages_fit_a_phone(browser: Browser, site: Site, path: str) -> None:
    site.token("ada")  # with a row in the table of tokens
    page = log_in(browser, site, "ada", viewport=PHONE)
    page.goto(f"{site.url}/services/bkai/")  # and with one in that of applications
    page.goto(site.url + path)
    assert not overflows(page)
    page.context.close()


def test_the_hubs_toggle_changes_our_parts_too(page: Page) -> None:
    def colour() -> str:
        script = "getComputedStyle(document.querySelector('.bkai-section')).backgroundColor"
        return str(page.evaluate(script))

    before = colour()
    page.get_by_role("button", name="Toggle dark mode").click()
    assert colour() != before


def test_fake_devices_are_said_on_the_form_and_on_every_page(page: Page, site: Site) -> None:
    expect(page.locator(".bkai-honest")).to_contain_text("Booked, not enforced.")
    for path in ("/hub/spawn", "/hub/home", "/hub/token", "/services/bkai/"):
        page.goto(site.url + path)
        expect(page.get_by_label("About this site")).to_contain_text("This site uses fake GPUs")


def test_a_ticket_opens_nothing_but_the_live_answer(page: Page, site: Site) -> None:
    data = json.loads(page.locator("#bkai-form-data").inner_text())
    check = f"{site.url}/services/bkai/form/check"
    headers = {"X-Bkai-Ticket": data["place"]["ticket"]}
    good = httpx.post(check, json={"options": {"cpu": "x"}}, headers=headers, trust_env=False)
    assert good.status_code == 200
    assert set(good.json()) == {"errors", "outlook", "offer"}
    assert "Processor cores" in good.json()["errors"]["cpu"]
    for wrong in ({}, {"X-Bkai-Ticket": "x.y"}, {"Cookie": "service-bkai=x"}):
        refused = httpx.post(check, json={"options": {}}, headers=wrong, trust_env=False)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (401, "stale-page")
    nonsense = httpx.post(check, content=b"{", headers=headers, trust_env=False)
    assert nonsense.status_code == 400
    elsewhere = httpx.get(f"{site.url}/services/bkai/api/v1/me", headers=headers, trust_env=False)
    assert elsewhere.status_code == 401
