"""How a fake service is reached: as a transport without any network, or over HTTP on a thread of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from threading import Event, Thread

import httpx


@dataclass(frozen=True, slots=True)
class Answer:
    """What a fake says: a whole body, or pieces that go on."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/json"
    stream: AsyncIterator[bytes] | None = None


#: method, target, the Authorization header, body
Answers = Callable[[str, str, str, bytes], Answer]


class Transport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient(transport=…)`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer to one request; called by httpx."""
        target = request.url.raw_path.decode()
        body = await request.aread()
        answer = self._answers(request.method, target, request.headers.get("authorization", ""), body)
        headers = {"content-type": answer.kind}
        if answer.stream:
            return httpx.Response(answer.status, headers=headers, content=answer.stream)
        return httpx.Response(answer.status, headers=headers, content=answer.body)


class Server:
    """Just enough HTTP/1.1 for a client of ours: one request a connection, on loopback."""

    def __init__(self, answers: Answers, port: int = 0) -> None:
        self._answers = answers
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._ready = Event()
        self._stop = asyncio.Event()
        self.url = ""
        self._thread = Thread(target=self._run, name="fake-bkai", daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Break every connection and stop listening."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._port)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ", 2)
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            answer = self._answers(method, target, headers.get("authorization", ""), body)
            await self._reply(writer, answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        length = "" if answer.stream else f"Content-Length: {len(answer.body)}\r\n"
        head = (
            f"HTTP/1.1 {answer.status} -\r\nContent-Type: {answer.kind}\r\n{length}Connection: close\r\n\r\n"
        )
        writer.write(head.encode() + answer.body)
        await writer.drain()
        if answer.stream:
            async for piece in answer.stream:
                writer.write(piece)
                await writer.drain()
