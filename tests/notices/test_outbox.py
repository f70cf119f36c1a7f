"""Notices reach real receivers, each id once, whatever happens to either side; secrets stay where they are."""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_bkai import policy
from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.leasing.broker import Broker
from jupyterhub_bkai.leasing.lifecycle import Cause
from jupyterhub_bkai.model import Node, Person
from jupyterhub_bkai.notices import kinds, mail, webhook
from jupyterhub_bkai.notices.kinds import Choice, Email, Ways, Webhook
from jupyterhub_bkai.notices.outbox import Outbox
from jupyterhub_bkai.store import queries
from jupyterhub_bkai.store.database import Database
from tests.leasing.conftest import CARD, SETTINGS, TestClock, asked
from tests.notices.receiving import Receiver, dripping, mails

KEY = b"a-key-for-tests"


class Place:
    """One data folder: opens the broker and outbox of it, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = TestClock()
        (folder / "webhook.key").write_bytes(KEY + b"\n")

    @asynccontextmanager
    async def broker(self, ways: Ways) -> AsyncIterator[Broker]:
        """Without an outbox: what is to be told is only written."""
        settings = replace(SETTINGS, notices=ways)
        database = Database(f"sqlite:///{self.folder / 'bkai.sqlite'}")
        broker = Broker(database, settings, self.clock)
        await broker.load([Node("local", 8000, 16_384, (CARD,))])
        task = asyncio.create_task(broker.run())
        try:
            yield broker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            database.close()

    @asynccontextmanager
    async def outbox(self, ways: Ways) -> AsyncIterator[Broker]:
        """With the outbox; leaving ends it in the middle of whatever it does."""
        async with self.broker(ways) as broker:
            outbox = Outbox(broker, self.folder, "https://hub.example.org", lambda: self.clock.wall_ms)
            task = asyncio.create_task(outbox.run())
            try:
                yield broker
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def hook(receiver: Receiver) -> Ways:
    return Ways(webhook=Webhook(receiver.url, "webhook.key"))


def post(port: int, **changes: Any) -> Ways:
    to = {"sender": "bkai@example.org", "to": "{user}@example.org", "security": "none"}
    return Ways(email=Email("127.0.0.1", port, **{**to, **changes}))


async def ended(broker: Broker, name: str = "train", user: str = "ada") -> str:
    """A session whose time is over, which its owner is to be told."""
    [one] = await broker.ask(Person(user), name, asked(""))
    await broker.ready(one.id)
    await broker.end(one.id, Cause.DEADLINE, "reconcile", "Its maximum duration is over.")
    await broker.free(one.id, "fence", "proof")
    return one.id


async def deliveries(broker: Broker) -> list[dict[str, Any]]:
    return [dict(row) for row in await broker.database.read(queries.told(None, None, 100))]


async def looked(broker: Broker, true: Callable[[list[dict[str, Any]]], Any]) -> Any:
    """What `true` gives of the deliveries, once it is true."""
    async with asyncio.timeout(30):
        while True:
            if found := true(await deliveries(broker)):
                return found
            await asyncio.sleep(0.02)


async def settled(broker: Broker, id: str, state: str = "delivered") -> dict[str, Any]:
    """The delivery of what is told of a session, once it is in that state."""
    found: list[dict[str, Any]] = await looked(
        broker, lambda rows: [row for row in rows if row["request"] == id and row["state"] == state]
    )
    return found[0]


async def tried(broker: Broker) -> dict[str, Any]:
    """The first delivery that was tried."""
    found: list[dict[str, Any]] = await looked(broker, lambda rows: [row for row in rows if row["tries"]])
    return found[0]


async def test_a_post_says_what_happened_and_is_signed(place: Place, receiver: Receiver) -> None:
    async with place.outbox(hook(receiver)) as broker:
        id = await ended(broker)
        row = await settled(broker, id)
        assert (row["tries"], row["error"], row["done_ms"]) == (1, None, place.clock.wall_ms)
    [(path, headers, body)] = receiver.posts
    assert path == "/hook?token=in-the-address"
    assert headers["content-type"] == "application/json"
    assert headers["x-bkai-signature"] == f"sha256={hmac.new(KEY, body, hashlib.sha256).hexdigest()}"
    told = json.loads(body)
    assert told["id"] == headers["x-bkai-notice"]
    assert (told["kind"], told["user"], told["at"]) == ("ended", "ada", "2023-11-14T22:13:20.000Z")
    assert told["message"] == "Your session train has ended. Its maximum duration is over."
    assert told["session"] == {
        "id": id, "name": "train", "url": "/user/ada/train/", "state": "TERMINATING", "image": "sklearn/1.8",
        "group": "default", "project": None, "cause": "deadline", "deadline": None,
    }  # fmt: skip


async def test_what_was_committed_before_the_service_was_killed_arrives_after_it(
    place: Place, receiver: Receiver
) -> None:
    async with place.broker(hook(receiver)) as broker:
        id = await ended(broker)  # nobody delivers: killed right after the commit
    assert receiver.posts == []
    async with place.outbox(hook(receiver)) as broker:
        await settled(broker, id)
    async with place.outbox(hook(receiver)) as broker:
        await settled(broker, await ended(broker, "second"))
    assert len(receiver.posts) == len(receiver.once) == 2


async def test_killed_after_the_receiver_took_it_it_comes_again_with_its_id(
    place: Place, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: the receiver has it, and that is not written yet."""
    async with place.outbox(hook(receiver)) as broker:

        async def never(*_: Any) -> None:
            await asyncio.sleep(3600)

        monkeypatch.setattr(Outbox, "_note", never)
        id = await ended(broker)
        await looked(broker, lambda _: receiver.posts)
    monkeypatch.undo()
    async with place.outbox(hook(receiver)) as broker:
        await settled(broker, id)
    assert len(receiver.posts) == 2
    assert len(receiver.once) == 1
    assert receiver.posts[0][2] == receiver.posts[1][2]


