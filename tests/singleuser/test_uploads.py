"""Uploads: raw, in pieces, taken up again where they broke off, and never outside the home folder."""

import hashlib
import os
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from jupyterhub_bkai.errors import PublicError
from jupyterhub_bkai.singleuser.confined import DEPTH, Confined, components
from tests.singleuser.servers import Server, wait_for
from tests.singleuser.standin import USER_TOKEN

TRAVERSALS = [
    "../outside",
    "a/../../outside",
    "..%2Foutside",
    "%2e%2e/outside",
    "%2Fetc/passwd",
    "/etc/passwd",
    "a//b",
    "./a",
    "a/.",
    "a/",
    "a%00b",
    "x" * 300,
    "/".join("a" * (DEPTH + 1)),
]


def put(http: httpx.Client, path: str, content: bytes, **query: str | int) -> httpx.Response:
    return http.put(f"bkai/upload/{path}", content=content, params=query)


def test_a_file_in_a_new_folder(http: httpx.Client, home: Path) -> None:
    answer = put(http, "work/code/train.py", b"print(1)\n", mode="0755")
    assert (answer.status_code, answer.json()) == (200, {"path": "work/code/train.py", "size": 9})
    file = home / "work/code/train.py"
    assert file.read_bytes() == b"print(1)\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o755


def test_an_empty_file_and_a_strange_name(http: httpx.Client, home: Path) -> None:
    assert put(http, "e/%C3%A9%20%3F%25%0A.txt", b"").status_code == 200
    assert (home / "e/é ?%\n.txt").read_bytes() == b""


def test_a_large_file_in_pieces(http: httpx.Client, home: Path) -> None:
    content = os.urandom(5_000_000)
    for offset in range(0, len(content), 1_500_000):
        assert http.get("bkai/upload/big.bin").status_code == (404 if offset == 0 else 200)
        answer = put(http, "big.bin", content[offset : offset + 1_500_000], offset=offset)
        assert answer.json()["size"] == http.get("bkai/upload/big.bin").json()["size"]
    assert hashlib.sha256((home / "big.bin").read_bytes()).digest() == hashlib.sha256(content).digest()


def test_a_hole_is_refused(http: httpx.Client, home: Path) -> None:
    put(http, "hole", b"12345")
    answer = put(http, "hole", b"x", offset=6)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "offset")
    assert "5 bytes" in answer.json()["message"]
    assert (home / "hole").read_bytes() == b"12345"


def test_a_piece_sent_twice_is_there_once(http: httpx.Client, home: Path) -> None:
    put(http, "twice", b"12345")
    put(http, "twice", b"678", offset=5)
    put(http, "twice", b"678", offset=5)
    assert (home / "twice").read_bytes() == b"12345678"


def test_beginning_anew_shortens(http: httpx.Client, home: Path) -> None:
    put(http, "anew", b"a long old content")
    put(http, "anew", b"new")
    assert (home / "anew").read_bytes() == b"new"


def test_a_broken_connection_leaves_what_arrived(server: Server, http: httpx.Client, home: Path) -> None:
    with half_sent(server, "broken.bin", b"x" * 70_000, of=200_000):
        wait_for(lambda: (home / "broken.bin").exists() and size(home / "broken.bin") == 70_000)
    assert http.get("bkai/upload/broken.bin").json()["size"] == 70_000
    put(http, "broken.bin", b"y" * 130_000, offset=70_000)
    assert (home / "broken.bin").read_bytes() == b"x" * 70_000 + b"y" * 130_000


def test_a_stale_connection_cannot_write_any_more(server: Server, http: httpx.Client, home: Path) -> None:
    with half_sent(server, "stale.bin", b"x" * 100, of=200) as stale:
        wait_for(lambda: (home / "stale.bin").exists() and size(home / "stale.bin") == 100)
        put(http, "stale.bin", b"y" * 10)
        stale.sendall(b"x" * 100)
        assert b" 409 " in stale.recv(4096)
    assert (home / "stale.bin").read_bytes() == b"y" * 10


@pytest.mark.parametrize("path", TRAVERSALS)
def test_paths_that_lead_elsewhere(server: Server, http: httpx.Client, home: Path, path: str) -> None:
    before = tree(home.parent)
    # http clients tidy paths: write this one as it is
    status = raw(server, f"PUT {BASE(server)}bkai/upload/{path} HTTP/1.1", b"evil")
    assert status in (400, 404)
    assert tree(home.parent) == before


