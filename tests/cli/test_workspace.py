"""A session's files and programs through the client, against a real session's server."""

import io
import time
from collections.abc import AsyncIterator

import pytest

from jupyterhub_bkai.client import AsyncClient, BkaiError, FakeService, Unreachable, Workspace
from jupyterhub_bkai.client.workspace import Broken, Exited, Output
from tests.cli.relay import Relay
from tests.singleuser.servers import Server


@pytest.fixture
async def workspace(runnable: FakeService) -> AsyncIterator[Workspace]:
    async with AsyncClient(runnable.url, runnable.token) as client:
        (session,) = await client.create()
        yield Workspace(client, session, patience=1)


async def test_a_run(workspace: Workspace) -> None:
    run = await workspace.run(["sh", "-c", "echo $A; exit 7"], environment={"A": "b"})
    events = [event async for event in workspace.output(run)]
    assert events == [Output(0, b"b\n", "stdout"), Exited(7)]


async def test_an_interrupt(workspace: Workspace) -> None:
    run = await workspace.run(["sleep", "60"])
    await workspace.interrupt(run)
    assert [event async for event in workspace.output(run)] == [Exited(-2)]


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 5])
async def test_an_upload(workspace: Workspace, session_server: Server, size: int) -> None:
    told: list[int] = []
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await workspace.upload("up/of size", io.BytesIO(content), mode=0o755, told=told.append)
    file = session_server.home / "up" / "of size"
    assert file.read_bytes() == content
    assert file.stat().st_mode & 0o777 == 0o755
    assert told[-1] == size


async def test_an_upload_replaces_what_was_there(workspace: Workspace, session_server: Server) -> None:
    for text in (b"a longer text", b"short", b""):
        await workspace.upload("again", io.BytesIO(text))
        assert (session_server.home / "again").read_bytes() == text


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "."])
async def test_a_path_that_leads_elsewhere(workspace: Workspace, path: str) -> None:
    with pytest.raises(BkaiError):
        await workspace.upload(path, io.BytesIO(b"x"))


async def test_gone_for_good(workspace: Workspace, relay: Relay) -> None:
    run = await workspace.run(["sh", "-c", "echo begun; sleep 60"])
    output = workspace.output(run)
    assert isinstance(await anext(output), Output)
    relay.open = False
    relay.cut()
    assert isinstance(await anext(output), Broken)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        await anext(output)
    assert time.monotonic() - began < 5
    relay.open = True
    await workspace.interrupt(run)


async def test_a_session_that_is_not_there_yet(runnable: FakeService) -> None:
    """Between RUNNING and the proxy's route there is a moment in which the hub answers instead."""
    runnable.session_url = "/user/alice/nothing/"
    async with AsyncClient(runnable.url, runnable.token) as client:
        (session,) = await client.create()
        with pytest.raises(Unreachable):
            await Workspace(client, session, patience=0.3).run(["true"])
