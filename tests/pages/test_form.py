"""The form's HTML and what is made of what it sends; the service is a double that answers as it is told."""

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from bkaispawner import form

from jupyterhub_bkai.api.site import offer_json
from jupyterhub_bkai.errors import Unavailable
from jupyterhub_bkai.gpus.slices import Unit
from jupyterhub_bkai.model import Mount, SessionType
from jupyterhub_bkai.options import (
    FIELDS,
    GroupOffer,
    ImageOffer,
    Offer,
    PresetOffer,
    SessionOffer,
    SlotOffer,
)

EVIL = """<script>alert("x")</script>'"&{{ 7*7 }}"""
CARD = SlotOffer(
    "cuda", "NVIDIA H200", devices=2, mig=("1g.18gb",), memory_mib=143771, free=Fraction(1, 2), idle=1
)
OFFER = Offer(
    images=(
        ImageOffer("sklearn/1.8", "scikit-learn 1.8", "The newer one.", "sklearn", 500, 512),
        ImageOffer("sklearn/1.7", "scikit-learn 1.7", "The older one.", "sklearn", ready=False),
        ImageOffer("python/3.11", "Python 3.11", "", "python"),
    ),
    groups=(
        GroupOffer(
            "default",
            "Default",
            Unit(Fraction(2), Fraction(1, 10)),
            (CARD,),
            (SessionType.INTERACTIVE, SessionType.BATCH),
            (Mount("datasets", "ro"), Mount("models", "rw")),
            cpu_milli=8000,
            memory_mib=65536,
            waiting=2,
            default_duration_s=8 * 3600,
        ),
        GroupOffer("plain", "Plain", Unit(), cpu_milli=4000, memory_mib=8192),
    ),
    projects=("vision",),
    presets=(PresetOffer("small", "Small", {"cpu": "2", "fgpu": "0.5"}),),
    sessions=(SessionOffer("0" * 26, "train"),),
    priorities={"": (10, 20), "vision": (20, 50)},
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.found if attributes.get("name") == name]

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.found if "id" in attributes]


def page(offer: Offer = OFFER, **more: Any) -> str:
    return form.page(offer=offer_json(offer), **more)


def checked(html: str, name: str) -> list[str | None]:
    return [radio["value"] for radio in Elements(html).named(name) if "checked" in radio]


class Service:
    """Answers the form's two questions."""

    def __init__(
        self, errors: Mapping[str, str] | None = None, outlook: Any = None, down: bool = False
    ) -> None:
        self.errors, self.outlook, self.down = dict(errors or {}), outlook, down
        self.asked: list[Any] = []

    async def choices(self, user: str, groups: Sequence[str], admin: bool) -> Mapping[str, Any]:
        if self.down:
            raise Unavailable("The platform's service does not answer.")
        return {"offer": offer_json(OFFER), "ticket": "a-ticket"}

    async def check(self, user: str, groups: Sequence[str], admin: bool, options: Any) -> Mapping[str, Any]:
        self.asked.append((user, list(groups), admin, dict(options)))
        return {"errors": self.errors, "outlook": self.outlook}


class Database:
    """The Hub's, as far as the form looks at it: what is in it."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def delete(self, row: Any) -> None:
        self.rows.remove(row)

    def commit(self) -> None:
        """Nothing to do."""

    def __contains__(self, row: object) -> bool:
        return row in self.rows


class User:
    """The Hub's user, as far as the form looks at one."""

    name, escaped_name, admin = "ada", "ada", False

    def __init__(self) -> None:
        self.groups = [SimpleNamespace(name="vision")]
        self.spawners: dict[str, Any] = {}
        self.db = Database()


def spawner(service: Service, name: str = "", options: Mapping[str, Any] | None = None) -> Any:
    user = User()
    user.spawners["busy"] = SimpleNamespace(active=True)
    hub = SimpleNamespace(base_url="/at/hub/")
    row = SimpleNamespace(
        server=None, started=None, last_activity=None, user_options=options, state=None, display_name=name
    )
    one = SimpleNamespace(
        user=user, name=name, hub=hub, trusted=service, user_options=options, orm_spawner=row, active=False
    )
    user.spawners[name] = one
    user.db.rows.append(row)
    return one


# -- shown ---------------------------------------------------------------------------------------


def test_every_declared_field_has_its_control_with_label_help_and_a_place_for_its_error() -> None:
    html = page()
    elements = Elements(html)
    ids = elements.ids()
    assert len(ids) == len(set(ids))
    for field in FIELDS:
        controls = elements.named(field.key)
        assert controls, field.key
        assert field.label in html
        assert f"bkai-{field.key}-help" in ids
        assert f"bkai-{field.key}-error" in ids
        described = [a.get("aria-describedby") or "" for _, a in elements.found]
        assert any(f"bkai-{field.key}-error" in text.split() for text in described), field.key