@pytest.mark.parametrize(
    ("mood", "error"),
    [
        (500, "it answered 500"),
        (404, "it answered 404"),
        (302, "it answered 302"),
        ("slow", "did not answer within"),
    ],
)
async def test_a_receiver_that_does_not_take_it_gets_it_again(
    place: Place,
    receiver: Receiver,
    mood: int | str,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhook.post, "__defaults__", (0.5,))
    receiver.mood = mood
    async with place.outbox(hook(receiver)) as broker:
        with caplog.at_level(logging.DEBUG):
            first = await ended(broker)
            row = await tried(broker)
            assert error in row["error"]
            assert row["next_ms"] == place.clock.wall_ms + kinds.FIRST_PAUSE_MS
            receiver.mood = 200
            await settled(broker, await ended(broker, "other"))  # which waits for nobody
            place.clock.advance(kinds.FIRST_PAUSE_MS)
            assert (await settled(broker, first))["tries"] == 2
        # The service has those of httpx silent: they hold addresses.
        said = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
        assert "token=" not in str(said)
        assert KEY.decode() not in caplog.text
        assert "token=" not in str(await deliveries(broker))
    assert len(receiver.once) == 2


async def test_a_receiver_that_is_away_is_given_up_after_a_day(
    place: Place, free_port: Callable[[], int]
) -> None:
    ways = Ways(webhook=Webhook(f"http://127.0.0.1:{free_port()}/x"))
    async with place.outbox(ways) as broker:
        id = await ended(broker)
        assert (await tried(broker))["error"] == "it cannot be reached (ConnectError)"
        place.clock.advance(kinds.GIVE_UP_MS + 1)
        row = await settled(broker, id, "failed")
        assert row["tries"] == 2


async def test_a_way_that_is_not_set_up_any_more_fails_what_waits_for_it(
    place: Place, receiver: Receiver
) -> None:
    async with place.broker(hook(receiver)) as broker:
        id = await ended(broker)
    async with place.outbox(Ways()) as broker:
        row = await settled(broker, id, "failed")
        assert row["error"] == "this way is not set up any more"


