"""Why one of 10,000 waits, asked over REST: 2,000 machines of 8 devices, each discipline; offers told of separately.

Before each question something is granted and given back, so that nothing asked before is still true.
"""

import asyncio
import json
import statistics
import time
from typing import Any

from benchmarks.bigsite import PEOPLE, Client, bigsite
from benchmarks.grants import WAITING, one
from jupyterhub_bkai.leasing.queue import Discipline

ASKED = 40
SESSIONS = "/services/bkai/api/v1/sessions"


def run() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for discipline in Discipline:
        figures = asyncio.run(_ask(discipline))
        for name, times in figures.items():
            times.sort()
            found[f"{discipline}_{name}_p50_ms"] = round(statistics.median(times), 1)
            found[f"{discipline}_{name}_max_ms"] = round(times[-1], 1)
    return found


async def _ask(discipline: str) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {"why": [], "again": [], "offers": []}
    async with bigsite(WAITING, discipline) as site:
        client = await Client.tcp(site.port)
        ids: dict[str, list[str]] = {}
        for number in range(ASKED):
            user = f"waiter{number * 7 % PEOPLE}"
            if user not in ids:
                _, answer = await client.call("GET", SESSIONS, user)
                ids[user] = [session["id"] for session in json.loads(answer)["sessions"]]
            id = ids[user][number * 13 % len(ids[user])]
            await one(client, f"client{number}")
            await asyncio.sleep(0.05)
            for name, path in (("why", id), ("again", id), ("offers", f"{id}/offers")):
                begun = time.perf_counter()
                status, answer = await client.call("GET", f"{SESSIONS}/{path}", user)
                figures[name].append(1000 * (time.perf_counter() - begun))
                if status != 200 or (name == "why" and not json.loads(answer)["why"]):
                    raise RuntimeError(f"no reason given: {status} {answer[:200]!r}")
    return figures
