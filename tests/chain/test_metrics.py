"""Metrics of a whole site: who may read them, that they are true, and that the dashboard asks for what there is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.chain.site import Site

pytestmark = [pytest.mark.hub, pytest.mark.timeout(300)]
DASHBOARD = Path(__file__).resolve().parents[2] / "etc" / "grafana" / "bkai.json"


def scrape(site: Site, token: str | None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{site.url}/services/bkai/metrics", headers=headers, trust_env=False, timeout=30)


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Values by name, each with its labels."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(site: Site, name: str, **labels: str) -> float:
    """One value as it is now."""
    rows = samples(scrape(site, site.token("admin")).text).get(name, [])
    return sum(value for have, value in rows if labels.items() <= have.items())


def ask(site: Site, user: str, name: str, fgpu: str) -> httpx.Response:
    options = {"version": "python/3.11", "cpu": "0.5", "memory": "256m", "name": name, "fgpu": fgpu}
    return site.call(site.token(user), "POST", "/sessions", json={"options": options})


def test_administrators_and_tokens_for_metrics_read_them_and_nobody_else(site: Site) -> None:
    assert scrape(site, site.token("admin")).status_code == 200
    narrow = site.token("admin", scopes=["read:metrics"])
    assert scrape(site, narrow).status_code == 200
    # It reads metrics and nothing else.
    assert site.call(narrow, "GET", "/sessions").status_code == 403
    answer = scrape(site, site.token("ada"))
    assert answer.status_code == 403
    assert "read:metrics" in answer.json()["error"]["message"]
    assert scrape(site, None).status_code == 401
    assert scrape(site, "nobody").status_code in (401, 403)
    blind = site.token("admin", scopes=["access:services!service=bkai", "read:users:name!user"])
    assert scrape(site, blind).status_code == 403


def test_they_say_what_is_so_and_name_nobody(site: Site) -> None:
    admin = site.token("admin")
    before = {
        name: value(site, name) for name in ("bkai_grants_total", "bkai_refusals_total", "bkai_ends_total")
    }
    runs = ask(site, "ada", "metrics-runs", "1.5").json()["sessions"][0]
    [device] = runs["slices"]
    waits = ask(site, "ada", "metrics-waits", "1").json()["sessions"][0]
    again = site.call(site.token("ada"), "PUT", f"/sessions/{waits['id']}/priority", json={"priority": 1})
    assert again.status_code == 403
    assert value(site, "bkai_grants_total") == before["bkai_grants_total"] + 1
    assert value(site, "bkai_wait_seconds_count", group="default") >= 1
    assert value(site, "bkai_waiting", group="default") == 1
    assert value(site, "bkai_oldest_wait_seconds", group="default") > 0
    assert value(site, "bkai_device_share_allocated", device=device["device"]) == 0.75
    assert value(site, "bkai_device_memory_allocated_bytes") == device["memory_mib"] * 2**20
    assert value(site, "bkai_device_sms_allocated") == device["sm_milli"] / 1000
    assert value(site, "bkai_group_devices_free", slot="cuda") == 0.25
    assert value(site, "bkai_node_cpu_allocated_cores") == 0.5
    # Of the free quarter those who ask for half or three quarters of a device can use nothing.
    assert value(site, "bkai_fragmentation_ratio", group="default") == 1.0
    site.until(lambda: value(site, "bkai_idle_device_seconds_total") > 0, 30, "what stands free is counted")
    site.call(admin, "POST", f"/devices/{device['device']}/drain", json={"why": "metrics"})
    assert (value(site, "bkai_device_drained"), value(site, "bkai_device_healthy")) == (1, 1)
    assert value(site, "bkai_group_devices", slot="cuda") == 0
    site.call(admin, "DELETE", f"/devices/{device['device']}/drain")
    text = scrape(site, admin).text
    assert "ada" not in text
    assert "metrics-" not in text
    site.call(admin, "DELETE", f"/sessions/{waits['id']}")
    assert value(site, "bkai_ends_total", cause="cancelled") >= 1


def test_refusals_are_counted_by_reason(site: Site) -> None:
    before = value(site, "bkai_refusals_total", reason="conflict")
    first = ask(site, "ada", "metrics-twice", "1")
    assert first.status_code == 201
    options = {"version": "python/3.11", "cpu": "0.5", "memory": "256m", "fgpu": "1"}
    answer = site.hub("POST", "/users/ada/servers/metrics-twice", json=options)
    assert answer.status_code < 500
    assert ask(site, "ada", "metrics-twice", "1").status_code == 409
    assert value(site, "bkai_refusals_total", reason="conflict") == before + 1


def queries(part: Any) -> Iterator[str]:
    """Everything that the dashboard asks Prometheus."""
    for target in part.get("targets", []):
        yield target["expr"]
    for inner in part.get("panels", []):
        yield from queries(inner)
    for variable in part.get("templating", {}).get("list", []):
        if variable["type"] == "query":
            yield variable["definition"]


def test_the_dashboard_asks_for_what_the_service_exports(site: Site) -> None:
    ask(site, "ada", "metrics-a", "1.5")
    ask(site, "ada", "metrics-b", "1")
    ask(site, "ada", "metrics-b", "1")
    exported = samples(scrape(site, site.token("admin")).text)
    labels = {name: {label for have, _ in rows for label in have} for name, rows in exported.items()}
    asked = list(queries(json.loads(DASHBOARD.read_text())))
    assert len(asked) > 20
    for query in asked:
        names = set(re.findall(r"\bbkai_\w+", query))
        assert names, query
        # A counter that nothing has moved yet has no series; its name stands in its help.
        assert names <= exported.keys(), query
        wanted = set(re.findall(r"(\w+)=~", query))
        for clause in re.findall(r"(?:by|on|group_left) \(([^)]*)\)", query):
            wanted |= {label.strip() for label in clause.split(",")}
        known = {label for name in names for label in labels[name]}
        assert wanted <= known, query
