"""Fixtures for notices: receivers, and a service's broker and outbox over a database that outlives them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.notices.receiving import Receiver, listens, until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


@pytest.fixture
def post_office(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[tuple[int, Path]]:
    """A mail server as a process of its own: its port, and the Maildir into which all mails go."""
    port, folder = free_port(), tmp_path / "mails"
    server = [sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*server, "-c", "aiosmtpd.handlers.Mailbox", str(folder)],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    until(lambda: listens(port))
    yield port, folder
    process.terminate()
    process.wait(10)
