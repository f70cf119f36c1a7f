"""The settings, section by section. See the package's docstring."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.utils import subdomain_hook_idna, subdomain_hook_legacy
from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_bkai.datadir import (
    Addresses,
    DataFolder,
    DataFolderError,
    Secrets,
    default_folder,
    new_secrets,
    read_addresses,
    read_facts,
    read_secrets,
    write_addresses,
    write_secrets,
)
from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.policy import Settings
from jupyterhub_bkai.settings import load

SERVICE = "bkai"
SUPERVISOR = "bkai-supervisor"
PACKAGE = Path(__file__).resolve().parent.parent
ACCESS = f"access:services!service={SERVICE}"
#: What the token inside a session may do: say that it is active, be opened by its owner, talk to the service.
SESSION_SCOPES = ("users:activity!user", "access:servers!server", ACCESS)
SERVICE_SCOPES = ("servers", "read:users:name", "read:users:groups")
SUPERVISOR_SCOPES = ("proxy", "list:users", "read:servers", "delete:servers")


class HubConfigError(Exception):
    """The configuration cannot work like this; the text says why and what to do."""


def configure(
    c: Config,
    data: str | Path | None = None,
    *,
    public_url: str | None = None,
    service_port: int = 8091,
) -> None:
    """Make this hub one of ours.

    `c` is the object of a jupyterhub_config.py and `data` the data folder. With `bkai up` that is all.

    A hub that is run by other means (its own unit, its own proxy, database and authenticator) also gives the
    `public_url` people reach it at, and a `service_port` on which the service, run as
    `python -m jupyterhub_bkai.app --data DIR`, may listen. Then only what sessions need is set.
    """
    if not isinstance(c, Config):
        raise HubConfigError(
            "configure() wants the `c` of a jupyterhub_config.py first: configure(c, data=…)."
        )
    folder = DataFolder(Path(data).resolve()) if data is not None else default_folder()
    _refuse(c)
    try:
        settings = _settings(folder)
        if public_url is not None:
            _introduce(folder, c, public_url, service_port)
        secrets, addresses = read_secrets(folder), read_addresses(folder)
    except DataFolderError as error:
        raise HubConfigError(f"{error} `bkai up --data {folder.root}` writes what is missing.") from None
    if public_url is None:
        _hub(c, folder, secrets, addresses)
        _login(c, folder, settings)
    _hosts(c, settings, addresses)
    _sessions(c, folder)
    _services(c, secrets, addresses)
    _pages(c, folder)


def _refuse(c: Config) -> None:
    if str(_given(c, "JupyterHub", "base_url", "/")).strip("/"):
        raise HubConfigError(
            "c.JupyterHub.base_url is set, and below a path the service cannot be served: leave it out."
        )
    if any(service.get("name") == SERVICE for service in _given(c, "JupyterHub", "services", [])):
        raise HubConfigError(
            f'There already is a service "{SERVICE}": call configure(c) once, and add no such service.'
        )


def _settings(folder: DataFolder) -> Settings:
    """The administrator's settings; without a file the defaults."""
    try:
        return load(folder.settings.read_text())
    except FileNotFoundError:
        return Settings()
    except SettingsError as error:
        raise HubConfigError(f"{folder.settings} has mistakes:\n{error}") from None


def _introduce(folder: DataFolder, c: Config, public_url: str, service_port: int) -> None:
    """A hub of somebody's own: write down for the service where this hub is, with secrets if there are none."""
    place = urlsplit(public_url)
    if place.scheme not in {"http", "https"} or not place.hostname:
        raise HubConfigError(
            f"public_url={public_url!r} is no address: give the one in people's browsers, https://…."
        )
    if place.path.strip("/"):
        raise HubConfigError(
            f"public_url={public_url!r} has a path, below which the service cannot be served: "
            "give the hub a host name of its own."
        )
    folder.create()
    if not folder.secrets.exists():
        write_secrets(folder, new_secrets())
    bound = urlsplit(
        str(_given(c, "JupyterHub", "hub_connect_url", "") or _given(c, "JupyterHub", "hub_bind_url", ""))
    )
    host = bound.hostname or "127.0.0.1"
    port = bound.port or int(_given(c, "JupyterHub", "hub_port", 8081))
    write_addresses(
        folder,
        Addresses(
            public_url=public_url.rstrip("/"),
            proxy_api_url="",
            hub_api_url=f"http://{host}:{port}/hub/api",
            service_url=f"http://127.0.0.1:{service_port}",
            service_port=service_port,
            hub_socket=str(folder.hub_socket),
        ),
    )