def test_families_hold_their_versions_under_the_words_their_titles_share() -> None:
    [sklearn, python] = form.families(offer_json(OFFER)["images"])
    assert (sklearn.title, [image["version"] for image in sklearn.versions]) == (
        "scikit-learn",
        ["sklearn/1.8", "sklearn/1.7"],
    )
    assert python.title == "Python"
    assert "Made ready on first use" in page()


def test_the_first_of_everything_and_no_accelerator_are_chosen_at_first() -> None:
    html = page()
    assert checked(html, "version") == ["sklearn/1.8"]
    assert checked(html, "group") == ["default"]
    assert checked(html, "accelerator") == ["none"]
    assert checked(html, "session_type") == ["interactive"]
    assert 'name="duration" value="8h"' in html


def test_what_is_free_is_said_in_words() -> None:
    html = " ".join(page().split())
    assert "1 of 2 idle" in html
    assert "2 requests wait" in html
    assert "no accelerators" in html
    assert "Booked, not enforced." in html


def test_fake_devices_are_called_fake() -> None:
    assert "are fake" not in page()
    assert "are fake" in page(Offer(OFFER.images, OFFER.groups, fake=True))


def test_typed_values_come_back_with_their_errors() -> None:
    values = {
        "version": "sklearn/1.7",
        "accelerator": "cuda",
        "gpu": "0.3",
        "cpu": "many",
        "folders": ["models:rw"],
        "environment": {"A": "1", "B": "two words"},
        "session_type": "batch",
    }
    html = page(
        values=values, errors={"cpu": "Processor cores: “many” is no number.", "gpu": "Not like this."}
    )
    assert checked(html, "version") == ["sklearn/1.7"]
    assert checked(html, "accelerator") == ["cuda"]
    assert checked(html, "session_type") == ["batch"]
    assert 'name="cpu" value="many"' in html
    assert "A=1\nB=two words" in html
    assert '<option value="models:rw" selected>' in html
    assert "“many” is no number." in html
    [cpu] = Elements(html).named("cpu")
    assert cpu["aria-invalid"] == "true"


def test_choices_that_are_gone_fall_back_to_what_there_is() -> None:
    html = page(values={"version": "gone/1", "group": "gone", "accelerator": "gone"})
    assert checked(html, "version") == ["sklearn/1.8"]
    assert checked(html, "group") == ["default"]


