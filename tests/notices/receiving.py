"""Real receivers for tests: an HTTP server that keeps what is posted, and mail servers on loopback."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Receiver:
    """Keeps what is posted, and what of it was `taken`; `mood` is what it answers: a status, or "slow": nothing for
    a while.
    """

    def __init__(self, port: int = 0) -> None:
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.taken: list[tuple[str, dict[str, str], bytes]] = []
        self.mood: int | str = 200
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (_Taking,), {"receiver": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook?token=in-the-address"

    @property
    def once(self) -> dict[str, tuple[str, dict[str, str], bytes]]:
        """What a receiver keeps that takes each id once."""
        return {headers["x-bkai-notice"]: (path, headers, body) for path, headers, body in self.taken}

    def close(self) -> None:
        """Stops listening."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Taking(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.receiver.posts.append((self.path, headers, body))
        mood = self.receiver.mood
        if mood == "slow":
            self.receiver.ended.wait(30)
            return
        if mood == 200:
            self.receiver.taken.append((self.path, headers, body))
        self.send_response(int(mood))
        if int(mood) in (301, 302, 307):
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def mails(folder: Path) -> list[EmailMessage]:
    """The mails in a Maildir, oldest first."""
    paths = sorted((folder / "new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
    return [message_from_bytes(path.read_bytes(), policy=policy.default) for path in paths]


@contextmanager
def dripping() -> Iterator[int]:
    """A server that says a letter now and then and never gets to the end of its line."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip() -> None:
        listener.settimeout(0.1)
        open_ones = []
        while not ended.is_set():
            with suppress(TimeoutError):
                open_ones.append(listener.accept()[0])
            for one in open_ones:
                try:
                    one.send(b"2")
                except OSError:
                    continue
        for one in open_ones:
            one.close()

    thread = threading.Thread(target=drip)
    thread.start()
    yield listener.getsockname()[1]
    ended.set()
    thread.join()
    listener.close()


def listens(port: int) -> bool:
    """Whether anybody does."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(true: Any, seconds: float = 20.0) -> Any:
    """What `true` gives, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
    return found
