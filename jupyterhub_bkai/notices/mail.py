"""Hands a mail to the administrator's mail server: bounded in time, in a thread of its own.

What is told of a failure names no password; the server's own words are cut and cleaned.
"""

import asyncio
import contextlib
import smtplib
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage

from jupyterhub_bkai.notices.webhook import NotTaken

LIMIT_S = 30.0
#: for each single answer
ANSWER_S = 10.0


class Server:
    """One mail server. `security` is "starttls", "tls" or "none"; `login` is a name and a way to its password."""

    def __init__(
        self,
        host: str,
        port: int,
        security: str,
        login: tuple[str, Callable[[], str]] | None = None,
        limit_s: float = LIMIT_S,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._where = host, port
        self._security = security
        self._login = login
        self._limit_s = limit_s
        self._context = context
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mail")
        self._open: smtplib.SMTP | None = None

    async def send(self, message: EmailMessage, to: str) -> None:
        """One try. Raises `NotTaken`, final where the server says that it will never take it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limit_s):
                await loop.run_in_executor(self._thread, self._send, message, to)
        except TimeoutError:
            self._break()
            raise NotTaken(f"it did not take the mail within {self._limit_s:g} s") from None

    def close(self) -> None:
        """Breaks off what is being sent."""
        self._break()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _break(self) -> None:
        """A server that says a letter now and then would hold the thread for ever."""
        connection = self._open
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _send(self, message: EmailMessage, to: str) -> None:
        try:
            with contextlib.closing(self._connection()) as connection:
                self._open = connection
                self._greet(connection)
                connection.send_message(message, message["From"], [to])
                connection.quit()
        except smtplib.SMTPRecipientsRefused as error:
            code, text = error.recipients[to]
            raise NotTaken(f"it refuses the recipient ({code} {_said(text)})", final=code >= 500) from None
        except smtplib.SMTPResponseException as error:
            raise NotTaken(f"it answered {error.smtp_code} {_said(error.smtp_error)}") from None
        except (smtplib.SMTPException, OSError, ssl.SSLError) as error:
            raise NotTaken(f"it cannot be reached ({type(error).__name__})") from None
        finally:
            self._open = None

    def _connection(self) -> smtplib.SMTP:
        self._context = self._context or ssl.create_default_context()
        if self._security == "tls":
            return smtplib.SMTP_SSL(timeout=ANSWER_S, context=self._context)
        return smtplib.SMTP(timeout=ANSWER_S)

    def _greet(self, connection: smtplib.SMTP) -> None:
        """Connects, and says who we are, where that is encrypted or the administrator wants it open."""
        host, port = self._where
        # Set by the constructor when it connects itself: the name that its certificate must have.
        connection._host = host  # type: ignore[attr-defined]
        code, text = connection.connect(host, port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        if self._security == "starttls":
            connection.starttls(context=self._context)
        if self._login is not None:
            name, password = self._login
            try:
                connection.login(name, password())
            except (smtplib.SMTPAuthenticationError, smtplib.SMTPServerDisconnected):
                raise NotTaken("it does not accept the login") from None


def _said(text: bytes | str) -> str:
    """A server's words, as a line of a log may hold them."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return "".join(letter if letter.isprintable() else " " for letter in plain)[:200]