def test_hostile_texts_stay_texts() -> None:
    images = (ImageOffer("evil/1", EVIL, EVIL, EVIL),)
    group = GroupOffer(
        EVIL,
        EVIL,
        Unit(),
        (SlotOffer(EVIL, EVIL, devices=1, mig=(EVIL,), memory_mib=1, free=Fraction(1), idle=1),),
        folders=(Mount(EVIL, "rw"),),
        note=EVIL,
    )
    offer = Offer(images, (group,), projects=(EVIL,))
    values = dict.fromkeys(("name", "cpu", "memory", "environment", "fgpu", "count"), EVIL)
    errors = {field.key: EVIL for field in FIELDS}
    html = page(offer, values=values, errors=errors, place={"user": EVIL, "ticket": EVIL})
    tags = [(tag, attributes) for tag, attributes in Elements(html).found if tag == "script"]
    assert tags == [("script", {"type": "application/json", "id": "bkai-form-data"})]
    assert "{{ 7*7 }}" in html
    assert not re.search(r"<script(?! type=\"application/json\")", html)
    [data] = re.findall(r'id="bkai-form-data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)["place"]["user"] == EVIL


@pytest.mark.parametrize(
    ("offer", "sentence"),
    [
        (Offer((), OFFER.groups), "You may use no image version yet"),
        (Offer(OFFER.images, ()), "You may use no resource group yet"),
    ],
)
def test_nothing_to_choose_is_said_instead_of_a_form(offer: Offer, sentence: str) -> None:
    html = page(offer)
    assert sentence in html
    assert "data-bkai-unavailable" in html
    assert not Elements(html).named("version")


async def test_rendered_for_a_spawner_with_ticket_place_and_last_choices() -> None:
    html = await form.render(spawner(Service(), "train", {"version": "sklearn/1.7", "fgpu": "0.5"}))
    [data] = re.findall(r'id="bkai-form-data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)["place"] == {
        "ticket": "a-ticket",
        "hub": "/at/hub/",
        "service": "/at/services/bkai/",
        "user": "ada",
        "server": "train",
        "taken": ["busy"],
        "returned": False,
    }
    assert checked(html, "version") == ["sklearn/1.7"]
    assert checked(html, "accelerator") == ["cuda"]


@pytest.mark.parametrize(
    ("name", "before", "known"),
    [
        ("fresh", {}, False),
        ("", {}, True),
        ("used", {"last_activity": "yesterday"}, True),
        ("asked", {"user_options": {"cpu": "1"}}, True),
        ("live", {"server": "it"}, True),
        ("titled", {"display_name": "My own words"}, True),
    ],
)
async def test_opening_the_form_makes_no_server(name: str, before: dict[str, Any], known: bool) -> None:
    """The Hub has noted one by then; it goes on being noted when it ever was one."""
    for refused in (False, True):
        asked = spawner(Service({"cpu": "No."} if refused else {}), name)
        for key, value in before.items():
            setattr(asked.orm_spawner, key, value)
        if refused:
            with pytest.raises(form.FormRefused):
                await form.submitted({"cpu": ["x"]}, asked)
        else:
            await form.render(asked)
        assert (name in asked.user.spawners, asked.orm_spawner in asked.user.db) == (known, known)


async def test_the_last_start_is_repeated_but_for_its_number_and_name() -> None:
    html = await form.render(spawner(Service(), "train", {"count": "3", "name": "other", "cpu": "2.5"}))
    values = {key: Elements(html).named(key)[0]["value"] for key in ("count", "name", "cpu")}
    assert values == {"count": "1", "name": "", "cpu": "2.5"}


async def test_without_the_service_the_page_says_so() -> None:
    html = await form.render(spawner(Service(down=True)))
    assert "The platform&#39;s service does not answer." in html
    assert "data-bkai-unavailable" in html


# -- sent ----------------------------------------------------------------------------------------


def test_parsed_as_the_service_reads_it() -> None:
    sent: dict[str, list[Any]] = {
        "version": ["sklearn/1.7"],
        "accelerator": ["cuda"],
        "fgpu": [" 0.5 "],
        "gpu": [""],
        "folders": ["", "datasets:ro", "models:rw"],
        "environment": ["A=1\r\nB=2"],
        "_xsrf": ["secret"],
        "file_file": [{"filename": "x", "body": b""}],
    }
    assert form.parse(sent) == {
        "version": "sklearn/1.7",
        "accelerator": "cuda",
        "fgpu": "0.5",
        "folders": ["datasets:ro", "models:rw"],
        "environment": "A=1\nB=2",
    }


def test_amounts_that_the_page_greys_are_not_asked_for() -> None:
    amounts = {"fgpu": ["1"], "gpu": ["0.5"], "mig": ["1g.18gb"], "spread": ["1"]}
    assert form.parse({"accelerator": ["none"], **amounts}) == {"accelerator": "none"}
    assert form.parse({"accelerator": ["cuda"], **amounts}) == {
        "accelerator": "cuda",
        "mig": "1g.18gb",
        "spread": "1",
    }


async def test_a_good_form_is_passed_on_with_who_asks() -> None:
    service = Service(outlook={"starts": "later", "message": "Wait."})
    raw = await form.submitted({"cpu": ["2"], "accelerator": ["none"]}, spawner(service))
    assert raw == {"cpu": "2", "accelerator": "none"}
    assert service.asked == [("ada", ["vision"], False, raw)]


async def test_a_refused_form_comes_back_once_with_everything_typed() -> None:
    asked = spawner(Service({"cpu": f"Processor cores: {EVIL}"}), "train")
    with pytest.raises(form.FormRefused) as refused:
        await form.submitted({"cpu": ["many"], "name": ["train"]}, asked)
    assert refused.value.status_code == 400
    assert refused.value.jupyterhub_message == f"Processor cores: {EVIL}"
    assert 'href="#bkai-cpu"' in refused.value.jupyterhub_html_message
    assert "<script" not in refused.value.jupyterhub_html_message

    # The Hub renders it with the default server's spawner of the same user.
    again = SimpleNamespace(**{**vars(asked), "name": "", "user_options": None})
    html = await form.render(again)
    assert 'name="cpu" value="many"' in html
    assert 'name="name" value="train"' in html
    assert '"returned": true' in html
    assert 'value="many"' not in await form.render(again)


async def test_what_can_never_start_is_refused_with_its_reason() -> None:
    never = {"starts": "never", "message": "No machine of default is large enough for this."}
    with pytest.raises(form.FormRefused, match="No machine of default is large enough"):
        await form.submitted({}, spawner(Service(outlook=never)))


async def test_options_in_an_address_fill_the_form_and_start_nothing() -> None:
    """Any site can have a browser follow a link: what it carries is shown once, and variables not at all."""
    asked = spawner(Service())
    with pytest.raises(form.OnlyAsked):
        form.linked({"cpu": ["2"], "environment": ["A=evil"], "surprise": ["evil"]}, asked)
    html = await form.render(asked)
    assert 'name="cpu" value="2"' in html
    assert "evil" not in html
    assert 'name="cpu" value="2"' not in await form.render(asked)


@pytest.mark.parametrize("value", [5, True, {"a": 1}, 1.5, [5, None, ["x"]]])
def test_options_of_any_kind_can_be_shown_again(value: object) -> None:
    """A program may have sent the Hub anything as this server's options."""
    assert page(values={one.key: value for one in FIELDS})
