"""A small real HTTP server in the place of the hub and the service, speaking what a session needs of both.

`/hub/api` knows one user by one token, and lets any browser in as that user. `/services/bkai/api/v1` has sessions
that a test changes, pushes every change to open event streams and remembers what it was asked. It can fall silent,
or answer as a proxy does for a dead service.
"""

import json
import queue
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

USER = "alice"
USER_TOKEN = "the-token-of-a-person"
SERVER_TOKEN = "the-token-of-the-server"
LEASE = "01kb0000000000000000000000"
OTHER = "01kb0000000000000000000001"

Json = dict[str, Any]


def iso(ago: timedelta = timedelta()) -> str:
    """A time in the service's form."""
    return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds")


def session(id: str = LEASE, **changes: Any) -> Json:
    """A running session with half an fGPU."""
    share = {"device": "fake-0", "index": 0, "slot": "cuda", "model": "NVIDIA H200", "share": "1/4"}
    return {
        "id": id,
        "user": USER,
        "server": "trial",
        "name": "Trial",
        "url": f"/user/{USER}/trial/",
        "image": "sklearn/1.7",
        "group": "default",
        "project": None,
        "session_type": "interactive",
        "state": "RUNNING",
        "state_since": iso(timedelta(minutes=72)),
        "position": None,
        "why": None,
        "progress": None,
        "accelerator": "0.5 fGPU (25 % of NVIDIA H200, 36,096 MiB)",
        "fgpu": "0.5",
        "share": "1/4",
        "slices": [{**share, "memory_mib": 36096, "sm_milli": 33000, "mig": None}],
        "cpu": 1.0,
        "memory_mib": 2048,
        "shm_mib": 64,
        "asked": iso(timedelta(minutes=73)),
        "granted": iso(timedelta(minutes=73)),
        "started": iso(timedelta(minutes=72)),
        "ended": None,
        "deadline": None,
        "warning": None,
        "cause": None,
        "message": None,
        "node": "local",
        "enforcement": "booked, not enforced",
        "fake": True,
        **changes,
    }


