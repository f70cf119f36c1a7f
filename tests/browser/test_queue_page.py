"""The administrators' queue and device map in a real browser, in front of a real hub and service."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.people import PHONE, chromium, log_in, overflows
from tests.chain.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.hub, pytest.mark.timeout(300)]
HUNDREDS = """\
description = "Many machines"
{nodes}
"""
NODE = """
[[nodes]]
name = "rack-{n:03d}"
cpu = 64
memory_mib = 524288
[[nodes.devices]]
model = "NVIDIA A100"
memory_mib = 40960
sms = 108
count = 8
"""


@pytest.fixture(scope="module")
def browser(needs: Callable[..., str]) -> Iterator[Browser]:
    with chromium(needs("chromium", "google-chrome")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """The administrator before the page; what a test left closed is open again after it."""
    page = log_in(browser, site, "admin")
    open_page(page, site)
    yield page
    page.context.close()
    admin = site.token("admin")
    for node in site.call(admin, "GET", "/devices").json()["nodes"]:
        site.call(admin, "DELETE", f"/nodes/{node['name']}/drain")
        for device in node["devices"]:
            site.call(admin, "DELETE", f"/devices/{device['id']}/drain")
    site.call(admin, "DELETE", "/groups/default/hold")


def open_page(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/services/bkai/admin/queue")
    expect(page.locator("#bkai-figures")).not_to_have_attribute("aria-busy", "true")


def ask(site: Site, user: str, name: str, fgpu: str = "2") -> dict[str, Any]:
    options = {"version": "python/3.11", "cpu": "0.5", "memory": "256m", "name": name, "fgpu": fgpu}
    answer = site.call(site.token(user), "POST", "/sessions", json={"options": options})
    assert answer.status_code == 201, answer.text
    [one] = answer.json()["sessions"]
    return dict(one)


def waits(page: Page, name: str) -> Any:
    return page.locator(".bkai-waits").filter(has_text=name)


def agree(page: Page, button: str, **fields: str) -> None:
    dialog = page.get_by_role("dialog")
    for label, value in fields.items():
        dialog.get_by_label(re.compile(label, re.IGNORECASE)).fill(value)
    dialog.get_by_role("button", name=button).click()
    expect(dialog).to_be_hidden()


def test_who_holds_what_is_drawn_and_stopped(page: Page, site: Site) -> None:
    ask(site, "bob", "hog", "0.5")
    ask(site, "ada", "big", "1.5")
    card = page.locator(".bkai-gpu")
    expect(card.locator(".bkai-holders li")).to_have_text(
        [re.compile("bob hog.*25 %"), re.compile("ada big.*75 %")]
    )
    memory = card.locator(".bkai-segments").first
    boxes = [memory.locator("i").nth(n).bounding_box() for n in range(2)]
    whole = memory.bounding_box()
    assert whole
    assert [round(box["width"] / whole["width"], 2) for box in boxes if box] == [0.25, 0.75]
    classes = {memory.locator("i").nth(n).get_attribute("class") for n in range(2)}
    assert len(classes) == 2  # two people, two colours
    expect(card).to_contain_text("22 of 22")
    card.get_by_role("button", name="Stop bob · hog").click()
    expect(page.get_by_role("dialog")).to_contain_text("Programs that run in it end at once")
    agree(page, "Keep it running")
    assert site.states(site.token("bob")).keys() == {"hog"}
    card.get_by_role("button", name="Stop bob · hog").click()
    agree(page, "Yes, stop it")
    expect(card.locator(".bkai-holders li")).to_have_count(1, timeout=60_000)
    expect(page.locator("#bkai-figures")).to_contain_text("0.3 of 1")


@pytest.mark.parametrize("what", ["device", "node"])
def test_draining_says_what_happens_and_who_waits_reads_why(page: Page, site: Site, what: str) -> None:
    button = "Drain local" if what == "node" else "Drain card 0 of local"
    page.get_by_role("button", name=button, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Nothing new starts there. No session is on it")
    dialog.get_by_role("button", name="Drain it").click()
    expect(dialog).to_be_visible()  # without a reason nothing happens
    dialog.get_by_label("Reason").fill("fan replaced on Monday")
    page.keyboard.press("Enter")
    expect(page.locator(".bkai-gpu")).to_have_attribute("data-trouble", "drained")
    expect(page.locator("#bkai-map")).to_contain_text("fan replaced on Monday (admin,")
    ask(site, "ada", "mine")
    expect(waits(page, "mine")).to_contain_text("where it would fit, since")
    expect(waits(page, "mine")).to_contain_text("fan replaced on Monday")
    page.get_by_role("button", name=f"Un{button[0].lower()}{button[1:]}", exact=True).click()
    agree(page, "Use it again")
    expect(waits(page, "mine")).to_have_count(0)
    expect(page.locator(".bkai-holders")).to_contain_text("ada mine")


def test_a_held_group_and_another_priority(page: Page, site: Site) -> None:
    page.get_by_role("button", name="Hold Default").click()
    agree(page, "Hold it", reason="the exam")
    expect(page.locator(".bkai-group")).to_contain_text("the exam (admin,")
    ask(site, "ada", "early")
    ask(site, "bob", "second")
    places = page.locator(".bkai-waits")
    expect(places).to_have_text([re.compile("1 ada early"), re.compile("2 bob second")])
    expect(waits(page, "early")).to_contain_text(
        re.compile("The administrator holds Default since .* UTC: the exam.")
    )
    waits(page, "second").get_by_role("button", name="Priority of bob · second: 10").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Priority").fill("101")
    dialog.get_by_role("button", name="Set it").click()
    expect(dialog).to_be_visible()
    agree(page, "Set it", priority="90")
    expect(places).to_have_text([re.compile("1 bob second"), re.compile("2 ada early")])
    waits(page, "early").get_by_role("button", name="Cancel ada · early").click()
    agree(page, "Yes, cancel it")
    expect(waits(page, "early")).to_have_count(0)
    page.get_by_role("button", name="Release Default").click()
    agree(page, "Release it")
    expect(page.locator(".bkai-waits")).to_have_count(0)
    expect(page.locator(".bkai-holders")).to_contain_text("bob second")


def test_it_is_found_by_administrators_and_refused_to_others(browser: Browser, site: Site) -> None:
    page = log_in(browser, site, "admin")
    page.goto(f"{site.url}/hub/admin")
    page.get_by_role("link", name="Queue and devices: who waits").click()
    expect(page.get_by_role("heading", name="Queue and devices")).to_be_visible()
    link = page.get_by_role("link", name="Queue and devices", exact=True)
    expect(link).to_have_attribute("aria-current", "page")
    page.context.close()
    page = log_in(browser, site, "ada")
    answer = page.goto(f"{site.url}/services/bkai/admin/queue")
    assert answer is not None
    assert answer.status == 403
    expect(page.get_by_role("alert")).to_have_text(
        "Only administrators see this page; you are logged in as ada."
    )
    expect(page.get_by_role("link", name="Queue and devices")).to_have_count(0)
    page.context.close()


@pytest.fixture(scope="module")
def many(a_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with 400 devices on 50 machines."""
    layout = tmp_path_factory.mktemp("devices") / "many.toml"
    layout.write_text(HUNDREDS.format(nodes="".join(NODE.format(n=n) for n in range(50))))
    return a_site(devices=f"fake:{layout}").start()


