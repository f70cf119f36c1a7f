"""A TCP relay whose connections a test can cut, as a bad network does."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Relay:
    """Passes bytes on to `port` of this machine until told otherwise."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._pairs: set[asyncio.StreamWriter] = set()
        self._passed = 0
        self._cut_after: int | None = None
        #: connections that were cut so far
        self.cuts = 0
        #: while False, new connections are closed at once
        self.open = True
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def cut_after(self, count: int) -> None:
        """Cut every connection when `count` more bytes have come back."""
        self._cut_after = self._passed + count

    def cut(self) -> None:
        """Cut every connection now."""
        self._loop.call_soon_threadsafe(self._cut)

    def close(self) -> None:
        """Cut everything and stop."""

        async def end() -> None:
            self.open = False
            self._server.close()
            self._cut()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _cut(self) -> None:
        for writer in list(self._pairs):
            self.cuts += 1
            transport = writer.transport
            assert isinstance(transport, asyncio.WriteTransport)
            transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, back}
        self._pairs |= ends
        try:
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer, counted=True))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._pairs -= ends
            for end in ends:
                end.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool = False
    ) -> None:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
            if counted:
                self._passed += len(data)
                if self._cut_after is not None and self._passed >= self._cut_after:
                    self._cut_after = None
                    self._cut()
        writer.close()
