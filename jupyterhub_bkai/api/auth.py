"""Who calls: the Hub's browser login or a token → a `Caller`.

A token of a session acts for its owner, but only while the session has a live lease, and never as an administrator;
nor does a token of an administrator that lacks their scopes at the Hub.
"""

from dataclasses import dataclass
from typing import Any

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from tornado import web

from jupyterhub_bkai.api.context import Context
from jupyterhub_bkai.errors import NotAllowed, PublicError
from jupyterhub_bkai.leasing.lifecycle import HOLDING
from jupyterhub_bkai.model import Person

SERVICE = "bkai"
#: the scope without which a token of an administrator is one of anybody's here
ADMINISTRATORS = "admin:servers"


class NotLoggedIn(PublicError):
    """No login, or a token that the Hub does not accept (any more)."""

    status = 401
    default_reason = "not-logged-in"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls; `server` is set when the token is one session's own."""

    person: Person
    server: str | None = None

    def may_see(self, user: str) -> bool:
        """Own things; everyone's for administrators."""
        return user == self.person.name or self.person.admin


def hub_oauth(api_url: str, token: str, prefix: str, cookie_secret: bytes) -> HubOAuth:
    """The Hub's login for the service at `prefix` ("/services/bkai/")."""
    return HubOAuth(
        api_url=api_url,
        api_token=token,
        base_url=prefix,
        oauth_client_id=f"service-{SERVICE}",
        oauth_redirect_uri=f"{prefix}oauth_callback",
        access_scopes={"access:services", f"access:services!service={SERVICE}"},
        # An expired or revoked token is noticed after this many seconds.
        cache_max_age=10,
    )


class HubLogin(HubOAuthenticated, web.RequestHandler):  # type: ignore[misc]  # jupyterhub is untyped
    """A handler that knows its caller after `prepare`; `context` comes from the application."""

    @property
    def context(self) -> Context:
        """The parts of the service."""
        found: Context = self.application.settings["context"]
        return found

    @property
    def hub_auth(self) -> HubOAuth:
        """The Hub's login, one for the application."""
        return self.application.settings["hub_auth"]

    @hub_auth.setter
    def hub_auth(self, value: HubOAuth) -> None:
        raise AttributeError("the application's is used")

    async def find_caller(self) -> Caller | None:
        """Who calls, None without a login. Raises `NotAllowed` for who may not use the service."""
        model = await self.hub_auth.get_user(self, sync=False)
        # What tornado calls `current_user`, so that the Hub's own base class does not ask again, blocking.
        self._hub_auth_user_cache = model
        if model is None:
            return None
        try:
            self.check_hub_user(model)
        except UserNotAllowed:
            raise NotAllowed("This login or token may not use the session service.") from None
        return await self._caller(model)

    async def _caller(self, model: dict[str, Any]) -> Caller:
        name, scopes = model["name"], frozenset(model.get("scopes") or ())
        if model.get("kind") != "user":
            raise NotAllowed("Only people have sessions; use a person's token.")
        user = await self.context.person(name)
        if user is None:
            raise NotAllowed("The Hub does not know this user; log in to the Hub once.")
        server = session_of(name, scopes)
        if server is not None:
            record = self.context.broker.of_server(name, server)
            if record is None or record.state not in HOLDING:
                raise NotLoggedIn("The session that this token belongs to has ended.")
        # The browser's login has no scopes but ours. A token that somebody made narrow stays so.
        by_token = getattr(self, "_token_authenticated", False)
        admin = user.admin and server is None and (not by_token or ADMINISTRATORS in scopes)
        return Caller(Person(name, user.groups, admin), server)


class OAuthCallback(HubLogin, HubOAuthCallbackHandler):  # type: ignore[misc]  # jupyterhub is untyped
    """Finishes the browser's login."""


def session_of(user: str, scopes: frozenset[str]) -> str | None:
    """The server a token belongs to, None for a person's own token or login.

    The Hub gives a session's token access to that one server; people's own reach all of theirs.
    """
    wide = ("access:servers", "access:servers!user", "servers", "servers!user", f"access:servers!user={user}")
    if any(scope in wide or scope == f"servers!user={user}" for scope in scopes):
        return None
    prefix = f"access:servers!server={user}/"
    return next((scope[len(prefix) :] for scope in scopes if scope.startswith(prefix)), None)