class StandIn:
    """Hub and service on one free port, with the knobs of a test."""

    def __init__(self) -> None:
        self.sessions: dict[str, Json] = {LEASE: session()}
        self.asked: list[tuple[str, str, str]] = []
        #: how the service answers: "well", "silent" (a proxy's page with 503) or "broken" (its own error, 500)
        self.mood = "well"
        #: for how much longer a session may go on
        self.room: Json = {
            "seconds": 2700,
            "until": iso(),
            "why": "a request that waits is to start by 14:20 UTC",
        }
        self._readers: set[queue.Queue[Json | None]] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answering,), {"standin": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        """The hub's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def readers(self) -> int:
        """Open event streams."""
        return len(self._readers)

    def change(self, id: str, **changes: Any) -> None:
        """Change a session (or add one) and tell every open stream."""
        self.sessions[id] = {**self.sessions.get(id, session(id)), **changes}
        for reader in list(self._readers):
            reader.put(self.sessions[id])

    def fall_silent(self) -> None:
        """End every stream and answer like a proxy whose service is gone."""
        self.mood = "silent"
        for reader in list(self._readers):
            reader.put(None)

    def follow(self) -> "queue.Queue[Json | None]":
        """A new stream's events."""
        reader: queue.Queue[Json | None] = queue.Queue()
        self._readers.add(reader)
        return reader

    def leave(self, reader: "queue.Queue[Json | None]") -> None:
        """A stream has ended."""
        self._readers.discard(reader)

    def close(self) -> None:
        """Stop listening."""
        for reader in list(self._readers):
            reader.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Answering(BaseHTTPRequestHandler):
    """One request."""

    standin: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/hub/api"):
            self._hub()
        elif self.path.startswith("/services/bkai/api/v1"):
            self._service("GET")
        else:
            self._page(200, "<h1>A page of the hub</h1>")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/services/bkai/api/v1"):
            self._service("POST", json.loads(body))
            return
        login = self.path == "/hub/api/oauth2/token"
        self._json(200, {"access_token": USER_TOKEN, "token_type": "Bearer"} if login else {})

    def do_DELETE(self) -> None:
        self._service("DELETE")

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _hub(self) -> None:
        if self.path.startswith("/hub/api/oauth2/authorize"):
            self._let_in()
            return
        if self.path.startswith("/hub/api/user"):
            token = self.headers.get("Authorization", "").removeprefix("token ")
            if token not in (USER_TOKEN, SERVER_TOKEN):
                self._json(403, {"message": "no such token"})
                return
            scopes = [f"access:servers!server={USER}/trial"]
            self._json(200, {"kind": "user", "name": USER, "admin": False, "groups": [], "scopes": scopes})
            return
        self._json(200, {"version": "6.1.1"})

    def _let_in(self) -> None:
        """The hub knows this browser's user and asks nothing."""
        asked = parse_qs(urlsplit(self.path).query)
        self.send_response(302)
        back = urlencode({"code": "once", "state": asked["state"][0]})
        self.send_header("Location", f"{asked['redirect_uri'][0]}?{back}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _service(self, method: str, body: Json | None = None) -> None:
        path = self.path.removeprefix("/services/bkai/api/v1")
        self.standin.asked.append((method, path, self.headers.get("Authorization", "")))
        if self.standin.mood == "silent":
            self._page(503, "<h1>Service Unavailable</h1>")
        elif self.standin.mood == "broken":
            self._json(500, {"error": {"reason": "internal", "message": "Something went wrong; id 42."}})
        elif path == "/sessions":
            self._json(200, {"sessions": list(self.standin.sessions.values())})
        elif path.endswith("/events"):
            self._events(path)
        elif path.endswith("/extend"):
            self._extend(path.removesuffix("/extend").removeprefix("/sessions/"), body)
        elif (id := path.removeprefix("/sessions/")) in self.standin.sessions:
            if method == "DELETE":
                self.standin.change(id, state="TERMINATING", state_since=iso())
            self._json(202 if method == "DELETE" else 200, self.standin.sessions[id])
        else:
            self._json(404, {"error": {"reason": "not-found", "message": "There is no such session."}})

    def _extend(self, id: str, body: Json | None) -> None:
        if body is None:
            self._json(200, self.standin.room)
            return
        seconds = int(body["by"].removesuffix("s"))
        if seconds > self.standin.room["seconds"]:
            message = f"It cannot go on for longer: {self.standin.room['why']}."
            self._json(409, {"error": {"reason": "not-extended", "message": message}})
            return
        ends = datetime.fromisoformat(self.standin.sessions[id]["deadline"]) + timedelta(seconds=seconds)
        self.standin.change(id, deadline=ends.isoformat(timespec="milliseconds"), warning=None)
        self._json(200, self.standin.sessions[id])

    def _events(self, path: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        reader = self.standin.follow()
        wanted = path.removesuffix("/events").removeprefix("/sessions/")
        try:
            for now in list(self.standin.sessions.values()):
                self._event(now, wanted)
            while (changed := self._next(reader)) is not None:
                self._event(changed, wanted)
        except OSError:
            pass
        finally:
            self.standin.leave(reader)
            self.close_connection = True

    def _next(self, reader: "queue.Queue[Json | None]") -> Json | None:
        while True:
            try:
                return reader.get(timeout=0.2)
            except queue.Empty:
                self.wfile.write(b": hb\n\n")

    def _event(self, session: Json, wanted: str) -> None:
        if wanted in ("", session["id"]):
            self.wfile.write(f"event: session\ndata: {json.dumps(session)}\n\n".encode())

    def _json(self, status: int, body: Json) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _page(self, status: int, body: str) -> None:
        self._send(status, "text/html", body.encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.end_headers()
        self.wfile.write(body)