# -- sections ----------------------------------------------------------------------------------


def _hub(c: Config, folder: DataFolder, secrets: Secrets, addresses: Addresses) -> None:
    """The hub itself, as one of three siblings: its end stops neither proxy nor sessions."""
    hub_url = addresses.hub_api_url.removesuffix("/hub/api")
    _default(c, "JupyterHub", "bind_url", addresses.public_url)
    _default(c, "JupyterHub", "hub_bind_url", hub_url)
    _default(c, "JupyterHub", "db_url", f"sqlite:///{folder.hub_database}")
    _default(c, "JupyterHub", "upgrade_db", True)
    _default(c, "JupyterHub", "cookie_secret", bytes.fromhex(secrets.cookie_secret))
    _default(c, "JupyterHub", "cleanup_servers", False)
    _default(c, "JupyterHub", "cleanup_proxy", False)
    _default(c, "JupyterHub", "init_spawners_timeout", 1)
    _default(c, "JupyterHub", "shutdown_on_logout", False)
    # Our tokens are 32 random bytes; hashing them 16,384 times at each call would guard nothing.
    _default(c, "JupyterHub", "trust_user_provided_tokens", True)
    _default(c, "ConfigurableHTTPProxy", "should_start", False)
    _default(c, "ConfigurableHTTPProxy", "api_url", addresses.proxy_api_url)
    _default(c, "ConfigurableHTTPProxy", "auth_token", secrets.proxy_token)


def _hosts(c: Config, settings: Settings, addresses: Addresses) -> None:
    """Where each person's sessions get a host name of their own: our service stays at the hub's."""
    if settings.subdomain_host is not None:
        _default(c, "JupyterHub", "subdomain_host", settings.subdomain_host)
    if not (host := _given(c, "JupyterHub", "subdomain_host", "")):
        return
    if addresses.proxy_api_url and host != settings.subdomain_host:
        raise HubConfigError(
            "c.JupyterHub.subdomain_host is set, and the proxy does not know: "
            "write it as subdomain_host into bkai.yaml instead."
        )
    others = _given(c, "JupyterHub", "subdomain_hook", subdomain_hook_idna)
    others = {"idna": subdomain_hook_idna, "legacy": subdomain_hook_legacy}.get(others, others)

    def hook(name: str, domain: str, kind: str) -> str:
        return domain if (name, kind) == (SERVICE, "service") else str(others(name, domain, kind))

    c.JupyterHub.subdomain_hook = hook
    if addresses.proxy_api_url:
        # What runs on this machine, sessions among it, goes on to reach the service by the address as it is.
        here = f"{urlsplit(addresses.public_url).hostname}/services/{SERVICE}/"
        c.Proxy.extra_routes = {here: addresses.service_url, **_given(c, "Proxy", "extra_routes", {})}


def _login(c: Config, folder: DataFolder, settings: Settings) -> None:
    """Accounts with passwords, unless the administrator has chosen another way."""
    if "authenticator_class" in c.JupyterHub:
        return
    _default(c, "Authenticator", "admin_users", {"admin"})
    if settings.extra.get("auth") == "dummy":
        c.JupyterHub.authenticator_class = "dummy"
        if not _given(c, "Authenticator", "allowed_users", set()):
            _default(c, "Authenticator", "allow_all", True)
        return
    c.JupyterHub.authenticator_class = "jupyterhub_bkai.hubconfig.accounts.AccountsAuthenticator"
    _default(c, "AccountsAuthenticator", "first_login_file", str(folder.first_login))


