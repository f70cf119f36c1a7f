"""Files from a laptop into the session's home folder, as raw bytes in as many pieces as it takes.

Owns the promise that a broken upload goes on where it stopped: `PUT …?offset=N` keeps the first N bytes of the file
and puts the body behind them, `GET` says how many bytes there are. A body never waits in memory.
"""

import os
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.utils import ensure_async
from tornado import web

from jupyterhub_bkai.errors import Conflict, InvalidOptions, PublicError
from jupyterhub_bkai.singleuser.confined import Confined, refusal
from jupyterhub_bkai.singleuser.handling import Handler, answers

LARGEST_OFFSET = (1 << 63) - 1


class Receiving:
    """One body on its way into one file. A later one for the same file ends it."""

    def __init__(self, files: Confined, path: str, offset: int, mode: int) -> None:
        self.path = path
        self.ended = False
        self._file = files.open(path, os.O_WRONLY | os.O_CREAT, mode)
        try:
            self._begin(offset, mode)
        except BaseException:
            self.close()
            raise

    def _begin(self, offset: int, mode: int) -> None:
        size = os.fstat(self._file).st_size
        if offset > size:
            raise Conflict(
                f"{self.path!r} has {size} bytes; go on from there, not from {offset}.", reason="offset"
            )
        try:
            os.fchmod(self._file, mode)
            os.ftruncate(self._file, offset)
        except OSError as error:
            raise refusal(self.path, error) from error
        self.size = offset

    def write(self, data: bytes) -> None:
        """Put `data` behind what is there."""
        view = memoryview(data)
        while view and not self.ended:
            try:
                written = os.pwrite(self._file, view, self.size)
            except OSError as error:
                raise refusal(self.path, error) from error
            self.size += written
            view = view[written:]

    def close(self) -> None:
        """Let go of the file. May be called again."""
        if not self.ended:
            self.ended = True
            os.close(self._file)


class Uploads:
    """The bodies that are on their way just now, one at most for each file."""

    def __init__(self, files: Confined) -> None:
        self.files = files
        self._under_way: dict[str, Receiving] = {}

    def begin(self, path: str, offset: int, mode: int) -> Receiving:
        """Start to receive; what was still coming for this file, over a connection given up, is cut off."""
        self.end(self._under_way.get(path))
        receiving = Receiving(self.files, path, offset, mode)
        self._under_way[path] = receiving
        return receiving

    def end(self, receiving: Receiving | None) -> None:
        """Forget one that is complete or broken off."""
        if receiving is None:
            return
        receiving.close()
        if self._under_way.get(receiving.path) is receiving:
            del self._under_way[receiving.path]


@web.stream_request_body
class UploadHandler(Handler):
    """`PUT` receives a piece of a file, `GET` says how much has arrived."""

    _track_activity = True
    _receiving: Receiving | None = None
    _trouble: PublicError | web.HTTPError | None = None

    def initialize(self, name: str, *args: Any, uploads: Uploads, **settings: Any) -> None:
        """Take what the extension gives."""
        super().initialize(name, *args, **settings)
        self._uploads = uploads

    async def prepare(self, **settings: Any) -> None:
        """Look at who asks before the body arrives: the decorators of `put` only run behind it.

        A refusal waits until the body has passed by: a connection that is closed while the other side still sends
        is reset, and nobody would read why.
        """
        if self.request.method != "PUT":
            await super().prepare(**settings)
            return
        try:
            await super().prepare(**settings)
            await self._require_permission()
            self._receiving = self._uploads.begin(self.path_args[0], self._offset(), self._mode())
        except (PublicError, web.HTTPError) as error:
            self._trouble = error

    def data_received(self, chunk: bytes) -> None:
        """Write as it comes; after trouble the rest of the body is let pass."""
        if self._receiving is None or self._trouble is not None:
            return
        try:
            self._receiving.write(chunk)
        except PublicError as error:
            self._trouble = error

    @web.authenticated
    @authorized
    @answers
    async def put(self, path: str) -> None:
        """The body is in the file: say how large the file is now."""
        receiving, self._receiving = self._receiving, None
        superseded = receiving is not None and receiving.ended
        self._uploads.end(receiving)
        if self._trouble is not None:
            raise self._trouble
        if receiving is None or superseded:
            raise Conflict(f"{path!r} is being uploaded anew by somebody else.", reason="superseded")
        self.answer({"path": path, "size": receiving.size})

    @web.authenticated
    @authorized
    @answers
    async def get(self, path: str) -> None:
        """How many bytes of the file have arrived."""
        descriptor = self._uploads.files.open(path, os.O_RDONLY)
        try:
            self.answer({"path": path, "size": os.fstat(descriptor).st_size})
        finally:
            os.close(descriptor)

    def on_finish(self) -> None:
        """Whatever happened, the file is let go."""
        self._let_go()
        super().on_finish()

    def on_connection_close(self) -> None:
        """The body broke off: what arrived stays."""
        self._let_go()
        super().on_connection_close()

    async def _require_permission(self) -> None:
        user, may = self.current_user, self.authorizer.is_authorized
        if not user or not await ensure_async(may(self, user, "write", self.auth_resource)):
            raise web.HTTPError(403)

    def _let_go(self) -> None:
        self._uploads.end(self._receiving)
        self._receiving = None

    def _offset(self) -> int:
        text = self.get_query_argument("offset", "0")
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= LARGEST_OFFSET):
            raise InvalidOptions({"offset": "The offset must be a whole number of bytes."})
        return int(text)

    def _mode(self) -> int:
        text = self.get_query_argument("mode", "0644")
        if not (len(text) <= 4 and text and set(text) <= set("01234567") and int(text, 8) <= 0o777):
            raise InvalidOptions({"mode": "The mode must be three octal digits, such as 644 or 755."})
        return int(text, 8) | 0o600  # the next piece must be able to get in
