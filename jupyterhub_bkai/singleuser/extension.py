"""The server extension: wires the session's facts, its way to the service, its files and its runs to addresses.

Decides nothing about sessions; in a Jupyter server that bkai did not start, everything about sessions answers
"no session" and the rest stays away.
"""

import asyncio
import contextlib
import json
import os
import shutil
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jupyter_server._tz import utcnow
from jupyter_server.extension.application import ExtensionApp
from traitlets import Float, Integer

from jupyterhub_bkai.errors import Unavailable
from jupyterhub_bkai.names import run_folder
from jupyterhub_bkai.singleuser import receipt, relay, run_handlers
from jupyterhub_bkai.singleuser.confined import Confined
from jupyterhub_bkai.singleuser.place import Place, place
from jupyterhub_bkai.singleuser.runs import Runs
from jupyterhub_bkai.singleuser.service import Service
from jupyterhub_bkai.singleuser.uploads import UploadHandler, Uploads

#: pauses before asking the service again what the receipt still lacks
RECEIPT_RETRIES_S = (1.0, 5.0, 30.0, 120.0)


class SessionExtension(ExtensionApp):
    """What a session adds to its Jupyter server, below `{base_url}bkai/`."""

    name = "bkai"
    load_other_extensions = True
    open_browser = False

    output_limit_mib = Integer(
        1024, min=1, help="How much output of one program is kept on disk, in MiB; the rest is dropped."
    ).tag(config=True)

    activity_s = Float(
        30.0, min=0.1, help="How often a running program says that the session is in use, in seconds."
    ).tag(config=True)

    place: Place | None = None
    service: Service | None = None
    runs: Runs | None = None
    _tasks: tuple[asyncio.Task[None], ...] = ()

    def initialize_settings(self) -> None:
        """Find out which session this is, and tell the page where the sessions page lies."""
        self.place = place(os.environ)
        if self.place is None:
            self.log.info("bkai: this server is not a bkai session")
            return
        self.service = Service(self.place)
        self._write_receipt(None)
        page = self.settings.setdefault("page_config_data", {})
        page["bkaiPages"] = self.place.pages

    def initialize_handlers(self) -> None:
        """Register what a session answers to."""
        to_service = {"service": self.service}
        self.handlers.extend(
            [
                (r"/bkai/session", relay.SessionHandler, to_service),
                (r"/bkai/session/stop", relay.StopHandler, to_service),
                (r"/bkai/session/extend", relay.ExtendHandler, to_service),
                (r"/bkai/session/events", relay.EventsHandler, to_service),
                (r"/bkai/sessions", relay.SessionsHandler, to_service),
                (r"/bkai/sessions/events", relay.AllEventsHandler, to_service),
            ]
        )
        if self.place is None:
            return
        home = Confined(Path.home())
        self.runs = Runs(home, self.output_limit_mib << 20)
        runs = {"runs": self.runs}
        self.handlers.extend(
            [
                (r"/bkai/run", run_handlers.AllHandler, runs),
                (r"/bkai/run/([^/]+)", run_handlers.OneHandler, runs),
                (r"/bkai/run/([^/]+)/output", run_handlers.OutputHandler, runs),
                (r"/bkai/upload/(.+)", UploadHandler, {"uploads": Uploads(home)}),
            ]
        )

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """What can wait until the server answers."""
        if self.place is not None:
            self._tasks = (
                asyncio.create_task(self._complete_receipt()),
                asyncio.create_task(self._report_activity()),
            )

    async def stop_extension(self) -> None:
        """End the programs and let go of the service."""
        for task in self._tasks:
            task.cancel()
        if self.runs is not None:
            await self.runs.close()
        if self.service is not None:
            await self.service.close()
        if self.place is not None:
            await asyncio.to_thread(self._remove_files, self.place.lease)

    def _remove_files(self, lease: str) -> None:
        """What `bkai run` put here goes with the session, even when the laptop that put it is gone."""
        folder = Path.home() / run_folder(lease)
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # unless another session of the user has something in it

    def _write_receipt(self, session: dict[str, Any] | None) -> None:
        assert self.place is not None
        folder = receipt.folder(os.environ, Path.home())
        try:
            content = receipt.receipt(self.place, session, datetime.now(UTC))
            os.environ["BKAI_RECEIPT"] = str(receipt.write(folder, self.place.lease, content))
        except OSError as error:
            self.log.warning("lease %s: the receipt cannot be written: %s", self.place.lease, error)

    async def _complete_receipt(self) -> None:
        assert self.service is not None
        for pause in (0.0, *RECEIPT_RETRIES_S):
            await asyncio.sleep(pause)
            try:
                answer = await self.service.ask("GET", self.service.session)
            except Unavailable:
                continue
            if answer.status == HTTPStatus.OK:
                self._write_receipt(json.loads(answer.body))
                return

    async def _report_activity(self) -> None:
        """A program that computes in silence is at work: a session with one is not idle."""
        assert self.runs is not None
        times = self.settings.setdefault("last_activity_times", {})
        while True:
            if any(run.alive for run in self.runs.all()):
                times["bkai-runs"] = utcnow()
            await asyncio.sleep(self.activity_s)
