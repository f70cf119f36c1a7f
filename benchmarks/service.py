"""What the service itself costs: memory, and processor time while nothing happens, without and with sessions."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.start import port
from tests.chain.site import Site, remove

QUIET_S = 40.0


def run() -> dict[str, Any]:
    shared = Path(tempfile.mkdtemp(prefix="bkai-bench-"))
    shared.chmod(0o755)
    (folder := Path(tempfile.mkdtemp(prefix="bkai-bench-site-"))).chmod(0o711)
    site = Site(folder / "d", port(), shared, devices="fake:two-80gb").start()
    try:
        token = site.token("ada")
        asked = {
            "version": "python/3.11",
            "cpu": "0.1",
            "memory": "256m",
            "count": "3",
            "fgpu": "1",
            "name": "one",
        }
        found = site.call(token, "POST", "/sessions", json={"options": asked}).json()["sessions"]
        for one in found:
            site.running(token, one["id"])
        time.sleep(10)
        busy = idle(site.pid("service"))
        with_sessions = memory_mb(site.pid("service"))
        site.clear()
        time.sleep(10)
        quiet = idle(site.pid("service"))
        return {
            "rss_mb": memory_mb(site.pid("service")),
            "rss_mb_with_3_sessions": with_sessions,
            "idle_cpu_percent": quiet,
            "idle_cpu_percent_with_3_sessions": busy,
            "over_s": QUIET_S,
        }
    finally:
        remove(site)


def memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError("the kernel does not tell")


def ticks(pid: int) -> int:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def idle(pid: int) -> float:
    """Per cent of one core over the quiet time."""
    before = ticks(pid)
    time.sleep(QUIET_S)
    return round((ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / QUIET_S * 100, 2)
