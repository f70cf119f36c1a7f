"""configure(c): what is set, what the administrator's own values do to it, and a hub that is not run by us."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from bkaispawner.process import ProcessSpawner
from traitlets.config import Config

from jupyterhub_bkai import nodeproxy
from jupyterhub_bkai.datadir import (
    Addresses,
    DataFolder,
    Facts,
    new_secrets,
    read_secrets,
    write_addresses,
    write_facts,
    write_secrets,
)
from jupyterhub_bkai.hubconfig import HubConfigError, configure
from tests.chain.site import ROOT
from tests.supervise.running import until


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """As `bkai up` leaves it to the hub."""
    made = DataFolder(tmp_path / "d")
    made.create()
    write_secrets(made, new_secrets())
    write_addresses(
        made,
        Addresses(
            public_url="http://127.0.0.1:8000",
            proxy_api_url="http://127.0.0.1:20001",
            hub_api_url="http://127.0.0.1:20002/hub/api",
            service_url="http://127.0.0.1:20003",
            service_port=20003,
            hub_socket=str(made.hub_socket),
        ),
    )
    return made


def configured(folder: DataFolder, before: Callable[[Config], object] = lambda c: None) -> Config:
    c = Config()
    before(c)
    configure(c, data=folder.root)
    return c


def test_the_parts_survive_each_other(folder: DataFolder) -> None:
    c = configured(folder)
    assert c.ConfigurableHTTPProxy.should_start is False
    assert (c.JupyterHub.cleanup_servers, c.JupyterHub.cleanup_proxy) == (False, False)
    assert c.JupyterHub.init_spawners_timeout == 1
    assert c.JupyterHub.hub_bind_url == "http://127.0.0.1:20002"


def test_waiting_in_our_queue_is_no_time_out_of_the_hub(folder: DataFolder) -> None:
    c = configured(folder)
    assert "start_timeout" not in c.Spawner, "an administrator's would win"
    assert ProcessSpawner().start_timeout > 60 * 86400
    assert c.JupyterHub.concurrent_spawn_limit == 0
    assert c.JupyterHub.tornado_settings["slow_spawn_timeout"] == 0.5


def test_service_and_supervisor_may_do_little(folder: DataFolder) -> None:
    c = configured(folder)
    roles = {role["name"]: role for role in c.JupyterHub.load_roles}
    assert roles["bkai-service"]["scopes"] == ["servers", "read:users:name", "read:users:groups"]
    assert roles["bkai-supervisor"]["scopes"] == ["proxy", "list:users", "read:servers", "delete:servers"]
    service = next(service for service in c.JupyterHub.services if service["name"] == "bkai")
    assert "command" not in service
    assert service["oauth_no_confirm"] is True
    assert c.Spawner.server_token_scopes == [
        "users:activity!user",
        "access:servers!server",
        "access:services!service=bkai",
    ]
    assert c.JupyterHub.extra_user_scopes == {"access:services!service=bkai"}


def test_the_administrators_values_win(folder: DataFolder) -> None:
    def before(c: Config) -> None:
        c.JupyterHub.spawner_class = "simple"
        c.JupyterHub.authenticator_class = "null"
        c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 5, "headers": {}}
        c.JupyterHub.template_vars = {"announcement": "Hello", "bkai_sessions_url": "/elsewhere/"}
        c.JupyterHub.template_paths = ["/own"]
        c.Spawner.start_timeout = 60
        c.JupyterHub.services.append({"name": "culler"})
        c.Spawner.server_token_scopes = ["read:users!user"]

    c = configured(folder, before)
    assert c.JupyterHub.spawner_class == "simple"
    assert c.JupyterHub.authenticator_class == "null"
    assert "admin_users" not in c.Authenticator
    assert c.JupyterHub.tornado_settings == {"slow_spawn_timeout": 5, "headers": {}}
    assert c.JupyterHub.template_vars["announcement"] == "Hello"
    assert c.JupyterHub.template_vars["bkai_sessions_url"] == "/elsewhere/"
    assert c.JupyterHub.template_paths[0] == "/own"
    assert c.Spawner.start_timeout == 60
    assert [service["name"] for service in c.JupyterHub.services] == ["culler", "bkai", "bkai-supervisor"]
    assert set(c.Spawner.server_token_scopes) > {"read:users!user", "access:services!service=bkai"}


def test_pages_say_what_the_service_found(folder: DataFolder) -> None:
    fake = configured(folder).JupyterHub.template_vars["bkai_fake_devices"]
    assert fake(None) is False
    write_facts(folder, Facts(fake_devices=True, process_users="single", enforcement="booked, not enforced"))
    assert fake(None) is True


def test_wrong_use_is_said_clearly(folder: DataFolder, tmp_path: Path) -> None:
    with pytest.raises(HubConfigError, match="wants the `c`"):
        configure(str(tmp_path))  # type: ignore[arg-type]  # that is the mistake
    c = configured(folder)
    with pytest.raises(HubConfigError, match=r"call configure\(c\) once"):
        configure(c, data=folder.root)
    with pytest.raises(HubConfigError, match=r"bkai up --data .*/elsewhere` writes what is missing"):
        configure(Config(), data=tmp_path / "elsewhere")
    folder.settings.write_text("groups: 3")
    with pytest.raises(HubConfigError, match="has mistakes:\ngroups: expected"):
        configured(folder)
    with pytest.raises(HubConfigError, match="is no address"):
        configure(Config(), data=tmp_path / "own", public_url="hub.example.org")
    with pytest.raises(HubConfigError, match="has a path"):
        configure(Config(), data=tmp_path / "own", public_url="https://example.org/hub/")
    with pytest.raises(HubConfigError, match="base_url is set"):
        configure(Config({"JupyterHub": {"base_url": "/jupyter"}}), data=tmp_path / "own")
    assert not (tmp_path / "own").exists()


OWN = """
import sys
from jupyterhub_bkai.hubconfig import configure
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/"
c.JupyterHub.hub_port = {hub}
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
configure(c, data={data!r}, public_url="http://127.0.0.1:{port}/", service_port={service})
"""


@pytest.fixture
def own(shared: Path, free_port: Callable[[], int]) -> Iterator[tuple[DataFolder, int]]:
    """A hub with a proxy and an address of its own, and the service as a process beside it."""
    place = shared / f"own-{os.getpid()}"
    place.mkdir()
    folder, port = DataFolder(place / "d"), free_port()
    ports = {"port": port, "hub": free_port(), "api": free_port(), "service": free_port()}
    config = place / "jupyterhub_config.py"
    config.write_text(OWN.format(**ports, data=str(folder.root), proxy=nodeproxy.command()))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'spawners'}"}
    with (place / "log").open("wb") as log:
        run = {"cwd": place, "env": environment, "stdout": log, "stderr": log, "start_new_session": True}
        hub = subprocess.Popen([sys.executable, "-m", "jupyterhub", "-f", str(config)], **run)  # type: ignore[call-overload]  # one dict for two
        until(folder.addresses.exists, 90, "the hub has written down where it is")
        service = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub_bkai.app", "--data", str(folder.root)],
            **run,  # type: ignore[call-overload]  # one dict for two
        )
    try:
        yield folder, port
    finally:
        for process in (service, hub):
            process.terminate()
            process.wait(20)
        shutil.rmtree(place)


@pytest.mark.hub
def test_a_hub_of_somebodys_own(own: tuple[DataFolder, int]) -> None:
    folder, port = own
    url = f"http://127.0.0.1:{port}/services/bkai/api/v1/info"

    def refused() -> bool:
        try:
            return httpx.get(url, trust_env=False).status_code == 401
        except httpx.HTTPError:
            return False

    until(refused, 90, "the service answers behind the hub's own proxy")
    assert "supervisor" not in folder.addresses.read_text()
    token = read_secrets(folder).service_token
    answer = httpx.get(
        f"http://127.0.0.1:{port}/hub/api/user",
        headers={"Authorization": f"token {token}"},
        trust_env=False,
    )
    assert answer.json()["name"] == "bkai"


def test_with_host_names_for_people_our_service_stays_at_the_hubs(folder: DataFolder) -> None:
    folder.settings.write_text("subdomain_host: https://hub.example.org\n")
    c = configured(folder)
    assert c.JupyterHub.subdomain_host == "https://hub.example.org"
    hook = c.JupyterHub.subdomain_hook
    assert hook("bkai", "hub.example.org", kind="service") == "hub.example.org"
    assert hook("bkai", "hub.example.org", kind="user") == "bkai.hub.example.org"
    assert hook("other", "hub.example.org", kind="service") != "hub.example.org"
    assert c.Proxy.extra_routes == {"127.0.0.1/services/bkai/": "http://127.0.0.1:20003"}


def test_a_host_that_the_proxy_does_not_know_is_refused(folder: DataFolder) -> None:
    def before(c: Config) -> None:
        c.JupyterHub.subdomain_host = "https://hub.example.org"

    with pytest.raises(HubConfigError, match="write it as subdomain_host into"):
        configured(folder, before)
