"""Accounts with a password each, approved by an administrator: NativeAuthenticator, made fit for JupyterHub 6.1.

Owns what differs from the library: the hub's own login page (the library's needs a part that the hub no longer
has), changes by POST only (the library's approve and discard are links, which another site can have an
administrator follow), a first administrator, and plain sentences. Table, hashes and checks are the library's.
"""

import json
import time
from math import ceil
from pathlib import Path
from typing import Any

from jupyterhub.handlers.login import LoginHandler
from jupyterhub.scopes import needs_scope
from nativeauthenticator.handlers import (
    AuthorizationAreaHandler,
    ChangePasswordAdminHandler,
    ChangePasswordHandler,
    LocalBase,
    SignUpHandler,
)
from nativeauthenticator.nativeauthenticator import NativeAuthenticator
from nativeauthenticator.orm import UserInfo
from tornado import web
from traitlets import Bool, Integer, Unicode, default

from jupyterhub_bkai.hubconfig.attempts import Attempts, address

#: bcrypt reads no further.
LONGEST_PASSWORD = 72
#: Names become folders and Linux users.
NAMES = r"^[a-z][a-z0-9._-]{0,30}$"


class AccountsAuthenticator(NativeAuthenticator):  # type: ignore[misc]  # the library is untyped
    """People sign up; an administrator lets them in; each has a password of their own."""

    first_login_file = Unicode(
        "",
        config=True,
        help="A JSON file with the first administrator's name and bcrypt hash; removed once stored.",
    )
    minimum_password_length = Integer(8, config=True, help="The fewest characters of a password.")
    check_common_password = Bool(True, config=True, help="Refuse the most common passwords.")
    allowed_failed_logins = Integer(
        10, config=True, help="So many wrong passwords for a name from one address, then a pause."
    )
    seconds_before_next_try = Integer(60, config=True, help="How long that pause is.")

    @default("allow_all")
    def _everybody_approved(self) -> bool:
        return not self.allowed_users

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attempts = Attempts(time.monotonic)
        if not self.username_pattern:
            self.set_trait("username_pattern", NAMES)  # not a default: only a change compiles it
        if self.first_login_file:
            self._store_first_login(Path(self.first_login_file))

    def _store_first_login(self, file: Path) -> None:
        """Give the first administrator the password whose hash is in the file."""
        try:
            first = json.loads(file.read_bytes())
        except FileNotFoundError:
            return
        account = self.get_user(first["user"])
        if account is None:
            account = UserInfo(username=first["user"])
            self.db.add(account)
        account.password = first["bcrypt"].encode()
        account.is_authorized = True
        self.db.commit()
        file.unlink()

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """The user's name, None for a wrong name or password, a sentence for who is not approved yet."""
        password = data.get("password", "")
        if not _hashable(password) or "username" not in data:
            return None
        name: str = self.normalize_username(data["username"])
        who = name[:200], address(handler.request)
        # Looked at first: who has to wait learns nothing of the password, and costs no hash.
        if pause := self._attempts.pause_s(who, self.allowed_failed_logins, self.seconds_before_next_try):
            raise web.HTTPError(403, f"Too many wrong passwords: wait {ceil(pause)} seconds, then try again.")
        account = self.get_user(name)
        if account is None or not _fits(account, password, data.get("2fa")):
            self._attempts.wrong(who)
            return None
        self._attempts.right(who)
        if not account.is_authorized:
            raise web.HTTPError(403, "Your account waits for an administrator's approval.")
        return name

    def is_password_strong(self, password: str) -> bool:
        """Long enough, not too long, and none that everybody tries first."""
        return _hashable(password) and bool(super().is_password_strong(password))

    def create_user(self, username: str, password: str, **kwargs: Any) -> UserInfo | None:
        """A new account. It waits for approval, also one that the configuration makes an administrator:

        otherwise whoever takes such a name first would be one.
        """
        account = super().create_user(username, password, **kwargs)
        if account is not None and account.is_authorized and not self.open_signup:
            account.is_authorized = False
            self.db.commit()
        return account

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """The pages."""
        return [
            (r"/login", LoginHandler),
            (r"/signup", SignUp),
            (r"/authorize", AuthorizationAreaHandler),
            (r"/authorize/([^/]+)", Approve),
            (r"/discard/([^/]+)", Discard),
            (r"/change-password", ChangePassword),
            (r"/change-password/([^/]+)", ChangePasswordAdminHandler),
        ]


