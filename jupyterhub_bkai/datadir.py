"""The data folder: where each thing lies, who may read it, its secrets and the addresses of its parts.

Owns the layout and the files `secrets.json`, `run/addresses.json` and `run/facts.json`. Starts nothing and
knows no process. Standard library only: supervisor, hub configuration and service all read it.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

SECRETS_VERSION = 1
OWNER_ONLY = 0o600
#: When sessions are real Linux users they pass through the folder on their way to `envs/`.
PASSABLE = 0o711
_HEX_LENGTH = 64


class DataFolderError(Exception):
    """The data folder cannot be used as it is; the text is one sentence for the administrator."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """One data folder and the place of everything in it."""

    root: Path

    @property
    def settings(self) -> Path:
        """The administrator's settings (groups, devices, images, folders)."""
        return self.root / "bkai.yaml"

    @property
    def secrets(self) -> Path:
        """The tokens with which the parts know each other."""
        return self.root / "secrets.json"

    @property
    def hub_config(self) -> Path:
        """The hub's configuration, the administrator's to edit."""
        return self.root / "jupyterhub_config.py"

    @property
    def hub_database(self) -> Path:
        """The hub's users and servers."""
        return self.root / "jupyterhub.sqlite"

    @property
    def database(self) -> Path:
        """The service's requests, leases and intervals."""
        return self.root / "bkai.sqlite"

    @property
    def run(self) -> Path:
        """What is true only while something runs: lock, records, socket, addresses."""
        return self.root / "run"

    @property
    def hub_socket(self) -> Path:
        """Where the service listens for the hub alone."""
        return self.run / "hub.sock"

    @property
    def addresses(self) -> Path:
        """Who listens where."""
        return self.run / "addresses.json"

    @property
    def facts(self) -> Path:
        """What the service found out about this machine; written by the service each time it starts."""
        return self.run / "facts.json"

    @property
    def first_login(self) -> Path:
        """The administrator's first password as a hash, from the supervisor to the hub; gone once stored."""
        return self.run / "first-login.json"

    @property
    def login_shown(self) -> Path:
        """There once the administrator's first password has been shown."""
        return self.root / "first-login-shown.txt"

    @property
    def log(self) -> Path:
        """One log file per part."""
        return self.root / "log"

    @property
    def session_logs(self) -> Path:
        """One log file per lease."""
        return self.log / "sessions"

    @property
    def envs(self) -> Path:
        """Image versions as environments."""
        return self.root / "envs"

    @property
    def homes(self) -> Path:
        """Home folders, where sessions are not real Linux users."""
        return self.root / "homes"

    def missing(self) -> bool:
        """True before the first start."""
        return not self.root.exists()

    def create(self) -> None:
        """Make the folders that are missing and close what must be closed; files are left alone.

        As root, other Linux users may pass through (not list) the folder: sessions then run as such users and
        must reach their environment.
        """
        passable = os.geteuid() == 0
        outer = PASSABLE if passable else 0o700
        for folder, mode in (
            (self.root, outer),
            (self.run, 0o700),
            (self.log, 0o700),
            (self.session_logs, 0o700),
            (self.envs, 0o755 if passable else 0o700),
            (self.homes, outer),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        for database in (self.hub_database, self.database):
            # SQLite gives its journals the mode of the database, so this closes those too.
            os.close(os.open(database, os.O_RDONLY | os.O_CREAT, OWNER_ONLY))
            database.chmod(OWNER_ONLY)


def default_folder() -> DataFolder:
    """The folder that is used when none is named.

    For root not in root's home: sessions are then other Linux users, to whom that home is closed.
    """
    return DataFolder(Path("/var/lib/bkai") if os.geteuid() == 0 else Path.home() / ".bkai")


@dataclass(frozen=True, slots=True)
class Secrets:
    """The tokens between the parts. None is ever part of a text: `repr` leaves them out."""

    proxy_token: str = field(repr=False)
    service_token: str = field(repr=False)
    supervisor_token: str = field(repr=False)
    cookie_secret: str = field(repr=False)

    def all(self) -> tuple[str, ...]:
        """Every one of them."""
        return astuple(self)


def new_secrets() -> Secrets:
    """Fresh ones, 32 random bytes each."""
    return Secrets(*(secrets.token_hex(_HEX_LENGTH // 2) for _ in fields(Secrets)))


def write_secrets(folder: DataFolder, value: Secrets) -> None:
    """Store them so that only the owner can read them."""
    write_json(folder.secrets, {"version": SECRETS_VERSION, **asdict(value)})


def read_secrets(folder: DataFolder) -> Secrets:
    """The stored secrets, or a `DataFolderError` that says what is the matter with them."""
    path = folder.secrets
    advice = "restore it from a backup, or delete it to get new ones (everybody then has to log in again)"
    try:
        if path.stat().st_mode & 0o077:
            raise DataFolderError(
                f"{path} can be read by other users of this machine: run `chmod 600 {path}`."
            )
        stored = json.loads(path.read_bytes())
    except OSError as error:
        raise DataFolderError(f"{path} cannot be read ({error.strerror}): make it readable to you.") from None
    except ValueError:
        raise DataFolderError(f"{path} is damaged (it is not JSON): {advice}.") from None
    if not isinstance(stored, dict) or stored.get("version") != SECRETS_VERSION:
        raise DataFolderError(f"{path} is not of a version this program knows: {advice}.")
    found = {item.name: stored.get(item.name) for item in fields(Secrets)}
    for name, token in found.items():
        if not isinstance(token, str) or len(token) != _HEX_LENGTH or set(token) - set("0123456789abcdef"):
            raise DataFolderError(f'{path} is damaged ("{name}" is missing or not a token): {advice}.')
    return Secrets(**{name: str(token) for name, token in found.items()})


@dataclass(frozen=True, slots=True)
class Addresses:
    """Who listens where. All but the first are for the parts among themselves, on loopback.

    `proxy_api_url` is empty where the proxy is not ours to talk to.
    """

    public_url: str
    proxy_api_url: str
    hub_api_url: str
    service_url: str
    service_port: int
    hub_socket: str


def write_addresses(folder: DataFolder, value: Addresses) -> None:
    """Store them for the parts to read."""
    write_json(folder.addresses, asdict(value))


def read_addresses(folder: DataFolder) -> Addresses:
    """The stored addresses, or a `DataFolderError`."""
    stored = _read_object(folder.addresses)
    try:
        return Addresses(**{item.name: stored[item.name] for item in fields(Addresses)})
    except KeyError as missing:
        raise DataFolderError(
            f"{folder.addresses} is damaged (no {missing}): delete it and start again."
        ) from None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the service found: are the devices fake ones, do sessions run as real Linux users ("real", "single").

    `statement` says in one or two sentences where the devices come from.
    """

    fake_devices: bool
    process_users: str
    enforcement: str
    statement: str = ""


def write_facts(folder: DataFolder, value: Facts) -> None:
    """Store them; the hub shows them on every page, the supervisor says them at the start."""
    write_json(folder.facts, asdict(value))


def read_facts(folder: DataFolder) -> Facts | None:
    """The stored facts; None while no service has told any."""
    try:
        stored = _read_object(folder.facts)
        return Facts(**{item.name: stored[item.name] for item in fields(Facts) if item.name in stored})
    except (DataFolderError, TypeError):
        return None


def _read_object(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file."""
    try:
        stored = json.loads(path.read_bytes())
    except OSError as error:
        raise DataFolderError(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError:
        raise DataFolderError(f"{path} is damaged (it is not JSON): delete it and start again.") from None
    if not isinstance(stored, dict):
        raise DataFolderError(f"{path} is damaged (it holds no object): delete it and start again.")
    return stored


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file in one step, readable by its owner only; a killed writer leaves the old one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "w") as stream:
            json.dump(value, stream, indent=2)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
