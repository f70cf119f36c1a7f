"""What every handler of the extension shares: who may call, and how a refusal looks.

A refusal is `{"error": {"reason", "message", "fields"}, "message": …}`: the first is the service's form, the second
what JupyterLab shows.
"""

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin

from jupyterhub_bkai.errors import InvalidOptions, PublicError, TooLarge

P = ParamSpec("P")
H = TypeVar("H", bound="Handler")

#: far above any command line that a system starts
BODY_LIMIT = 1 << 20


class Handler(ExtensionHandlerMixin, APIHandler):
    """Asking about a session is not working in it: it does not count as activity unless a handler says so."""

    auth_resource = "bkai"
    _track_activity = False

    def refuse(self, error: PublicError) -> None:
        """Answer with the sentence that was written for the user."""
        self.set_status(error.status)
        body = {"reason": error.reason, "message": error.message, "fields": error.fields}
        self.finish(json.dumps({"error": body, "message": error.message}))

    def answer(self, body: object, status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.finish(json.dumps(body))

    def json_object(self) -> dict[str, Any]:
        """The request's body, which must be a JSON object."""
        if len(self.request.body) > BODY_LIMIT:
            raise TooLarge("This request is larger than a megabyte; send files as files.")
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise InvalidOptions({"body": "The body of this request must be a JSON object."})
        return body


def answers(
    method: Callable[Concatenate[H, P], Awaitable[None]],
) -> Callable[Concatenate[H, P], Awaitable[None]]:
    """Turn a `PublicError` from a handler's method into its answer. Goes below `@authorized`."""

    @functools.wraps(method)
    async def inner(self: H, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await method(self, *args, **kwargs)
        except PublicError as error:
            self.refuse(error)

    return inner
