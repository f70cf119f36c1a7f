"""Posts to the administrator's address: bounded in time, signed, nowhere else than there.

Redirects are not followed and no proxy of the environment is used. What is told of a failure names neither the address,
which may hold a secret of its own, nor anything of the answer but its status.
"""

import asyncio
import hashlib
import hmac

import httpx

LIMIT_S = 10.0


class NotTaken(Exception):
    """The other side did not take it; the message is for administrators. `final`: trying again cannot help."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def signature(key: bytes, body: bytes) -> str:
    """What the header `X-Bkai-Signature` says: HMAC-SHA256 of the body."""
    return f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"


async def post(url: str, id: str, body: bytes, key: bytes | None, limit_s: float = LIMIT_S) -> None:
    """One try. Raises `NotTaken`."""
    headers = {"Content-Type": "application/json", "User-Agent": "bkai", "X-Bkai-Notice": id}
    if key is not None:
        headers["X-Bkai-Signature"] = signature(key, body)
    try:
        async with (
            asyncio.timeout(limit_s),
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=limit_s) as http,
            http.stream("POST", url, content=body, headers=headers) as answer,
        ):
            status = answer.status_code  # the rest of the answer is not read
    except TimeoutError:
        raise NotTaken(f"it did not answer within {limit_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotTaken(f"it cannot be reached ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise NotTaken(f"it answered {status}")
