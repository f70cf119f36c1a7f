"""The service process: one process, one database. Wires the parts together; decides nothing.

`python -m jupyterhub_bkai.app --data DIR` listens on loopback for `/services/bkai/` behind the proxy, and on the Unix
socket `DIR/run/hub.sock` for the hub alone.
"""

import argparse
import asyncio
import contextlib
import gc
import hashlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado import netutil, web
from tornado.httpserver import HTTPServer

from jupyterhub_bkai import policy, sessionlogs, settings, shipped
from jupyterhub_bkai.admin import pages
from jupyterhub_bkai.api import metrics, openapi, trusted
from jupyterhub_bkai.api.auth import OAuthCallback, hub_oauth
from jupyterhub_bkai.api.context import Context, Realised
from jupyterhub_bkai.api.operations import MAX_BODY, MAX_READ, Nothing, Operation, OperationHandler
from jupyterhub_bkai.api.tickets import Tickets
from jupyterhub_bkai.builds import catalog, foundation
from jupyterhub_bkai.builds.environment import Environments
from jupyterhub_bkai.clock import Clock
from jupyterhub_bkai.datadir import (
    DataFolder,
    DataFolderError,
    Facts,
    read_addresses,
    read_secrets,
    write_facts,
)
from jupyterhub_bkai.errors import NotFound, SettingsError
from jupyterhub_bkai.fences import private
from jupyterhub_bkai.fences.memory import MemoryGauge
from jupyterhub_bkai.fences.process import ProcessFence
from jupyterhub_bkai.gpus.inventory import Inventory, this_machine
from jupyterhub_bkai.gpus.source import Selection, SourceOptions, SourceProblem, select
from jupyterhub_bkai.hub import Hub
from jupyterhub_bkai.leasing import lasting
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.reconcile import Reconciler
from jupyterhub_bkai.notices.outbox import Outbox
from jupyterhub_bkai.options import ImageOffer
from jupyterhub_bkai.store.database import Database

log = logging.getLogger("bkai")
PREFIX = "/services/bkai/"
ENFORCEMENT = "booked, not enforced"
LOOK_AT_DEVICES_S = 15.0
#: How often the sessions' logs are looked at: what one writes in between is all it can be too large.
TIDY_S = 5.0


class ServedImages:
    """The catalogue and its environments as the faces use them."""

    def __init__(self, data: DataFolder, roots: list[Path], *, shared: bool) -> None:
        self._data = data
        self._roots = roots
        self._shared = shared
        self._catalog = catalog.read(roots)
        for problem in self._catalog.problems:
            log.warning("image definitions: %s", problem)
        self._environments: Environments | None = None
        self._laying: asyncio.Task[Environments] | None = None

    def lay(self) -> "asyncio.Task[Environments]":
        """Begins to make what every environment stands on (our own wheel); the first time this takes seconds."""
        if self._laying is None or (self._laying.done() and self._laying.exception() is not None):
            self._laying = asyncio.create_task(self._lay())
        return self._laying

    async def _lay(self) -> Environments:
        base = await asyncio.to_thread(foundation.lay, self._data.root / "cache", shared=self._shared)
        self._catalog = await asyncio.to_thread(catalog.read, self._roots, base.digest)
        environments = Environments(self._data.root, base, shared=self._shared)
        await asyncio.to_thread(environments.clean)
        self._environments = environments
        return environments

    def offers(self) -> tuple[ImageOffer, ...]:
        """Every version of the catalogue."""
        return tuple(
            ImageOffer(
                image.name,
                image.title,
                image.description,
                image.family,
                image.minimum_cpu_milli,
                image.minimum_memory_mib,
                self.ready(image.name) is not None,
            )
            for image in self._catalog.images.values()
        )

    def ready(self, version: str) -> Realised | None:
        """The version on this machine, if it has been made."""
        image = self._catalog.images.get(version)
        if image is None or self._environments is None or not self._environments.is_ready(image):
            return None
        return Realised(str(self._environments.python_of(image)), str(self._environments.path_of(image)))

    async def realise(self, version: str, tell: Callable[[int | None, str], None]) -> Realised:
        """Makes it, or joins one being made."""
        if self._environments is None:
            tell(None, "Packing this release for the image version.")
        environments = await asyncio.shield(self.lay())
        image = self._catalog.images.get(version)
        if image is None:
            raise NotFound(f"There is no image version {version} any more; choose another.")
        async for progress in environments.realise(image):
            tell(progress.percent, progress.message)
        return Realised(str(environments.python_of(image)), str(environments.path_of(image)))

    async def close(self) -> None:
        """Stops what is being made."""
        if self._laying is not None:
            self._laying.cancel()
            with contextlib.suppress(BaseException):
                await self._laying
        if self._environments is not None:
            await self._environments.aclose()


