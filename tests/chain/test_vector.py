"""A host of 2 fGPU and one submission of three sessions of 1 fGPU: two run, one waits and says why, then runs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.chain.site import ROOT, Site

pytestmark = pytest.mark.hub
ASK = {"version": "python/3.11", "fgpu": "1", "count": "3", "cpu": "0.1", "memory": "256m"}


def walk(site: Site, token: str) -> None:
    """From the submission to the third session's start, and back to nothing."""
    site.until(
        lambda: sorted(site.states(token).values()) == ["PENDING", "RUNNING", "RUNNING"],
        120,
        "2 RUNNING + 1 PENDING",
    )
    live = site.sessions(token)
    (waiting,) = [one for one in live if one["state"] == "PENDING"]
    assert waiting["position"] == 1
    assert waiting["why"] == "It needs 1 fGPU on one device; no fGPU is free."
    assert {one["fgpu"] for one in live} == {"1"}
    first = next(one for one in live if one["state"] == "RUNNING")
    assert site.call(token, "DELETE", f"/sessions/{first['id']}").status_code == 202
    site.until(lambda: site.states(token).get(waiting["server"]) == "RUNNING", 60, "the third runs")
    assert first["server"] not in site.states(token)
    for one in site.sessions(token):
        site.call(token, "DELETE", f"/sessions/{one['id']}")
    site.until(lambda: not site.sessions(token), 60, "all ended")
    nodes = site.call(token, "GET", "/devices").json()["nodes"]
    assert all(device["booked_mib"] == 0 for node in nodes for device in node["devices"])


def test_by_rest_of_the_service(site: Site) -> None:
    token = site.token("ada")
    answer = site.call(token, "POST", "/sessions", json={"options": {**ASK, "name": "train"}})
    assert answer.status_code == 201, answer.text
    assert [one["server"] for one in answer.json()["sessions"]] == ["train", "train-2", "train-3"]
    walk(site, token)


def test_by_rest_of_the_hub(site: Site) -> None:
    token = site.token("bob")
    answer = httpx.post(
        f"{site.url}/hub/api/users/bob/servers/train",
        headers={"Authorization": f"token {token}"},
        json={"display_name": "train", "user_options": ASK},
        trust_env=False,
        timeout=30,
    )
    assert answer.status_code in (201, 202), answer.text
    walk(site, token)


def test_by_command_line(site: Site, bkai: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    token = site.token("eve")
    flags = [f"--{key}={value}" for key, value in ASK.items()]
    asked = bkai(site, token, "session", "create", "--json", "--name=train", *flags)
    assert asked.returncode == 0, asked.stderr
    site.until(
        lambda: (
            sorted(states(bkai(site, token, "session", "ls", "--json"))) == ["PENDING", "RUNNING", "RUNNING"]
        ),
        120,
        "2 RUNNING + 1 PENDING",
    )
    waits = bkai(site, token, "session", "ls").stdout
    assert "It needs 1 fGPU on one device" in " ".join(waits.split())
    stopped = bkai(site, token, "session", "stop", "train")
    assert stopped.returncode == 0, stopped.stderr
    site.until(
        lambda: site.states(token) == {"train-2": "RUNNING", "train-3": "RUNNING"}, 90, "the third runs"
    )


def states(listing: subprocess.CompletedProcess[str]) -> list[str]:
    """The states of live sessions in `session ls --json`."""
    found = json.loads(listing.stdout)
    rows = found["sessions"] if isinstance(found, dict) else found
    return [one["state"] for one in rows if one["ended"] is None]


@pytest.fixture
def bkai(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line as a laptop runs it, in a home of its own."""

    def run(site: Site, token: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("bkai"), *words],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PYTHONPATH": str(ROOT),
                "BKAI_URL": site.url,
                "BKAI_TOKEN": token,
                "COLUMNS": "200",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
