"""The service's own pages: sessions, the administrators' queue, the form's live answer, the files that pages load.

Owns what a page is rendered with; what it shows comes through the public REST and its event stream, so that
people see nothing here that a program could not. The frame is the Hub's own `page.html`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader
from jupyterhub._data import DATA_FILES_PATH
from tornado import web

from jupyterhub_bkai.api import asking
from jupyterhub_bkai.api.auth import HubLogin
from jupyterhub_bkai.api.context import Context
from jupyterhub_bkai.api.operations import BoundedBody, encode, error_body, read_json, to_public
from jupyterhub_bkai.api.site import offer_json
from jupyterhub_bkai.errors import PublicError
from jupyterhub_bkai.model import Person

HERE = Path(__file__).resolve().parent
TEMPLATES = HERE / "templates"
STATIC = HERE / "static"
HUB_TEMPLATES = Path(DATA_FILES_PATH) / "templates"


class Options(msgspec.Struct):
    """Raw options, as the form would send them."""

    options: dict[str, Any] = {}


class TicketRefused(PublicError):
    """A form that was opened too long ago."""

    status = 401
    default_reason = "stale-page"


def routes(context: Context, prefix: str) -> list[Any]:
    """The handlers under `prefix` ("/services/bkai/"). `context` and `hub_auth` are in the application's settings."""
    environment = pages_environment()
    return [
        (prefix.rstrip("/"), web.RedirectHandler, {"url": prefix, "permanent": False}),
        (prefix, SessionsPage, {"environment": environment}),
        (f"{prefix}admin/queue", QueuePage, {"environment": environment}),
        (f"{prefix}admin/policies", PoliciesPage, {"environment": environment}),
        (f"{prefix}form/check", FormCheck),
        (f"{prefix}static/(.*)", Static, {"path": str(STATIC)}),
    ]


def pages_environment() -> Environment:
    """Where templates are looked for: ours, then the Hub's."""
    found = Environment(
        loader=ChoiceLoader(
            [
                PrefixLoader({"templates": FileSystemLoader(HUB_TEMPLATES)}, "/"),
                FileSystemLoader([TEMPLATES, HUB_TEMPLATES]),
            ]
        ),
        autoescape=True,
        extensions=["jinja2.ext.i18n"],
    )
    found.install_null_translations(newstyle=True)  # type: ignore[attr-defined]  # added by the extension
    return found


class PageUser:
    """The user as the Hub's templates know one."""

    def __init__(self, person: Person) -> None:
        self.name, self.admin = person.name, person.admin
        self.json_escaped_name = msgspec.json.encode(self.name).decode()[1:-1].replace("<", "\\u003c")


class HubPage(HubLogin):
    """A page in the Hub's look; without a login, the way to it."""

    template = title = ""
    #: whether everybody else is refused
    administrators = False

    def initialize(self, environment: Environment) -> None:
        """`environment` finds the templates."""
        self.environment = environment

    async def get(self) -> None:
        """Renders the page."""
        try:
            caller = await self.find_caller()
        except PublicError as error:
            self.show(error.status, "bkai/refused.html", title=self.title, message=error.message)
            return
        if caller is None:
            self.redirect(self.get_login_url())
            return
        person = caller.person
        common = {
            "user": PageUser(person),
            "admin": person.admin,
            "groups": {g.name: g.title for g in self.context.settings.groups if g.open_to(person)},
            "parsed_scopes": {"admin-ui": set()} if person.admin else {},
        }
        if self.administrators and not person.admin:
            message = f"Only administrators see this page; you are logged in as {person.name}."
            self.show(403, "bkai/refused.html", title=self.title, message=message, **common)
            return
        self.show(200, self.template, **common)

    def show(self, status: int, template: str, **values: Any) -> None:
        """One page in the Hub's look."""
        hub = self.hub_auth.hub_prefix
        context = self.context
        common = {
            "base_url": hub,
            "prefix": hub.removesuffix("hub/"),
            "static_url": static_url(hub),
            "login_url": f"{hub}login",
            "logout_url": f"{hub}logout",
            "no_spawner_check": True,
            "services": [],
            "parsed_scopes": {},
            "user": None,
            "xsrf_token": self.xsrf_token.decode("ascii"),
            "bkai_sessions_url": self.hub_auth.base_url,
            "bkai_fake_devices": context.fake,
            "process_users": context.process_users,
            **context.template_settings,
        }
        self.set_status(status)
        self.finish(self.environment.get_template(template).render(common | values))

    def set_default_headers(self) -> None:
        """Nobody frames the page, nobody keeps it."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")


class SessionsPage(HubPage):
    """Sessions: one's own, and for administrators everyone's."""

    template, title = "bkai/sessions.html", "Sessions"


class QueuePage(HubPage):
    """What waits and why, and who holds what on each device."""

    template, title, administrators = "bkai/queue.html", "Queue and devices", True


class PoliciesPage(HubPage):
    """Groups, policies and presets."""

    template, title, administrators = "bkai/policies.html", "Policies", True


def static_url(hub: str) -> Callable[..., str]:
    """What the Hub's templates call to name the Hub's own files."""
    return lambda path, include_version=True: f"{hub}static/{path}"


class FormCheck(BoundedBody):
    """The form's live answer: what would happen, and what is free now. The ticket says for whom."""

    @property
    def context(self) -> Context:
        """The parts of the service."""
        found: Context = self.application.settings["context"]
        return found

    def check_xsrf_cookie(self) -> None:
        """A ticket in a header cannot be sent by somebody else's page; no cookie counts here."""

    def post(self) -> None:
        """Checks options."""
        try:
            self.answer(self._checked())
        except Exception as error:  # noqa: BLE001  the process edge: everything becomes an answer
            public = to_public(error)
            self.set_status(public.status)
            self.answer(error_body(public))

    def _checked(self) -> dict[str, Any]:
        context = self.context
        person = context.tickets.read(self.request.headers.get("X-Bkai-Ticket", ""), context.now_ms())
        if person is None:
            raise TicketRefused("This page is old; reload it.")
        raw = read_json(self.body, Options).options
        errors, outlook = asking.check(context, person, raw)
        return {
            "errors": errors,
            "outlook": {"starts": outlook.starts, "message": outlook.message} if outlook else None,
            "offer": offer_json(asking.offer(context, person)),
        }

    def answer(self, body: dict[str, Any]) -> None:
        """JSON, for this page alone."""
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(encode(body))


class Static(web.StaticFileHandler):
    """Scripts and styles. Looked at again each time (an unchanged one costs a few bytes), so that an upgrade shows."""

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """A name that no file can have is none of ours, and no error."""
        if "\0" in absolute_path:
            raise web.HTTPError(404)
        return super().validate_absolute_path(root, absolute_path)

    def set_extra_headers(self, path: str) -> None:
        """Asked again, and taken for what it is."""
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")

    def get_content_type(self) -> str:
        """Modules are only run with a script's type, whatever the machine's mime table says."""
        if self.absolute_path and os.path.splitext(self.absolute_path)[1] == ".js":
            return "text/javascript; charset=utf-8"
        return super().get_content_type()
