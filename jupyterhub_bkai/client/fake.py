"""`FakeService`: a service in memory for your own tests, over real HTTP or without any network.

    async with FakeService(gpus=1) as service, AsyncClient(service.url, service.token) as client: …
    AsyncClient(service.url, service.token, transport=service.transport())

It keeps a first-come queue over a number of whole GPUs and speaks the public REST. It starts nothing: what a
session would do is up to you (`session_url` may name a real server). Limits, policies and time-outs are the
real service's.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import count
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx

from jupyterhub_bkai.client.fakehttp import Answer, Server, Transport
from jupyterhub_bkai.client.nouns import ENDED

API = "/services/bkai/api/v1"
_UNITS = {"h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


def _refusal(status: int, reason: str, message: str, fields: Mapping[str, str] | None = None) -> Answer:
    return _json({"error": {"reason": reason, "message": message, "fields": dict(fields or {})}}, status)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class FakeService:
    """`gpus` devices of 1 fGPU each; a session takes what it asks for, and waits while that is not free."""

    gpus: int = 2
    images: tuple[str, ...] = ("sklearn/1.7", "sklearn/1.6")
    user: str = "alice"
    admin: bool = False
    token: str = "fake-token"
    session_url: str = ""
    url: str = "http://127.0.0.1:1"
    port: int = 0
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    #: every request that came: method and path
    asked: list[tuple[str, str]] = field(default_factory=list)
    _needs: dict[str, Fraction] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: count(1))
    _server: Server | None = None

    # -- what happens in it -------------------------------------------------------------------

    def create(self, options: Mapping[str, Any], keepalive_s: int | None = None) -> Answer:
        """Ask for sessions; those that fit run at once."""
        errors = self.errors(options)
        if errors:
            return _refusal(400, "invalid-options", " ".join(errors.values()), errors)
        made = [self._new(options) for _ in range(int(options.get("count", 1)))]
        self._grant()
        return _json({"sessions": [self.sessions[id] for id in made]}, 201)

    def errors(self, options: Mapping[str, Any]) -> dict[str, str]:
        """A sentence per option that the fake would not take."""
        errors, version = {}, options.get("version", self.images[0])
        if version not in self.images:
            errors["version"] = f"Image version: there is no “{version}”."
        if self._amount(options) is None:
            errors["fgpu"] = f"fGPU: “{options['fgpu']}” is not a number from 0 to {self.gpus}."
        return errors

    def stop(self, id: str, exit_code: int | None = None) -> None:
        """End a session; who waits may run."""
        waiting = self.sessions[id]["state"] == "PENDING"
        if exit_code is not None and not waiting:
            self.sessions[id]["message"] = f"Its program ended by itself (exit code {exit_code})."
        self.move(
            id,
            "CANCELLED" if waiting else "TERMINATED",
            "stopped" if exit_code is None or waiting else "exited",
        )
        self._grant()

    def extend(self, id: str, by: str) -> Answer:
        """A session that has a deadline has a later one; nobody here is kept waiting by it."""
        session = self.sessions[id]
        if not session.get("deadline") or session["state"] != "RUNNING":
            return _refusal(409, "no-deadline", "It has no end, so there is nothing to extend.")
        if by[-1:] not in _UNITS or not by[:-1].isdecimal():
            return _refusal(400, "invalid-options", f"by: “{by}” is not a time such as 30m or 2h.")
        later = datetime.fromisoformat(session["deadline"]) + int(by[:-1]) * _UNITS[by[-1]]
        session |= {"deadline": later.isoformat(timespec="milliseconds"), "warning": None}
        return _json(session)

    def move(self, id: str, state: str, why: str = "") -> None:
        """Put a session into a state, as if it had come there."""
        session = self.sessions[id]
        now = _now()
        self.history[id].append(
            {"at": now, "from": session["state"], "to": state, "who": self.user, "why": why}
        )
        session |= {"state": state, "state_since": now}
        if state == "RUNNING":
            session |= {"granted": now, "started": now, "position": None, "why": None}
        if state in ENDED:
            session |= {"ended": now, "cause": why or None, "position": None, "why": None}

    def _amount(self, options: Mapping[str, Any]) -> Fraction | None:
        try:
            amount = Fraction(str(options.get("fgpu", 0)))
        except (ValueError, ZeroDivisionError):
            return None
        return amount if 0 <= amount <= self.gpus else None

    def _new(self, options: Mapping[str, Any]) -> str:
        number, amount = next(self._numbers), self._amount(options) or Fraction(0)
        id, name, now = f"{number:026d}", str(options.get("name") or f"s{number}"), _now()
        self._needs[id] = amount
        self.history[id] = [{"at": now, "from": "", "to": "PENDING", "who": self.user, "why": "asked"}]
        self.sessions[id] = {
            "id": id,
            "user": self.user,
            "server": name,
            "name": name,
            "url": self.session_url or f"/user/{self.user}/{name}/",
            "image": options.get("version", self.images[0]),
            "group": "default",
            "state": "PENDING",
            "state_since": now,
            "asked": now,
            "accelerator": f"{float(amount):g} fGPU" if amount else "no accelerator",
            "fgpu": str(float(amount)) if amount else None,
            "share": str(amount) if amount else None,
            "slices": [],
            "cpu": 1.0,
            "memory_mib": 2048,
            "shm_mib": 64,
            "enforcement": "booked, not enforced",
            "fake": True,
        }
        return id

    def _waiting(self) -> list[str]:
        return [id for id, session in self.sessions.items() if session["state"] == "PENDING"]

    def _free(self) -> Fraction:
        running = (self._needs[id] for id, s in self.sessions.items() if s["state"] == "RUNNING")
        return self.gpus - sum(running, Fraction(0))

    def _grant(self) -> None:
        while (waiting := self._waiting()) and self._needs[waiting[0]] <= self._free():
            self.move(waiting[0], "RUNNING")
        for position, id in enumerate(self._waiting(), 1):
            why = f"needs {float(self._needs[id]):g} fGPU, {float(self._free()):g} are free"
            self.sessions[id] |= {"position": position, "why": why}

    # -- REST ---------------------------------------------------------------------------------

    def answer(self, method: str, target: str, token: str, body: bytes) -> Answer:
        """The answer to one request."""
        parts = urlsplit(target)
        self.asked.append((method, parts.path))
        if not parts.path.startswith(API + "/"):
            return Answer(404, b"<h1>404</h1>", "text/html")
        if token not in (f"token {self.token}", f"Bearer {self.token}"):
            return _refusal(401, "not-logged-in", "Log in first.")
        path, query = parts.path.removeprefix(API).split("/")[1:], dict(parse_qsl(parts.query))
        given: dict[str, Any] = json.loads(body) if body else {}
        if path[0] == "sessions":
            return self._sessions(method, path[1:], query, given)
        pages: dict[str, Callable[[], Answer]] = {
            "info": lambda: _json(
                {"version": "0", "fake_devices": True, "statement": "Nothing here is real."}
            ),
            "me": lambda: _json({"name": self.user, "admin": self.admin, "projects": []}),
            "options": lambda: _json({"fields": [], "offer": self._offer()}),
            "devices": lambda: _json({"nodes": [self._node()]}),
            "queue": lambda: _json({"groups": [{"name": "default", "waiting": self._queue()}]}),
            "usage": lambda: self._usage(path[1:], query),
            "openapi.json": lambda: _json({"openapi": "3.1.0", "info": {}, "paths": {}}),
            "events": lambda: Answer(kind="text/event-stream", stream=self._events(None)),
        }
        page = pages.get(path[0])
        return page() if page else _refusal(404, "not-found", "There is no such page.")

    def _sessions(
        self, method: str, path: list[str], query: Mapping[str, str], given: dict[str, Any]
    ) -> Answer:
        if not path:
            if method == "POST":
                return self.create(given.get("options", {}), given.get("keepalive_s"))
            states = [state for state in query.get("state", "").split(",") if state]
            live = sorted(self.sessions.values(), key=lambda s: s["state"] in ENDED)
            return _json({"sessions": [s for s in live if not states or s["state"] in states]})
        if path == ["check"]:
            errors = self.errors(given.get("options", {}))
            return _json(
                {"errors": errors, "outlook": {"starts": "never" if errors else "now", "message": ""}}
            )
        id, what = path[0], path[1] if len(path) > 1 else ""
        if id not in self.sessions:
            return _refusal(404, "not-found", "There is no such session.")
        if method == "DELETE":
            if self.sessions[id]["state"] not in ENDED:
                self.stop(id, given.get("exit_code"))
            return _json(self.sessions[id], 202)
        pages: dict[str, Callable[[], Answer]] = {
            "": lambda: _json(self.sessions[id]),
            "keepalive": lambda: Answer(204),
            "extend": lambda: self.extend(id, str(given.get("by"))),
            "transitions": lambda: _json({"transitions": self.history[id]}),
            "logs": lambda: Answer(body=b"the session started\n", kind="text/plain"),
            "events": lambda: Answer(kind="text/event-stream", stream=self._events(id)),
        }
        return pages[what]() if what in pages else _refusal(404, "not-found", "There is no such page.")

    async def _events(self, id: str | None) -> AsyncIterator[bytes]:
        told: dict[str, str] = {}
        yield b": hb\n\n"
        while True:
            for session in [self.sessions[id]] if id else list(self.sessions.values()):
                data = json.dumps(session)
                if told.get(session["id"]) != data:
                    told[session["id"]] = data
                    yield f"event: session\ndata: {data}\n\n".encode()
            if id and self.sessions[id]["state"] in ENDED:
                return
            await asyncio.sleep(0.02)

    def _offer(self) -> dict[str, Any]:
        return {"images": [{"version": v, "title": v, "ready": True} for v in self.images], "groups": []}

    def _node(self) -> dict[str, Any]:
        booked = self.gpus - self._free()
        devices = []
        for index in range(self.gpus):
            used = min(max(booked - index, Fraction(0)), Fraction(1))
            devices.append(
                {
                    "id": f"FAKE-{index}",
                    "index": index,
                    "slot": "cuda",
                    "model": "Fake GPU",
                    "memory_mib": 8192,
                    "booked_mib": int(8192 * used),
                    "sms": 100,
                    "booked_sm_milli": int(100_000 * used),
                    "share_free": str(1 - used),
                    "fake": True,
                    "slices": [],
                }
            )
        return {
            "name": "local",
            "cpu": {"total": 8000, "booked": 0},
            "memory_mib": {"total": 32768, "booked": 0},
            "devices": devices,
        }

    def _queue(self) -> list[dict[str, Any]]:
        rows = (self.sessions[id] for id in self._waiting())
        return [
            {key: s[key] for key in ("id", "user", "position", "why")}
            | {"asked": s["accelerator"], "since": s["asked"]}
            for s in rows
        ]

    def _usage(self, path: Sequence[str], query: Mapping[str, str]) -> Answer:
        if path == ["trace"]:
            if not self.admin:
                return _refusal(403, "not-allowed", "Only administrators see what everybody asked for.")
            who = "1" if query.get("anonymous") else self.user
            body = f"asked_s,user,group,cpu,memory_mib,took_s\n0,{who},default,1,1024,60\n"
            return Answer(body=body.encode(), kind="text/csv")
        row = {"key": self.user, "sessions": len(self.sessions), "seconds": 0.0, "gpu_hours": 0.0}
        if query.get("format") == "csv":
            lines = (",".join(row), ",".join(map(str, row.values())))
            return Answer(body="".join(f"{line}\n" for line in lines).encode(), kind="text/csv")
        return _json({"by": query.get("by", "user"), "rows": [row]})

    # -- reached by ---------------------------------------------------------------------------

    def transport(self) -> httpx.AsyncBaseTransport:
        """A transport for `AsyncClient` that reaches this fake without a network."""
        return Transport(self.answer)

    def start(self) -> Self:
        """Listen on a free port of this machine, on a thread; `url` is where."""
        self._server = Server(self.answer, self.port)
        self.url = self._server.url
        return self

    def close(self) -> None:
        """Stop listening."""
        if self._server:
            self._server.close()

    __enter__ = start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