def test_hundreds_of_devices_are_tiles_that_open_and_are_filtered(browser: Browser, many: Site) -> None:
    page = log_in(browser, many, "admin")
    open_page(page, many)
    expect(page.locator(".bkai-gputile")).to_have_count(400)
    expect(page.get_by_role("button", name="Tiles")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Show only what has this in its name").fill("rack-017")
    expect(page.locator(".bkai-gputile")).to_have_count(8)
    page.locator(".bkai-gputile").nth(3).press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("card 3 of rack-017")
    dialog.get_by_role("button", name="Drain card 3 of rack-017").click()
    agree_to = page.get_by_role("dialog", name="Drain card 3 of rack-017?")
    agree_to.get_by_label("Reason").fill("hot")
    agree_to.get_by_role("button", name="Drain it").click()
    expect(dialog).to_contain_text("hot (admin,")
    page.keyboard.press("Escape")
    page.get_by_label("Show only what has this in its name").fill("")
    page.get_by_label("Which devices are shown").select_option("drained or broken")
    expect(page.locator(".bkai-gputile")).to_have_count(1)
    page.get_by_label("Show only what has this in its name").fill("nothing like it")
    expect(page.locator("#bkai-map-empty")).to_have_text("No device fits what you are looking for.")
    page.get_by_label("Which devices are shown").select_option("all devices")
    page.get_by_label("Show only what has this in its name").fill("rack-01")
    page.get_by_role("button", name="Cards").click()
    expect(page.locator("#bkai-map .bkai-gpu")).to_have_count(80)
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, site: Site, scheme: str) -> None:
    site.call(site.token("admin"), "POST", "/groups/default/hold", json={"why": "x" * 300})
    for number in range(2):
        ask(site, "ada", f"a{number}-long-name-of-30-letters"[:30])
    page = log_in(browser, site, "admin", viewport=PHONE, color_scheme=scheme)
    open_page(page, site)
    expect(page.locator(".bkai-waits")).to_have_count(2)
    assert not overflows(page)
    page.context.close()
    site.call(site.token("admin"), "DELETE", "/groups/default/hold")
