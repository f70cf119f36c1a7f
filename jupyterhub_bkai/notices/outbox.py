"""Delivers what is written in the database to be told, each way in a loop of its own.

At least once: a delivery counts as done when that is written, so one whose service is killed in between goes out again,
with the same id. What is not taken is tried again with growing pauses, for a day. Nothing here holds up the broker.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.draft import Draft
from jupyterhub_bkai.notices import letter, webhook
from jupyterhub_bkai.notices.kinds import GIVE_UP_MS, Ways, pause_ms
from jupyterhub_bkai.notices.mail import Server
from jupyterhub_bkai.notices.webhook import NotTaken
from jupyterhub_bkai.store import queries

log = logging.getLogger(__name__)
#: how many go out at a time: a mail server is told of one after the other
AT_ONCE = {"webhook": 4, "email": 1}
#: how often it is looked for what is to be tried again
LOOK_S = 1.0
MOST_KEY_BYTES = 4096

Row = Mapping[str, Any]
Send = Callable[[Row], Awaitable[None]]


class Outbox:
    """The doer. Raises `SettingsError` when a file with a secret cannot be read."""

    def __init__(self, broker: Broker, folder: Path, public_url: str, now_ms: Callable[[], int]) -> None:
        self._broker = broker
        self._ways = broker.settings.notices
        self._folder = folder
        self._public_url = public_url
        self._now_ms = now_ms
        self._mail = self._mail_server(self._ways)
        self._sends: dict[str, Send] = {}
        if self._ways.webhook is not None:
            self._check("notices.webhook.secret_file", self._ways.webhook.secret_file)
            self._sends["webhook"] = self._post
        if self._ways.email is not None:
            self._check("notices.email.password_file", self._ways.email.password_file)
            self._sends["email"] = self._send_mail

    async def run(self) -> None:
        """Delivers for ever; cancelled at the end."""
        await self._drop_unknown()
        try:
            async with asyncio.TaskGroup() as group:
                for way in self._sends:
                    group.create_task(self._deliver_all(way))
        finally:
            if self._mail is not None:
                self._mail.close()

    async def _deliver_all(self, way: str) -> None:
        while True:
            try:
                self._broker.outgoing.clear()
                while rows := await self._broker.database.read(
                    queries.due_deliveries(way, self._now_ms(), AT_ONCE[way])
                ):
                    await asyncio.gather(*(self._deliver(way, row) for row in rows))
            except Exception:
                log.exception("Notices could not be delivered by %s", way)
                await asyncio.sleep(LOOK_S)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._broker.outgoing.wait()
            except TimeoutError:
                continue

    async def _deliver(self, way: str, row: Row) -> None:
        tries = row["tries"] + 1
        try:
            await self._sends[way](row)
        except NotTaken as error:
            await self._not_taken(row, tries, str(error), final=error.final)
        except Exception:
            log.exception("notice %s by %s", row["notice"], way)
            await self._not_taken(row, tries, "an internal error; see the service's log", final=False)
        else:
            await self._note(row, state="delivered", tries=tries, done_ms=self._now_ms(), error=None)

    async def _not_taken(self, row: Row, tries: int, error: str, *, final: bool) -> None:
        now = self._now_ms()
        way, notice = row["way"], row["notice"]
        if final or now - row["at_ms"] > GIVE_UP_MS:
            log.warning("notice %s by %s is given up after %d tries: %s", notice, way, tries, error)
            await self._note(row, state="failed", tries=tries, done_ms=now, error=error)
            return
        log.log(
            logging.WARNING if tries == 1 else logging.DEBUG,
            "notice %s by %s is tried again: %s",
            notice,
            way,
            error,
        )
        await self._note(row, tries=tries, next_ms=now + pause_ms(tries), error=error)

    async def _note(self, row: Row, **changes: Any) -> None:
        change = {"id": row["id"], **changes}

        def command(draft: Draft) -> None:
            draft.batch.changed_deliveries.append(change)

        await self._broker.submit(command)

    async def _drop_unknown(self) -> None:
        """What was to go by a way that there is no more."""
        for row in await self._broker.database.read(queries.waiting_elsewhere(tuple(self._sends))):
            await self._note(
                row, state="failed", done_ms=self._now_ms(), error="this way is not set up any more"
            )

    # -- ways ------------------------------------------------------------------------------

    async def _post(self, row: Row) -> None:
        found = self._ways.webhook
        assert found is not None
        key = self._read(found.secret_file) if found.secret_file is not None else None
        body = letter.encoded(letter.payload(row))
        await webhook.post(found.url, row["notice"], body, key)

    async def _send_mail(self, row: Row) -> None:
        email = self._ways.email
        assert email is not None
        assert self._mail is not None
        to = letter.address(email, row["user_name"], self._broker.choices.get(row["user_name"]))
        if to is None:
            raise NotTaken("the user has no mail address", final=True)
        await self._mail.send(letter.mail(row, email, to, self._public_url), to)

    def _mail_server(self, ways: Ways) -> Server | None:
        email = ways.email
        if email is None:
            return None
        login = None
        if email.user is not None and email.password_file is not None:
            login = email.user, partial(self._password, email.password_file)
        return Server(email.host, email.port, email.security, login)

    def _password(self, path: str) -> str:
        return self._read(path).decode("utf-8", "replace")

    def _read(self, path: str) -> bytes:
        """A secret, read anew each time, so that it can be exchanged while the service runs."""
        try:
            return (self._folder / path).read_bytes()[:MOST_KEY_BYTES].strip()
        except OSError:
            raise NotTaken("the file with the secret cannot be read") from None

    def _check(self, place: str, path: str | None) -> None:
        if path is None:
            return
        try:
            empty = not self._read(path)
        except NotTaken:
            raise SettingsError([(place, "the file cannot be read.")]) from None
        if empty:
            raise SettingsError([(place, "the file is empty.")])
