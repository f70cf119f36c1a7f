"""Everything that is looked at and decided before the first process is started.

Owns the checks of the data folder and the port (each failure is one sentence, and nothing has been changed
by then), the lock that keeps a second supervisor out, and the plan: secrets, addresses, first login.
"""

import errno
import fcntl
import os
import random
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import bcrypt

from jupyterhub_bkai.datadir import (
    Addresses,
    DataFolder,
    DataFolderError,
    Secrets,
    new_secrets,
    read_addresses,
    read_secrets,
    write_addresses,
    write_json,
    write_secrets,
)
from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.gpus.source import SourceOptions, open_source
from jupyterhub_bkai.policy import Settings
from jupyterhub_bkai.settings import DEFAULT_SETTINGS, load
from jupyterhub_bkai.supervise.part import recorded_alive

ADMINISTRATOR = "admin"
LOOPBACK = "127.0.0.1"
SMALLEST_DISK = 100 * 1024 * 1024
_UNMISTAKABLE = "abcdefghijkmnpqrstuvwxyz23456789"
_LOCK = "supervisor.lock"
# Below the range the kernel and Jupyter take ports from at random, so that ours stay free over a restart.
_INTERNAL_PORTS = range(20000, 32000)
_TRIES = 200
# The kernel's limit for a Unix socket's path.
_LONGEST_SOCKET = 107

HUB_CONFIG = """\
# The hub's configuration: yours to edit, never overwritten. What you set here wins over what `configure` would set.
# Every option: https://jupyterhub.readthedocs.io/en/stable/reference/config-reference.html
from pathlib import Path

from jupyterhub_bkai.hubconfig import configure

c = get_config()  # noqa: F821
configure(c, data=Path(__file__).parent)
"""


class CannotStart(Exception):
    """It cannot be started like this; the text is one sentence that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line said."""

    folder: DataFolder
    host: str = LOOPBACK
    port: int = 8000
    fake: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run, settled before anything is."""

    folder: DataFolder
    host: str
    port: int
    secrets: Secrets
    addresses: Addresses
    dummy_login: bool
    #: The administrator's password if it has not been shown yet.
    first_password: str | None = field(repr=False)
    #: Where people reach the site, when each person's sessions have a host name of their own below it.
    subdomain_host: str | None = None


@contextmanager
def planned(asked: Asked) -> Iterator[Plan]:
    """Check, lock and prepare the folder; the lock is held until the end of the block."""
    folder = asked.folder
    with ExitStack() as held:
        try:
            _look(asked)
            held.enter_context(_locked(folder))
            plan = _plan(asked)
        except DataFolderError as error:
            raise CannotStart(str(error)) from None
        except OSError as error:
            place = error.filename or folder.root
            raise CannotStart(f"{place} cannot be used for the data ({error.strerror}).") from error
        yield plan


def _look(asked: Asked) -> None:
    """Find what is wrong while nothing has been touched yet."""
    folder = asked.folder
    _is_ours(folder)
    _is_writable(folder.root)
    if os.geteuid() == 0:
        _is_passable(folder.root)
    if folder.secrets.exists():
        read_secrets(folder)
    if len(os.fsencode(folder.hub_socket)) > _LONGEST_SOCKET:
        raise CannotStart(
            f"{folder.root} is too long a path for a socket in it: name a shorter one with --data."
        )
    if asked.fake is not None:
        _can_pretend(folder, asked.fake)
    if _login_is_dummy(folder) and not _is_loopback(asked.host):
        raise CannotStart(
            f'"auth: dummy" in {folder.settings} lets anybody in as anybody: it is allowed on {LOOPBACK} only, '
            f"not on {asked.host}."
        )
    if not _already_ours(asked):
        _is_free(asked.host, asked.port)


def _is_ours(folder: DataFolder) -> None:
    """Refuse a folder that holds something else: its mode would be changed and files put beside them."""
    root = folder.root
    if root.exists() and not root.is_dir():
        raise CannotStart(f"{root} is a file: name a folder for the data with --data.")
    known = (folder.secrets, folder.settings, folder.hub_config)
    if root.is_dir() and not any(path.exists() for path in known) and any(root.iterdir()):
        raise CannotStart(
            f"{root} holds other things and is no data folder: name an empty or a new one with --data."
        )


def _is_writable(root: Path) -> None:
    nearest = next(place for place in (root, *root.parents) if place.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise CannotStart(f"{nearest} is not writable for you: name another folder with --data.")
    free = shutil.disk_usage(nearest).free
    if free < SMALLEST_DISK:
        raise CannotStart(
            f"The disk of {root} has {free >> 20} MiB left and at least {SMALLEST_DISK >> 20} MiB are needed: "
            "make room or name another folder with --data."
        )


def _is_passable(root: Path) -> None:
    """As root, sessions are other Linux users, and must get through to their environments."""
    for parent in root.parents:
        if parent.exists() and not parent.stat().st_mode & 0o001:
            raise CannotStart(
                f"Sessions run as Linux users of their own and cannot reach {root}, because {parent} is closed to "
                "others: name another folder with --data, for example /var/lib/bkai."
            )


def _can_pretend(folder: DataFolder, sample: str) -> None:
    """--fake is written into the first settings file; an existing one is the administrator's alone."""
    if folder.settings.exists() and (devices := _settings(folder).devices) != f"fake:{sample}":
        raise CannotStart(
            f'{folder.settings} says "devices: {devices}": write "devices: fake:{sample}" there instead of giving '
            "--fake, or name another folder with --data."
        )
    try:
        open_source("fake", SourceOptions(node="this machine", argument=sample, folder=folder.root))
    except SettingsError as error:
        raise CannotStart(
            f"--fake {sample}: {'; '.join(sentence for _, sentence in error.problems)}"
        ) from None