async def test_a_mail_from_a_real_server(place: Place, post_office: tuple[int, Path]) -> None:
    port, folder = post_office
    async with place.outbox(post(port)) as broker:
        row = await settled(broker, await ended(broker))
    [one] = mails(folder)
    assert (one["From"], one["To"], one["X-RcptTo"]) == (
        "bkai@example.org",
        "ada@example.org",
        "ada@example.org",
    )
    assert one["Subject"] == "[bkai] train has ended"
    assert one["Message-ID"] == f"<{row['notice']}@bkai.example.org>"
    assert one["X-Bkai-Notice"] == row["notice"]
    assert one.get_content_type() == "text/plain"
    assert one.get_content() == (
        "Your session train has ended. Its maximum duration is over.\n\n"
        "All your sessions: https://hub.example.org/services/bkai/\n"
    )


async def test_no_name_becomes_a_header_or_another_recipient(
    place: Place, post_office: tuple[int, Path]
) -> None:
    port, folder = post_office
    async with place.outbox(post(port)) as broker:
        await settled(broker, await ended(broker, "x\r\nBcc: eve@example.org\r\n\r\nBoo\u2028y\x1b[31m"))
        for user in ("ada@evil.example\n", "a b", "x>,<eve@example.org", "ä", ""):
            row = await settled(broker, await ended(broker, "y", user or "q" * 250), "failed")
            assert row["error"] == "the user has no mail address"
    [one] = mails(folder)
    assert one["Subject"] == "[bkai] x Bcc: eve@example.org Boo y [31m has ended"
    assert (one["Bcc"], one["X-RcptTo"]) == (None, "ada@example.org")
    assert one.get_content().splitlines()[0].startswith("Your session x Bcc: eve@example.org Boo y [31m has")


async def test_an_address_of_ones_own_only_where_it_is_allowed(
    place: Place, post_office: tuple[int, Path]
) -> None:
    port, folder = post_office
    for allowed in (False, True):
        async with place.outbox(post(port, own_address=allowed)) as broker:
            broker.choices["ada"] = Choice(address="ada@home.example")
            await settled(broker, await ended(broker))
    assert [one["To"] for one in mails(folder)] == ["ada@example.org", "ada@home.example"]


async def test_a_mail_server_that_only_drips_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "LIMIT_S", 1.0)
    monkeypatch.setattr(mail.Server.__init__, "__defaults__", (None, 1.0, None))
    with dripping() as port:
        async with place.outbox(post(port)) as broker:
            await ended(broker)
            assert (await tried(broker))["error"] == "it did not take the mail within 1 s"


async def test_a_secret_that_is_not_there_is_said_at_the_start(place: Place, receiver: Receiver) -> None:
    for file, sentence in (("gone.key", "cannot be read"), ("empty.key", "is empty")):
        (place.folder / "empty.key").touch()
        with pytest.raises(SettingsError, match=sentence):
            async with place.outbox(Ways(webhook=Webhook(receiver.url, file))):
                pass


def test_what_the_settings_say() -> None:
    from jupyterhub_bkai import settings

    found = settings.load(
        """
        warn_before: [2m, 1h, 2m]
        notices:
          turn_after: 20m
          webhook: {url: "https://chat.example.org/x?y=1", secret_file: webhook.key}
          email: {smtp: "mail.example.org:587", from: a@b.c, to: "{user}@b.c", user: bkai, password_file: p}
        """
    )
    assert found.warn_before_s == (3600, 120)
    assert found.notices == Ways(
        1200,
        Webhook("https://chat.example.org/x?y=1", "webhook.key"),
        Email("mail.example.org", 587, "a@b.c", "{user}@b.c", "starttls", "bkai", "p"),
    )
    assert policy.Settings().notices.names == ()
    with pytest.raises(SettingsError) as refused:
        settings.load(
            """
            warn_before: 30m
            notices:
              webhook: {url: "file:///etc/passwd"}
              email: {smtp: mail.example.org, from: "a@b.c\\nX: y", to: nobody, security: maybe, user: x}
            """
        )
    assert [place for place, _ in refused.value.problems] == [
        "warn_before", "notices.webhook.url", "notices.email.from", "notices.email.smtp", "notices.email.from",
        "notices.email.to", "notices.email.security", "notices.email.user",
    ]  # fmt: skip
