"""The spawn form: what people fill in on the Hub's page, and what the Hub makes of it.

Owns the form's data and its HTML (`templates/bkai/form.html`); labels and helps are the declaration's
(`options.FIELDS`), what can be chosen is the service's answer. Decides nothing about a request: the service
checks it, while one types (through the page's script and a ticket) and again when it is sent (`submitted`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn, Protocol
from weakref import WeakKeyDictionary

from jinja2 import Environment, FileSystemLoader
from tornado import web

from jupyterhub_bkai.errors import PublicError
from jupyterhub_bkai.options import BY_KEY, KEYS, duration_text, size_text

TEMPLATES = Path(__file__).resolve().parent / "templates"
#: Where the service answers in the browser, behind the same proxy as the Hub.
SERVICE = "services/bkai/"
#: For so long a refused form is shown again with what was typed; the Hub renders it within the same request.
KEEP_S = 30.0

Raw = dict[str, Any]


class Trusted(Protocol):
    """The part of the service's client that the form needs."""

    async def choices(self, user: str, groups: Sequence[str], admin: bool) -> Mapping[str, Any]:
        """What the person can choose from: `offer`, and a `ticket` for the live answer."""

    async def check(
        self, user: str, groups: Sequence[str], admin: bool, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """`errors` by field and the `outlook`."""


class FormRefused(web.HTTPError):
    """What was sent cannot be had; the Hub shows the form again with the sentences on top."""

    def __init__(self, errors: Mapping[str, str], status: int = 400) -> None:
        super().__init__(status, "%s", " ".join(errors.values()))
        # Read by the Hub: as text, and for our own page as a list that leads to the fields.
        self.jupyterhub_message = " ".join(errors.values())
        self.jupyterhub_html_message = _environment().get_template("bkai/errors.html").render(errors=errors)


class OnlyAsked(Exception):
    """Options came in an address. Any site can have a browser follow a link, so they are shown and never started."""

    jupyterhub_message = "A link filled in this form. Nothing has been started: look through it first."


@dataclass(slots=True)
class Refused:
    """A form that was sent back: what had been typed, and what is wrong with it by field."""

    values: Raw
    errors: Mapping[str, str]
    at: float = field(default_factory=time.monotonic)


# The Hub renders the form again with the user's default spawner, whichever was asked for: so it is kept by user.
_refused: "WeakKeyDictionary[Any, Refused]" = WeakKeyDictionary()


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    found.install_null_translations(newstyle=True)  # type: ignore[attr-defined]  # added by the extension
    found.filters |= {"size": size_text, "duration": duration_text, "share": share_text}
    return found


def share_text(share: str) -> str:
    """A share for people: "1/4" is 25 %."""
    return f"{float(Fraction(share)) * 100:.1f}".removesuffix(".0") + " %"


# -- shown ---------------------------------------------------------------------------------------


async def render(spawner: Any) -> str:
    """The form as HTML, for the Hub's `options_form`."""
    user = spawner.user
    forget(spawner)
    refused = _refused.pop(user, None)
    if refused is not None and time.monotonic() - refused.at > KEEP_S:
        refused = None
    try:
        answer = await spawner.trusted.choices(user.name, [group.name for group in user.groups], user.admin)
    except PublicError as error:
        return page(error=error.message)
    values = refused.values if refused else _last_time(spawner)
    return page(
        offer=answer["offer"],
        values=values,
        errors=refused.errors if refused else {},
        place={
            "ticket": answer.get("ticket"),
            "hub": spawner.hub.base_url,
            "service": spawner.hub.base_url.removesuffix("hub/") + SERVICE,
            "user": user.escaped_name,
            "server": spawner.name,
            "taken": sorted(name for name, other in user.spawners.items() if name and other.active),
            "returned": refused is not None,
        },
    )


def forget(spawner: Any) -> None:
    """The Hub notes a server as soon as the form for its name is opened; one that never was is none to list.

    The Hub itself makes no use of it after the form, and notes it anew when the form is sent.
    """
    user, name, row = spawner.user, spawner.name, spawner.orm_spawner
    used = spawner.active or row.server or row.started or row.last_activity or row.user_options or row.state
    titled = row.display_name not in (None, "", name)
    if not name or used or titled or row not in user.db:
        return
    user.spawners.pop(name, None)
    user.db.delete(row)
    user.db.commit()


def _last_time(spawner: Any) -> Raw:
    """What this server was started with before; how many it was and what they were called is asked anew."""
    once = ("count", "name", "together", "not_before", "after")
    return {k: v for k, v in (spawner.user_options or {}).items() if k not in once}


def page(
    *,
    offer: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
    errors: Mapping[str, str] | None = None,
    place: Mapping[str, Any] | None = None,
    error: str = "",
) -> str:
    """The HTML for an offer; without one, the sentence why there is none."""
    template = _environment().get_template("bkai/form.html")
    if offer is None:
        return template.render(trouble=error)
    if not offer["groups"] or not offer["images"]:
        what = "image version" if offer["groups"] else "resource group"
        return template.render(trouble=f"You may use no {what} yet; ask an administrator.")
    typed = filled(values or {}, offer)
    return template.render(
        offer=offer,
        families=families(offer["images"]),
        slots=slots(offer["groups"]),
        group=next((g for g in offer["groups"] if g["name"] == typed["group"]), offer["groups"][0]),
        values=typed,
        errors=dict(errors or {}),
        fields=BY_KEY,
        types=list(dict.fromkeys(kind for g in offer["groups"] for kind in g["session_types"])),
        folders=folders(offer["groups"], typed["folders"]),
        profiles=list(dict.fromkeys(p for g in offer["groups"] for s in g["slots"] for p in s["mig"])),
        place=dict(place or {}),
        data={"offer": offer, "place": dict(place or {})},
    )


def filled(values: Mapping[str, Any], offer: Mapping[str, Any]) -> Raw:
    """Every field's value as text: what was typed, or used the last time, or the default."""
    typed: Raw = {key: _text(values.get(key)) or BY_KEY[key].default for key in KEYS}
    typed["folders"] = _mounts(values.get("folders"))
    known = {"version": offer["images"], "group": offer["groups"]}
    for key, choices in known.items():
        names = [choice["version" if key == "version" else "name"] for choice in choices]
        typed[key] = typed[key] if typed[key] in names else names[0]
    typed["accelerator"] = typed["accelerator"] or ("" if _amounts(typed) else "none")
    group = next(g for g in offer["groups"] if g["name"] == typed["group"])
    if not typed["duration"] and group["default_duration_s"]:
        typed["duration"] = duration_text(group["default_duration_s"]).replace(" ", "").replace("min", "m")
    return typed


def _amounts(typed: Raw) -> bool:
    return any(typed[key] for key in ("fgpu", "gpu", "mig"))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{key}={part}" for key, part in value.items())
    if isinstance(value, list):
        return " ".join(part for part in value if isinstance(part, str))
    return "" if value is None else str(value)


def _mounts(value: Any) -> dict[str, str]:
    """Folder → mode, from ["data:ro"] or "data:ro models"."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(parts, list):  # a program may send the Hub anything
        return {}
    pairs = (str(part).partition(":") for part in parts)
    return {name: mode or "ro" for name, _, mode in pairs}


@dataclass(frozen=True, slots=True)
class Family:
    """An image family with its versions as offered."""

    name: str
    title: str
    versions: tuple[Mapping[str, Any], ...]


def families(images: Sequence[Mapping[str, Any]]) -> list[Family]:
    """Image versions by family, families in the order of their first version."""
    order = {_family(image): None for image in images}
    found = {key: list(part) for key, part in groupby(sorted(images, key=_family), key=_family)}
    return [Family(name, _common(found[name]) or name, tuple(found[name])) for name in order]


def _family(image: Mapping[str, Any]) -> str:
    return str(image.get("family") or image["version"].split("/")[0])


def _common(images: Sequence[Mapping[str, Any]]) -> str:
    """The words that the titles of a family begin with: "scikit-learn 1.7" and "… 1.8" give "scikit-learn"."""
    words = [image["title"].split() for image in images]
    if len(words) == 1:
        title, version = words[0], images[0]["version"].split("/")[-1]
        return " ".join(title[:-1] if len(title) > 1 and title[-1] == version else title)
    same = [first for first, *rest in zip(*words, strict=False) if all(first == other for other in rest)]
    return " ".join(same)


def slots(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every kind of accelerator there is in some group: its slot name, titles, and where it can be had."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        for slot in group["slots"]:
            one = found.setdefault(slot["slot"], {"slot": slot["slot"], "titles": [], "groups": []})
            one["titles"].append(slot["title"])
            one["groups"].append(group["name"])
    return [one | {"title": " / ".join(dict.fromkeys(one["titles"]))} for one in found.values()]


def folders(groups: Sequence[Mapping[str, Any]], chosen: Mapping[str, str]) -> list[dict[str, str]]:
    """Every folder of some group, with the widest mode it can have anywhere and the mode chosen ("" for not)."""
    found: dict[str, str] = {}
    for group in groups:
        for mount in group["folders"]:
            found[mount["name"]] = "rw" if "rw" in (mount["mode"], found.get(mount["name"])) else "ro"
    return [{"name": name, "mode": mode, "chosen": chosen.get(name, "")} for name, mode in found.items()]


# -- sent ----------------------------------------------------------------------------------------


def parse(formdata: Mapping[str, list[Any]]) -> Raw:
    """Raw options from the fields as the browser sends them: the last value of each, empty ones left out."""
    raw: Raw = {}
    for key, values in formdata.items():
        texts = [value.replace("\r\n", "\n").strip() for value in values if isinstance(value, str)]
        texts = [text for text in texts if text]
        if texts and key != "_xsrf":
            raw[key] = texts if key in ("folders", "after") else texts[-1]
    if raw.get("accelerator") == "none":
        # Amounts that are greyed on the page say nothing.
        raw = {key: value for key, value in raw.items() if key not in ("fgpu", "gpu", "mig", "spread")}
    elif "mig" in raw:
        raw = {key: value for key, value in raw.items() if key not in ("fgpu", "gpu")}
    return raw


def linked(query: Mapping[str, list[Any]], spawner: Any) -> NoReturn:
    """Fill the form with the options of an address, for the Hub's `options_from_query`; a start takes the button.

    Variables are left out: they decide what programs run, and nobody looks through them in a filled form.
    """
    raw = {key: value for key, value in parse(query).items() if key in KEYS and key != "environment"}
    _refused[spawner.user] = Refused(raw, {})
    raise OnlyAsked


async def submitted(form_data: Mapping[str, list[Any]], spawner: Any) -> Raw:
    """Checked raw options, for the Hub's `options_from_form`. Raises `FormRefused` with the sentences."""
    raw = parse(form_data)
    user = spawner.user
    try:
        found = await spawner.trusted.check(user.name, [group.name for group in user.groups], user.admin, raw)
    except PublicError as error:
        _refused[user] = Refused(raw, {})
        forget(spawner)
        raise FormRefused({"": error.message}, error.status) from None
    errors, outlook = dict(found["errors"]), found.get("outlook") or {}
    if not errors and outlook.get("starts") == "never":
        errors = {"": outlook["message"]}
    if errors:
        _refused[user] = Refused(raw, errors)
        forget(spawner)
        raise FormRefused(errors)
    return raw