@dataclass(slots=True)
class Service:
    """The running service."""

    context: Context
    inventory: Inventory
    images: ServedImages
    tasks: list["asyncio.Task[None]"]
    servers: list[HTTPServer]

    async def close(self) -> None:
        """Ends it in an order that loses nothing: no new calls, no new moves, then the database."""
        for server in self.servers:
            server.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.images.close()
        await self.context.hub.close()
        self.context.database.close()
        self.inventory.close()


def read_settings(data: DataFolder) -> str:
    """The text of the administrator's settings; written with comments when there are none."""
    if not data.settings.exists():
        data.settings.write_text(settings.DEFAULT_SETTINGS)
        data.settings.chmod(0o600)
    try:
        return data.settings.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([(str(data.settings), f"it cannot be read ({error}).")]) from None


def find_devices(site: policy.Settings, folder: Path) -> Selection:
    """The device sources the settings name; a path in them is relative to `folder`."""
    options = SourceOptions(node=this_machine().name, reserve_mib=site.reserve_mib, folder=folder)
    try:
        return select(site.devices, options)
    except SourceProblem as problem:
        raise SettingsError([("devices", problem.message)]) from None


async def start(data: DataFolder, database_url: str | None = None) -> Service:
    """Brings the service up. Raises `SettingsError` or `DataFolderError` with sentences."""
    text = read_settings(data)
    site = settings.load(text)
    secrets, addresses = read_secrets(data), read_addresses(data)
    selection = find_devices(site, data.root)
    inventory = Inventory(selection.sources, node=this_machine())
    await asyncio.to_thread(inventory.refresh)
    database = Database(database_url or f"sqlite:///{data.database}")
    clock = Clock()
    broker = Broker(database, site, clock, file=settings.split(text))
    await broker.load(inventory.nodes)
    outbox = Outbox(broker, data.root, addresses.public_url, clock.now_ms)
    spare_what_stays()
    hub = Hub(addresses.hub_api_url, secrets.service_token)
    fence = ProcessFence.of_this_machine()
    reconciler = Reconciler(broker, hub, fence, MemoryGauge(fence), clock.now_ms)
    roots = [shipped.images(), *(Path(root) for root in site.image_roots)]
    images = ServedImages(data, roots, shared=os.geteuid() == 0)
    context = Context(
        database=database,
        broker=broker,
        reconciler=reconciler,
        hub=hub,
        images=images,
        now_ms=clock.now_ms,
        public_url=addresses.public_url,
        session_logs=data.session_logs,
        fake=inventory.fake,
        statement=selection.statement,
        process_users="real" if os.geteuid() == 0 else "single",
        enforcement=ENFORCEMENT,
        tickets=Tickets(hashlib.sha256(f"bkai tickets {secrets.service_token}".encode()).digest()),
    )
    write_facts(data, Facts(context.fake, context.process_users, context.enforcement, context.statement))
    cookie_key = hashlib.sha256(f"bkai cookies {secrets.service_token}".encode()).digest()
    auth = hub_oauth(addresses.hub_api_url, secrets.service_token, PREFIX, cookie_key)
    servers = [
        _listen(application(context, auth, cookie_key), addresses.service_port),
        _listen_unix(trusted.application(context), Path(addresses.hub_socket)),
    ]
    tasks = [
        asyncio.create_task(broker.run(), name="broker"),
        asyncio.create_task(reconciler.run(), name="reconcile"),
        asyncio.create_task(reconciler.watch_memory(), name="memory"),
        asyncio.create_task(context.gauges.run(), name="gauges"),
        asyncio.create_task(context.forecast.run(), name="forecast"),
        asyncio.create_task(lasting.warn_all(broker, clock.now_ms), name="warnings"),
        asyncio.create_task(outbox.run(), name="outbox"),
        asyncio.create_task(_look_at_devices(inventory, broker), name="devices"),
        asyncio.create_task(_tidy(data.session_logs, broker), name="tidy"),
    ]
    images.lay()
    log.info("listening on %s and %s. %s", addresses.service_url, addresses.hub_socket, selection.statement)
    return Service(context, inventory, images, tasks, servers)