def _sessions(c: Config, folder: DataFolder) -> None:
    """Named servers that may wait in our queue for as long as it lets them."""
    _default(c, "JupyterHub", "spawner_class", "bkaispawner.process.ProcessSpawner")
    _default(c, "Leased", "service_socket", str(folder.hub_socket))
    _default(c, "TreeSpawner", "log_folder", str(folder.session_logs))
    _default(c, "TreeSpawner", "homes_folder", str(folder.homes))
    _default(c, "JupyterHub", "allow_named_servers", True)
    # No count of the hub's own: how many sessions somebody may have is policy, and tasks of pipelines are left out.
    _default(c, "JupyterHub", "named_server_limit_per_user", 0)
    # Those who wait would count, and the 101st would be refused.
    _default(c, "JupyterHub", "concurrent_spawn_limit", 0)
    given = _given(c, "JupyterHub", "tornado_settings", {})
    # Long enough for a refusal to be the answer to the call itself; who must wait is told so soon after.
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.5, **given}
    # A session that died by itself is noticed by the hub within this many seconds.
    _default(c, "Spawner", "poll_interval", 10)
    scopes = _given(c, "Spawner", "server_token_scopes", [])
    if not callable(scopes):
        c.Spawner.server_token_scopes = _together(scopes, SESSION_SCOPES)


def _services(c: Config, secrets: Secrets, addresses: Addresses) -> None:
    """The service and, under `bkai up`, the supervisor: who they are and the little they may do."""
    ours: list[dict[str, Any]] = [
        {
            "name": SERVICE,
            "url": addresses.service_url,
            "api_token": secrets.service_token,
            "oauth_no_confirm": True,
            # A path: the service asks so, and it is at the hub's own address, whatever that is called.
            "oauth_redirect_uri": f"/services/{SERVICE}/oauth_callback",
            "oauth_client_allowed_scopes": [ACCESS],
            "display": False,  # the pages have links of their own
        }
    ]
    roles: list[dict[str, Any]] = [
        {"name": "bkai-service", "scopes": [*SERVICE_SCOPES], "services": [SERVICE]},
    ]
    if addresses.proxy_api_url:
        ours.append({"name": SUPERVISOR, "api_token": secrets.supervisor_token, "display": False})
        roles.append({"name": SUPERVISOR, "scopes": [*SUPERVISOR_SCOPES], "services": [SUPERVISOR]})
    c.JupyterHub.services = [*_given(c, "JupyterHub", "services", []), *ours]
    c.JupyterHub.load_roles = [*_given(c, "JupyterHub", "load_roles", []), *roles]
    c.JupyterHub.extra_user_scopes = {*_given(c, "JupyterHub", "extra_user_scopes", set()), ACCESS}


def _pages(c: Config, folder: DataFolder) -> None:
    """Our templates behind the administrator's own, and what they show."""
    import bkaispawner

    templates = [
        PACKAGE / "admin" / "templates",
        PACKAGE / "hubconfig" / "templates",
        Path(bkaispawner.__file__).parent / "templates",
    ]
    paths = [str(path) for path in templates if path.is_dir()]
    c.JupyterHub.template_paths = _together(_given(c, "JupyterHub", "template_paths", []), paths)
    accounts = str(_given(c, "JupyterHub", "authenticator_class", "")).endswith("AccountsAuthenticator")
    variables: Mapping[str, Any] = {
        "bkai_sessions_url": f"/services/{SERVICE}/",
        "bkai_fake_devices": _fake_devices(folder),
        "bkai_accounts": accounts,
        "bkai_accounts_waiting": _accounts_waiting if accounts else 0,
    }
    c.JupyterHub.template_vars = {**variables, **_given(c, "JupyterHub", "template_vars", {})}


def _accounts_waiting(user: Any) -> int:
    """How many people have signed up and are not let in yet, for who can let them in; asked anew for each page."""
    if user is None or not user.admin:
        return 0
    from jupyterhub_bkai.hubconfig.accounts import waiting

    return waiting(user.db)


def _fake_devices(folder: DataFolder) -> Callable[[object], bool]:
    """Asked anew for each page: the service may find other devices the next time it starts."""

    def fake_devices(user: object) -> bool:
        facts = read_facts(folder)
        return facts is not None and facts.fake_devices

    return fake_devices


# -- the administrator's values -----------------------------------------------------------------


def _given(c: Config, section: str, name: str, otherwise: Any) -> Any:
    """What has been set so far, also by `c.Section.name.append(…)` and the like."""
    value = c[section].get(name, otherwise)
    return value.get_value(otherwise) if isinstance(value, LazyConfigValue) else value


def _default(c: Config, section: str, name: str, value: object) -> None:
    """Set what has not been set."""
    if name not in c[section]:
        c[section][name] = value


def _together(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Both, in order, nothing twice."""
    return list(dict.fromkeys([*first, *second]))
