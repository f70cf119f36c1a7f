"""POST → ready: sessions of ours against the stock spawner, turn about, the same image environment, one hub each."""

import socket
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peer import Peer, started
from tests.chain.site import ADMIN_TOKEN, Site, remove

ROUNDS = 7
ASK = {"user_options": {"version": "python/3.11", "cpu": "0.1", "memory": "256m"}}


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


def run() -> dict[str, Any]:
    shared = Path(tempfile.mkdtemp(prefix="bkai-bench-"))
    shared.chmod(0o755)
    (folder := Path(tempfile.mkdtemp(prefix="bkai-bench-site-"))).chmod(0o711)
    site = Site(folder / "d", port(), shared).start()
    ours, stock = [], []
    try:
        started_ours(site)  # makes the image version
        python = next((shared / "envs").glob("python-*/bin/python"))
        peer = Peer(str(python), (port(), port(), port()))
        try:
            started(peer.api, peer.token, "ada", "warm", {})
            for number in range(ROUNDS):
                stock.append(started(peer.api, peer.token, "ada", f"s{number}", {}))
                ours.append(started_ours(site))
        finally:
            peer.close()
    finally:
        remove(site)
    ratio = statistics.median(ours) / statistics.median(stock)
    return {
        "ours_s": [round(value, 3) for value in ours],
        "stock_s": [round(value, 3) for value in stock],
        "ours_median_s": round(statistics.median(ours), 3),
        "stock_median_s": round(statistics.median(stock), 3),
        "ratio": round(ratio, 3),
    }


def started_ours(site: Site) -> float:
    return started(f"{site.url}/hub/api", ADMIN_TOKEN, "ada", "one", ASK)