def spare_what_stays() -> None:
    """Has the garbage collector leave alone what is there now: it stays as long as the process, and with many machines
    and waiting requests going through it again and again takes an eighth of the service's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def _look_at_devices(inventory: Inventory, broker: Broker) -> None:
    while True:
        await asyncio.sleep(LOOK_AT_DEVICES_S)
        try:
            if await asyncio.to_thread(inventory.refresh):
                broker.set_nodes(inventory.nodes)
        except Exception:
            log.exception("The devices could not be looked at")


async def _tidy(logs: Path, broker: Broker) -> None:
    """Keeps the sessions' logs small, and removes what ended sessions left."""
    while True:
        try:
            await asyncio.to_thread(sessionlogs.tidy, logs, frozenset(broker.records))
            for lease_id in await asyncio.to_thread(private.leases):
                # Another site of this machine has its leases there, too: ours have a log.
                if lease_id not in broker.records and (logs / f"{lease_id}.log").exists():
                    await asyncio.to_thread(private.remove, lease_id)
        except Exception:
            log.exception("What sessions leave could not be tidied")
        await asyncio.sleep(TIDY_S)


def routes(operations: tuple[Operation, ...]) -> list[Any]:
    """The operations as tornado's routes, one handler a path."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [
        (f"{PREFIX}api/v1{_pattern(path)}", OperationHandler, {"operations": found})
        for path, found in by_path.items()
    ]


def _pattern(path: str) -> str:
    return re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))


def application(context: Context, auth: Any, cookie_key: bytes) -> web.Application:
    """Everything under `/services/bkai/`."""
    return web.Application(
        [
            *routes(openapi.OPERATIONS),
            (f"{PREFIX}oauth_callback", OAuthCallback),
            (f"{PREFIX}metrics", metrics.Metrics),
            *pages.routes(context, PREFIX),
            (f"{PREFIX}api/.*", Nothing, {"operations": {}}),
        ],
        context=context,
        hub_auth=auth,
        metrics=metrics.collectors(context),
        cookie_secret=cookie_key,
        # Not tornado's own check (`xsrf_cookies`), which knows no tokens: HubOAuth makes it whenever a cookie is what
        # says who calls, and takes a call without it for one without a login.
        xsrf_cookie_kwargs={"path": PREFIX, "httponly": False, "samesite": "Lax"},
        log_function=_log_call,
        # What pages that redirect to the Hub's login come back to.
        login_url="/hub/login",
    )


def _log_call(handler: web.RequestHandler) -> None:
    """One line a call; the address without its query, where a token might stand."""
    level = logging.INFO if handler.get_status() >= 400 else logging.DEBUG
    request = handler.request
    log.log(level, "%s %s %s", handler.get_status(), request.method, request.path)


def _listen(app: web.Application, port: int) -> HTTPServer:
    server = HTTPServer(app, xheaders=True, max_body_size=MAX_READ)
    server.listen(port, "127.0.0.1")
    return server


def _listen_unix(app: web.Application, path: Path) -> HTTPServer:
    server = HTTPServer(app, max_body_size=2 * MAX_BODY)
    server.add_socket(netutil.bind_unix_socket(str(path), mode=0o600))
    return server


async def _main(data: DataFolder, database_url: str | None) -> None:
    service = await start(data, database_url)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    log.info("ending")
    await service.close()


def main() -> int:
    """Runs the service until it is told to end. Exit 2 with one sentence a problem when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m jupyterhub_bkai.app", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument(
        "--database", help="address of a PostgreSQL database (default: SQLite in the data folder)"
    )
    parser.add_argument("--debug", action="store_true", help="log every call")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.DEBUG if arguments.debug else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s %(message)s",
    )
    for noisy in ("httpx", "httpcore", "alembic.runtime.migration", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        asyncio.run(_main(DataFolder(arguments.data.resolve()), arguments.database))
    except (SettingsError, DataFolderError) as error:
        sys.stderr.write(f"bkai service cannot start.\n{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"bkai service cannot start: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
