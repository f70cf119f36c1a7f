"""Every operation of the OpenAPI document with made-up input, as a user, another one, an administrator and nobody.

No answer is an error of ours, nobody gets what is not theirs, and every refusal has the form that the document
promises. `BKAI_FUZZ` is how many inputs each operation gets in each role.
"""

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from jupyterhub_bkai.api.openapi import OPERATIONS, describe
from jupyterhub_bkai.api.operations import Operation
from tests.chain.site import Site

pytestmark = [pytest.mark.hub, pytest.mark.timeout(1200)]
EXAMPLES = int(os.environ.get("BKAI_FUZZ", "4"))
ROLES = ("user", "other", "administrator", "nobody")
SCHEMA = schemathesis.openapi.from_dict(describe(OPERATIONS))
#: what nobody but an administrator may call, whatever they send
FOR_ADMINISTRATORS = ("/rules", "/nodes/", "/devices/", "/groups/", "/metrics", "/notices")
Answer = tuple[int, Any]


@pytest.fixture(scope="module")
def tokens(_one_site: Site) -> Iterator[dict[str, str]]:
    """Each role's; nobody has none. Nobody may have more than a few sessions, which are real."""
    found = {
        "user": _one_site.token("ada"),
        "other": _one_site.token("bob"),
        "administrator": _one_site.token("admin"),
    }
    few = {"rules": {"users": {"*": {"limits": {"total": {"sessions": 3}}}}}}
    assert _one_site.call(found["administrator"], "PUT", "/rules", json=few).status_code == 200
    yield found
    rules = _one_site.call(found["administrator"], "GET", "/rules").json()["rules"]
    gone = {kind: dict.fromkeys(name for name in rules[kind] if name != "default") for kind in rules}
    assert _one_site.call(found["administrator"], "PUT", "/rules", json={"rules": gone}).status_code == 200


def hers(site: Site, token: str) -> str:
    """Ada's session, which waits until tomorrow."""
    live = site.sessions(token)
    if not live:
        ask = {"version": "python/3.11", "cpu": "0.1", "memory": "256m", "not_before": "+1d"}
        answer = site.call(token, "POST", "/sessions", json={"options": ask})
        assert answer.status_code == 201, answer.text
        live = answer.json()["sessions"]
    return str(live[0]["id"])


def send(site: Site, case: Any, token: str | None) -> Answer:
    """The status, and the body where it is JSON; of a stream only how it begins."""
    base = f"{site.url}/services/bkai/api/v1"
    request = case.as_transport_kwargs(base_url=base)
    headers = {k: v for k, v in dict(request.get("headers") or {}).items() if k.lower() != "authorization"}
    if token is not None:
        headers["Authorization"] = f"token {token}"
    body = {"json": request["json"]} if "json" in request else {"content": _bytes(request.get("data"))}
    sent = {"params": request.get("params"), "headers": headers, "trust_env": False, "timeout": 20, **body}
    with httpx.stream(request["method"], request["url"], **sent) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer.status_code, None
        answer.read()
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status_code, answer.json() if is_json and answer.content else answer.text


def _bytes(data: Any) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def inputs(operation: Operation) -> st.SearchStrategy[Any]:
    """What fits the document, and what does not."""
    declared = SCHEMA[operation.path][operation.method]
    fits = declared.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if not operation.body and not operation.query:
        return fits
    return st.one_of(fits, declared.as_strategy(generation_mode=GenerationMode.NEGATIVE))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: f"{op.method} {op.path}")
def test_made_up_input(operation: Operation, role: str, site: Site, tokens: dict[str, str]) -> None:
    mine = hers(site, tokens["user"]) if "{id}" in operation.path else ""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=inputs(operation), known=st.booleans())
    def play(case: Any, known: bool) -> None:
        if mine and known:
            case.path_parameters["id"] = mine
        status, body = send(site, case, tokens.get(role))
        what = f"{role}: {case.method} {case.formatted_path} {case.query} {case.body!r:.300} → {status} {body!r:.300}"
        assert status < 500, what
        if status >= 400 and isinstance(body, dict):
            assert set(body["error"]) == {"reason", "message", "fields"}, what
            assert body["error"]["message"].strip(), what
        if role == "nobody" and not operation.open:
            assert status in (401, 403), what
        if (
            role in ("user", "other")
            and operation.path.startswith(FOR_ADMINISTRATORS)
            and operation.method != "GET"
        ):
            assert status >= 400, what
        if role == "other" and mine and known:
            assert status >= 400, what

    play()
    if mine and role == "other":
        assert [one["id"] for one in site.sessions(tokens["user"])][:1] == [mine], "somebody else ended it"
