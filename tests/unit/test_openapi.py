"""The OpenAPI document describes exactly what is served."""

import re

from jupyterhub_bkai import app
from jupyterhub_bkai.api import openapi
from jupyterhub_bkai.api.operations import Operation, OperationHandler


def served() -> set[tuple[str, str]]:
    """Method and path of every route the application really registers."""
    found = set()
    for pattern, handler, arguments in app.routes(openapi.OPERATIONS):
        assert handler is OperationHandler
        path = re.sub(r"\(\?P<(\w+)>\[\^/\]\+\)", r"{\1}", pattern.removeprefix(f"{app.PREFIX}api/v1"))
        found |= {(method, path.replace("\\", "")) for method in arguments["operations"]}
    return found


def test_every_registered_route_is_in_the_document_and_nothing_else() -> None:
    document = openapi.describe(openapi.OPERATIONS)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == served()
    assert len(described) > 15


def test_every_operation_says_what_it_answers() -> None:
    document = openapi.describe(openapi.OPERATIONS)
    ids = [
        operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
    ]
    assert len(ids) == len(set(ids))
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["responses"]["default"]["content"]["application/json"]["schema"][
                "$ref"
            ].endswith("/Error")


def test_references_lead_somewhere() -> None:
    document = openapi.describe(openapi.OPERATIONS)
    named = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert named <= set(document["components"]["schemas"])


def test_a_route_that_is_not_described_would_be_noticed() -> None:
    async def hidden(call: object) -> None: ...

    more = (*openapi.OPERATIONS, Operation("GET", "/hidden", "", hidden))
    document = openapi.describe(openapi.OPERATIONS)
    patterns = [pattern for pattern, _, _ in app.routes(more)]
    assert len(patterns) == len(document["paths"]) + 1