@pytest.mark.parametrize("path", ["link/file", "file-link", "folder/link/x", "dangling"])
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_links_are_not_followed(
    http: httpx.Client, home: Path, tmp_path: Path, path: str, method: str
) -> None:
    (tmp_path / "victim").write_text("precious")
    (home / "folder").mkdir(exist_ok=True)
    for link, target in {
        "link": tmp_path,
        "file-link": tmp_path / "victim",
        "folder/link": tmp_path,
        "dangling": tmp_path / "new",
    }.items():
        (home / link).unlink(missing_ok=True)
        (home / link).symlink_to(target)
    answer = http.request(method, f"bkai/upload/{path}", content=b"evil" if method == "PUT" else None)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "not-a-folder")
    assert tree(tmp_path) == {"victim"}
    assert (tmp_path / "victim").read_text() == "precious"


def test_what_is_no_file(http: httpx.Client, home: Path) -> None:
    os.mkfifo(home / "pipe")
    (home / "afolder").mkdir()
    put(http, "afile", b"1")
    assert put(http, "pipe", b"1").status_code == 409
    assert put(http, "afolder", b"1").json()["error"]["reason"] == "not-a-file"
    assert put(http, "afile/below", b"1").json()["error"]["reason"] == "not-a-folder"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"offset": "-1"}, "offset"),
        ({"offset": "1.5"}, "offset"),
        ({"offset": "NaN"}, "offset"),
        ({"offset": "9" * 19}, "offset"),
        ({"offset": "9" * 400}, "offset"),
        ({"offset": "٣"}, "offset"),
        ({"mode": "4755"}, "mode"),
        ({"mode": "999"}, "mode"),
        ({"mode": "rwx"}, "mode"),
        ({"mode": ""}, "mode"),
    ],
)
def test_wrong_numbers(http: httpx.Client, home: Path, query: dict[str, str], field: str) -> None:
    answer = put(http, "numbers", b"1", **query)
    assert answer.status_code == 400
    assert field in answer.json()["error"]["fields"]
    assert not (home / "numbers").exists()


def test_a_full_disk_is_a_sentence(http: httpx.Client, home: Path) -> None:
    # a device that is always full, where a file would be, is no regular file; so limit what may be written
    answer = put(http, "sparse", b"1", offset=0)
    assert answer.status_code == 200
    with pytest.raises(PublicError, match="no space left"), Filled(home):
        pass


class Filled:
    """`/dev/full` behind an open file: every write fails as on a full disk."""

    def __init__(self, home: Path) -> None:
        from jupyterhub_bkai.singleuser.uploads import Receiving

        self.receiving = Receiving(Confined(home), "full", 0, 0o600)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, self.receiving._file)
        os.close(full)

    def __enter__(self) -> None:
        self.receiving.write(b"x")

    def __exit__(self, *raised: object) -> None:
        self.receiving.close()


@pytest.mark.parametrize("token", ["", "wrong"])
def test_strangers_write_nothing(server: Server, http: httpx.Client, home: Path, token: str) -> None:
    with server.client(token) as stranger:
        assert put(stranger, "stranger", b"evil").status_code == 403
        assert stranger.get("bkai/upload/anew").status_code == 403
    assert not (home / "stranger").exists()


def test_a_cookie_alone_writes_nothing(server: Server, http: httpx.Client, home: Path) -> None:
    """Another site's page can make a browser send the cookie, but not the token against forgery."""
    head = (
        f"PUT {BASE(server)}bkai/upload/forged HTTP/1.1\r\nHost: x\r\nSec-Fetch-Mode: cors\r\n"
        f"Cookie: jupyterhub-user-alice-trial={USER_TOKEN}\r\nContent-Length: 4\r\n\r\nevil"
    )
    with connection(server) as wire:
        wire.sendall(head.encode())
        assert b" 403 " in wire.recv(4096)
    assert not (home / "forged").exists()


def test_components() -> None:
    assert components("") == ()
    assert components("a/b c/…") == ("a", "b c", "…")
    with pytest.raises(PublicError):
        components("a/../b")


def size(path: Path) -> int:
    return path.stat().st_size


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "jupyter" not in path.parts}


def BASE(server: Server) -> str:
    return urlsplit(server.url).path


def connection(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def raw(server: Server, request_line: str, body: bytes) -> int:
    head = f"{request_line}\r\nHost: x\r\nAuthorization: token {USER_TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    with connection(server) as wire:
        wire.sendall(head.encode() + body)
        return int(wire.recv(4096).split()[1])


class half_sent:
    """A PUT of which only the beginning is sent, until the end of the block."""

    def __init__(self, server: Server, path: str, body: bytes, *, of: int) -> None:
        self.wire = connection(server)
        self.head = (
            f"PUT {BASE(server)}bkai/upload/{path} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: token {USER_TOKEN}\r\nContent-Length: {of}\r\n\r\n"
        )
        self.body = body

    def __enter__(self) -> socket.socket:
        self.wire.sendall(self.head.encode() + self.body)
        return self.wire

    def __exit__(self, *raised: object) -> None:
        self.wire.close()