def _settings(folder: DataFolder) -> Settings:
    """The administrator's settings as they are now, or as they will be written."""
    try:
        return load(folder.settings.read_text())
    except FileNotFoundError:
        return load(DEFAULT_SETTINGS)
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"{folder.settings} cannot be read ({error}).") from None
    except SettingsError as error:
        problems = "; ".join(f"{place}: {sentence.rstrip('.')}" for place, sentence in error.problems)
        raise CannotStart(f"{folder.settings} has mistakes: {problems}.") from None


def _login_is_dummy(folder: DataFolder) -> bool:
    """True when the administrator's settings let anybody in, which is for trying out only."""
    kind = _settings(folder).extra.get("auth", "accounts")
    if kind not in {"accounts", "dummy"}:
        raise CannotStart(f'{folder.settings}: "auth" is {kind!r}; it can be "accounts" or "dummy".')
    return bool(kind == "dummy")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _already_ours(asked: Asked) -> bool:
    """True when an earlier supervisor of this folder left the proxy on this very port."""
    try:
        return read_addresses(asked.folder).public_url == _url(asked.host, asked.port) and recorded_alive(
            asked.folder, "proxy"
        )
    except DataFolderError:
        return False


def _is_free(host: str, port: int) -> None:
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"Port {port} of {host} is taken by another program: end that one, or choose another port with --port."
            ) from None
        if error.errno == errno.EACCES:
            raise CannotStart(f"Port {port} is for root only: choose one from 1024 on with --port.") from None
        raise CannotStart(f"{host} is no address of this machine: choose another with --host.") from None


def _bind(host: str, port: int) -> int:
    """Take a port for a moment; its number."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


@contextmanager
def _locked(folder: DataFolder) -> Iterator[None]:
    """Make the folder and keep every other supervisor out of it; the kernel lets go when we end."""
    folder.create()
    if os.geteuid() == 0:
        _is_passable(folder.root)  # again: a strict umask closes the parents that had to be made
    descriptor = os.open(folder.run / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise CannotStart(
                f"bkai already runs on {folder.root} (pid {pid}): end that one with Ctrl-C or `kill {pid}` first, "
                "or name another folder with --data."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _plan(asked: Asked) -> Plan:
    folder = asked.folder
    if folder.secrets.exists():
        known = read_secrets(folder)
    else:
        known = new_secrets()
        write_secrets(folder, known)
    if not folder.hub_config.exists():
        _write_new(folder.hub_config, HUB_CONFIG)
    if not folder.settings.exists():
        devices = f"devices: fake:{asked.fake}" if asked.fake else "devices: auto"
        _write_new(folder.settings, DEFAULT_SETTINGS.replace("devices: auto", devices, 1))
    port = asked.port or _bind(asked.host, 0)
    addresses = _addresses(folder, _url(asked.host, port))
    write_addresses(folder, addresses)
    dummy = _login_is_dummy(folder)
    shown = dummy or folder.login_shown.exists()
    return Plan(
        folder=folder,
        host=asked.host,
        port=port,
        secrets=known,
        addresses=addresses,
        dummy_login=dummy,
        first_password=None if shown else _prepare_login(folder),
        subdomain_host=_settings(folder).subdomain_host,
    )


def _write_new(path: Path, text: str) -> None:
    """A file for the administrator, who may come to keep secrets in it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)


def _url(host: str, port: int) -> str:
    """What a browser on this machine is pointed at."""
    if host in {"0.0.0.0", "::"}:
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _addresses(folder: DataFolder, public_url: str) -> Addresses:
    """The addresses of last time, except for ports that somebody else has taken meanwhile."""
    try:
        before = read_addresses(folder)
    except DataFolderError:
        before = None
    taken: set[int] = set()

    def settle(part: str, url: str | None) -> int:
        port = urlsplit(url).port if url else None
        if port is None or not (recorded_alive(folder, part) or _can_bind(port)):
            port = _free_port(taken)
        taken.add(port)
        return port

    proxy_port = settle("proxy", before.proxy_api_url if before else None)
    hub_port = settle("hub", before.hub_api_url if before else None)
    service_port = settle("service", before.service_url if before else None)
    return Addresses(
        public_url=public_url,
        proxy_api_url=f"http://{LOOPBACK}:{proxy_port}",
        hub_api_url=f"http://{LOOPBACK}:{hub_port}/hub/api",
        service_url=f"http://{LOOPBACK}:{service_port}",
        service_port=service_port,
        hub_socket=str(folder.hub_socket),
    )


def _free_port(taken: set[int]) -> int:
    for _ in range(_TRIES):
        port = random.choice(_INTERNAL_PORTS)
        if port not in taken and _can_bind(port):
            return port
    raise CannotStart(f"No free port was found on {LOOPBACK}: too many programs listen there.")


def _can_bind(port: int) -> bool:
    try:
        _bind(LOOPBACK, port)
    except OSError:
        return False
    return True


def _prepare_login(folder: DataFolder) -> str:
    """A new password for the administrator; the hub gets its hash, the caller shows it once."""
    password = "-".join("".join(secrets.choice(_UNMISTAKABLE) for _ in range(4)) for _ in range(4))
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode()
    write_json(folder.first_login, {"user": ADMINISTRATOR, "bcrypt": hashed})
    return password