def waiting(db: Any) -> int:
    """How many accounts wait for an administrator's approval."""
    return int(db.query(UserInfo).filter_by(is_authorized=False).count())


def _fits(account: UserInfo, password: str, second: str | None) -> bool:
    if not account.is_valid_password(password):
        return False
    return not account.has_2fa or bool(second and account.is_valid_token(second))


def _hashable(password: str) -> bool:
    return len(password.encode()) <= LONGEST_PASSWORD and "\0" not in password


class SignUp(SignUpHandler):  # type: ignore[misc]  # the library is untyped
    """`/hub/signup`, with a sentence for each thing that can be wrong."""

    def render_template(self, name: str, **ns: Any) -> Any:
        """A form that comes back keeps the name that was typed."""
        return super().render_template(name, username=self.get_body_argument("username", ""), **ns)

    def get_result_message(
        self,
        user: UserInfo | None,
        assume_user_is_human: bool,
        username_already_taken: bool,
        confirmation_matches: bool,
        user_is_admin: bool,
    ) -> tuple[str, str]:
        """The kind of message and its text."""
        accounts = self.authenticator
        if not assume_user_is_human:
            return "alert-danger", "The check that you are a person failed: try again."
        if username_already_taken:
            return "alert-danger", "This name is taken: choose another."
        if not confirmation_matches:
            return "alert-danger", "The two passwords differ: type the same one twice."
        if user is not None and user.is_authorized:
            return "alert-success", "Your account is ready: you can sign in now."
        if user is not None:
            return "alert-info", "Your account waits for an administrator's approval; then you can sign in."
        if not accounts.validate_username(
            accounts.normalize_username(self.get_body_argument("username", ""))
        ):
            return "alert-danger", (
                "This name cannot be used: take 1 to 31 of a–z, 0–9, dot, hyphen and underscore, "
                "beginning with a letter."
            )
        return "alert-danger", (
            f"This password is too easy or too long: take {accounts.minimum_password_length} to {LONGEST_PASSWORD} "
            "characters, and none of the common ones."
        )


class ChangePassword(ChangePasswordHandler):  # type: ignore[misc]  # the library is untyped
    """`/hub/change-password`; who has no account here (any more) is told so."""

    async def prepare(self) -> None:
        """Refuse who has no password that could be changed."""
        await super().prepare()
        user = self.current_user
        if user is not None and not self.authenticator.user_exists(user.name):
            raise web.HTTPError(404, "You have no password here that could be changed.")


class _Change(LocalBase):  # type: ignore[misc]  # the library is untyped
    """Something done to one account by an administrator, by POST with the form's token; then back to the list."""

    def get(self, name: str) -> None:
        """A link changes nothing."""
        self.redirect(self.hub.base_url + "authorize")

    @needs_scope("admin:users")  # type: ignore[untyped-decorator]  # jupyterhub is untyped
    async def post(self, name: str) -> None:
        """Do it."""
        account = self.authenticator.get_user(name)
        if account is None:
            raise web.HTTPError(404, "There is no such account.")
        self.change(account)
        self.redirect(self.hub.base_url + "authorize")

    def change(self, account: UserInfo) -> None:
        """What is done."""
        raise NotImplementedError


class Approve(_Change):
    """`/hub/authorize/NAME`: let somebody in, or keep them out again."""

    def change(self, account: UserInfo) -> None:
        """Turn the approval round."""
        if account.username == self.current_user.name:
            raise web.HTTPError(400, "You cannot lock yourself out.")
        UserInfo.change_authorization(self.db, account.username)


class Discard(_Change):
    """`/hub/discard/NAME`: forget somebody who was not let in."""

    def change(self, account: UserInfo) -> None:
        """Forget the request for an account; the name can be taken again."""
        if account.is_authorized:
            raise web.HTTPError(400, "This account is approved: take the approval back first.")
        self.db.delete(account)
        self.db.commit()
