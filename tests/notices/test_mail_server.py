"""The mail server's login and encryption: a real server that demands both; a wrong one gets no mail and no password."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from jupyterhub_bkai.notices.mail import Server
from jupyterhub_bkai.notices.webhook import NotTaken

LOGIN = "bkai", "a-password-for-tests"


class Demanding:
    """A mail server of a test: keeps what it takes, and refuses recipients called "nobody"."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], bytes]] = []
        self.passwords: list[bytes] = []

    def auth(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        """Who says the password."""
        assert isinstance(data, LoginPassword)
        self.passwords.append(data.password)
        return AuthResult(success=(data.login.decode(), data.password.decode()) == LOGIN)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Whom it takes mails for."""
        if address.startswith("nobody"):
            return "550 there is no\x07 such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Takes it."""
        assert isinstance(envelope.content, bytes)
        self.taken.append((envelope.rcpt_tos, envelope.content))
        return "250 OK"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, with its key, that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", file, "-out", f"{file}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


@pytest.fixture
def demanding(certificate: Path, free_port: Callable[[], int]) -> Iterator[tuple[Demanding, int]]:
    """Demands STARTTLS and then a login."""
    one, port, context = Demanding(), free_port(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    controller = Controller(
        one, hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True,
        authenticator=one.auth, auth_required=True,
    )  # fmt: skip
    controller.start()
    yield one, port
    controller.stop()


def letter() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "bkai@example.org", "ada@example.org", "Hello"
    message.set_content("It ends soon.\n")
    return message


def server(port: int, trusted: Path | None, security: str = "starttls", password: str = LOGIN[1]) -> Server:
    context = ssl.create_default_context(cafile=str(trusted) if trusted is not None else None)
    return Server("localhost", port, security, (LOGIN[0], lambda: password), context=context)


async def test_encrypted_and_logged_in(demanding: tuple[Demanding, int], certificate: Path) -> None:
    one, port = demanding
    ours = server(port, certificate)
    await ours.send(letter(), "ada@example.org")
    ours.close()
    [(recipients, content)] = one.taken
    assert recipients == ["ada@example.org"]
    assert b"It ends soon." in content


@pytest.mark.parametrize(
    ("to", "password", "sentence", "final"),
    [
        ("nobody@example.org", LOGIN[1], "it refuses the recipient (550 there is no  such person)", True),
        ("ada@example.org", "wrong", "it does not accept the login", False),
    ],
)
async def test_what_it_refuses(
    demanding: tuple[Demanding, int], certificate: Path, to: str, password: str, sentence: str, final: bool
) -> None:
    one, port = demanding
    ours = server(port, certificate, password=password)
    with pytest.raises(NotTaken) as refused:
        await ours.send(letter(), to)
    assert (str(refused.value), refused.value.final) == (sentence, final)
    assert one.taken == []
    ours.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_no_password_without_encryption_to_the_right_server(
    demanding: tuple[Demanding, int], certificate: Path, free_port: Callable[[], int], trusted: bool
) -> None:
    """A certificate of nobody's; a server that offers no encryption."""
    one, port = demanding
    if not trusted:
        ours = server(port, None)
        with pytest.raises(NotTaken, match="cannot be reached"):
            await ours.send(letter(), "ada@example.org")
    else:
        other = free_port()
        plain = Controller(one, hostname="127.0.0.1", port=other)
        plain.start()
        try:
            ours = server(other, certificate)
            with pytest.raises(NotTaken):
                await ours.send(letter(), "ada@example.org")
        finally:
            await asyncio.to_thread(plain.stop)
    ours.close()
    assert (one.taken, one.passwords) == ([], [])
