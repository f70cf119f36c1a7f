"""`Spool`: everything a program wrote, on disk, readable from any byte on.

Owns the order of the bytes and which of the two streams each came from. The file has no name: whatever ends this
process, nothing is left behind.
"""

import asyncio
import os
import tempfile
from array import array
from bisect import bisect_right
from dataclasses import dataclass

STREAMS = ("stdout", "stderr")
PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one stream; `offset` counts all bytes before them, of either stream."""

    offset: int
    data: bytes
    stream: str


class Spool:
    """Grows while the program writes; at `limit` bytes the rest is counted and dropped."""

    def __init__(self, limit: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="bkai-run-")  # noqa: SIM115 - lives as long as the spool
        self._limit = limit
        #: where the other stream goes on, beginning with standard output at 0: even entries are its own
        self._turns = array("Q", [0])
        self._news = asyncio.Event()
        self.size = 0
        self.dropped = 0
        self.complete = False

    def add(self, stream: int, data: bytes) -> None:
        """Append what came out of stream 0 (standard output) or 1 (standard error)."""
        kept = data[: self._limit - self.size] if not self.dropped else b""
        try:
            written = os.pwrite(self._file.fileno(), kept, self.size)
        except OSError:
            written = 0  # the disk is full: the program goes on, its output is lost and said to be
        if written:
            if (len(self._turns) - 1) % 2 != stream:
                self._turns.append(self.size)
            self.size += written
        self.dropped += len(data) - written
        self._wake()

    def finish(self) -> None:
        """Nothing more will come."""
        self.complete = True
        self._wake()

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def read(self, offset: int) -> Piece | None:
        """The next bytes from `offset` on, all of one stream; None when there are none yet."""
        if offset >= self.size:
            return None
        turn = bisect_right(self._turns, offset) - 1
        end = self._turns[turn + 1] if turn + 1 < len(self._turns) else self.size
        data = os.pread(self._file.fileno(), min(end - offset, PIECE), offset)
        last = turn + 1 == len(self._turns)
        if offset + len(data) < end or (last and not self.complete):
            data = _at_character(data)
        return Piece(offset, data, STREAMS[turn % 2]) if data else None

    async def grown(self, timeout: float) -> bool:
        """Wait until there is something new, at most `timeout` seconds; says whether there is."""
        news = self._news
        try:
            await asyncio.wait_for(news.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _at_character(data: bytes) -> bytes:
    """`data` without the first bytes of a UTF-8 character whose others are still to come."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2
            return data[:-back] if needed > back else data
        if byte < 0x80:
            break
    return data
