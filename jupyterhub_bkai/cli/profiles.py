"""Logins: which hub, which token. The file `bkai/profiles.json` in the user's configuration folder, mode 0600.

Owns the order in which logins are looked for: BKAI_URL and BKAI_TOKEN, then the profile, then, inside a session,
the session's own. A token is never used with another address than the one it was saved for.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jupyterhub_bkai.client.errors import BkaiError, NotLoggedIn


@dataclass(frozen=True, slots=True)
class Login:
    """One hub and a token for it."""

    url: str
    token: str
    user: str = ""

    def __repr__(self) -> str:
        return f"Login({self.url!r}, user={self.user!r})"


def path() -> Path:
    """Where logins are kept."""
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "bkai" / "profiles.json"


def load() -> dict[str, Login]:
    """Every saved login by its profile's name."""
    try:
        rows = json.loads(path().read_text("utf-8"))
        return {str(name): Login(row["url"], row["token"], row.get("user", "")) for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BkaiError(
            f"The file of your logins, {path()}, cannot be read ({type(error).__name__}); "
            "repair or delete it and log in again.",
            reason="bad-profiles",
        ) from error


def save(logins: Mapping[str, Login]) -> None:
    """Replace the saved logins, readable by nobody else."""
    file = path()
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump({name: asdict(login) for name, login in logins.items()}, out, indent=2)
        new.replace(file)
    except OSError as error:
        raise BkaiError(
            f"The login cannot be saved in {file.parent}: {error.strerror}.", reason="bad-profiles"
        ) from error


def credentials(profile: str, environment: Mapping[str, str] = os.environ) -> Login:
    """The login to use now."""
    url, token = environment.get("BKAI_URL", ""), environment.get("BKAI_TOKEN", "")
    if url and token:
        return Login(url, token)
    if url:
        return _saved_for(url)
    saved = load()
    if profile in saved:
        return Login(saved[profile].url, token or saved[profile].token)
    if profile != "default":
        known = f"there is {', '.join(sorted(saved))}" if saved else "there is none"
        raise NotLoggedIn(
            f"There is no login named “{profile}” ({known}); use “bkai login --profile {profile}”."
        )
    session_url, session_token = environment.get("BKAI_SERVICE_URL"), environment.get("JUPYTERHUB_API_TOKEN")
    if session_url and session_token:
        return Login(session_url, session_token)
    if len(saved) == 1:
        return next(iter(saved.values()))
    if saved:
        raise NotLoggedIn(f"Say which login to use with --profile: {', '.join(sorted(saved))}.")
    raise NotLoggedIn("You are not logged in; use “bkai login ADDRESS”.")


def _saved_for(url: str) -> Login:
    from jupyterhub_bkai.client.wire import service_url

    wanted = service_url(url)
    for login in load().values():
        if service_url(login.url) == wanted:
            return login
    raise NotLoggedIn(f"There is no token for {url}: set BKAI_TOKEN, or use “bkai login {url}”.")
