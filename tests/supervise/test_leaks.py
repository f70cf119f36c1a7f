"""No secret is in a log, in a command line, in a file that others can read, or in a session's environment."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.supervise.running import HERE, PARTS, Running, until

pytestmark = pytest.mark.hub


def leaks(running: Running, secrets: Mapping[str, str], sessions: list[int]) -> set[str]:
    """Where a secret is found that must not be there, as "KIND: secret"."""
    found = set()
    data = running.site.data
    texts = [("log", path) for path in (data / "log").rglob("*") if path.is_file()]
    texts.append(("terminal", running.output))
    texts += [("command line", path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    texts += [("session", Path(f"/proc/{pid}/environ")) for pid in sessions]
    texts += [
        ("open file", path)
        for path in data.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o077
    ]
    for kind, path in texts:
        try:
            content = path.read_bytes()
        except OSError:  # a process that has just ended
            continue
        found |= {f"{kind}: {name}" for name, value in secrets.items() if value.encode() in content}
    return found


def lived(running: Running) -> set[str]:
    """The leaks of a site that was started, used, hurt and called in wrong ways."""
    running.up()
    sessions = [running.start_session("ada")]
    secrets = running.secrets()
    assert set(secrets) == {"proxy_token", "service_token", "supervisor_token", "cookie_secret"}
    for part in PARTS:
        killed = running.site.kill(part)
        until(lambda: running.site.pid(part) != killed, 90, f"another {part}")  # noqa: B023
    until(lambda: running.session_pid("ada"), 90, "the session answers")
    until(lambda: running.answers("/services/bkai/api/v1/info", 401), 90, "the service answers")
    running.answers(f"/services/bkai/api/v1/info?token={'x' * 40}")
    return leaks(running, secrets, sessions)


def test_nothing_leaks(running: Running) -> None:
    assert lived(running) == set()


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("argument", "command line: proxy_token"),
        ("file", "open file: supervisor_token"),
        ("log", "log: cookie_secret"),
        ("session", "session: service_token"),
    ],
)
def test_the_check_sees_a_careless_build(running: Running, way: str, expected: str) -> None:
    running.command = (sys.executable, str(HERE / "weakened_up.py"), way)
    assert expected in lived(running)
