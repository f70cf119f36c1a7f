"""The OpenAPI document, made from the operations that are served."""

from collections.abc import Sequence
from typing import Any

import msgspec

from jupyterhub_bkai._version import __version__
from jupyterhub_bkai.api import devices, notices, queue, rules, sessions, site, switches, views
from jupyterhub_bkai.api.operations import Call, Operation

REF = "#/components/schemas/{name}"


async def document(call: Call) -> dict[str, Any]:
    """The document of this service."""
    return describe(OPERATIONS)


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the operations."""
    shapes = [shape for op in operations for shape in (op.answer, op.body) if shape is not None]
    _, schemas = msgspec.json.schema_components([*shapes, views.Error], ref_template=REF)
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jupyterhub-bkai",
            "version": __version__,
            "description": "Sessions with a slice of a GPU and an image version, and the queue they wait in.",
        },
        "servers": [{"url": "/services/bkai/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "token …"}
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    path = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path
    ] + [
        {
            "name": q.name,
            "in": "query",
            "required": False,
            "description": q.help,
            "schema": {"type": "string"},
        }
        for q in operation.query
    ]
    found: dict[str, Any] = {
        "operationId": operation.run.__module__.rsplit(".", 1)[-1] + "_" + operation.run.__name__,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {str(operation.status): _answer(operation), "default": _content(views.Error, "Refused")},
    }
    if operation.body is not None:
        found["requestBody"] = {"required": operation.method != "DELETE", **_content(operation.body)}
    return found


def _answer(operation: Operation) -> dict[str, Any]:
    if operation.status == 204:
        return {"description": "Done"}
    if operation.stream:
        return {
            "description": "Server-sent events",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    if operation.text:
        return {"description": "Text", "content": {operation.text: {"schema": {"type": "string"}}}}
    return _content(operation.answer, "Done")


def _content(shape: Any, description: str | None = None) -> dict[str, Any]:
    schema = {"$ref": REF.format(name=shape.__name__)} if shape is not None else {}
    found: dict[str, Any] = {"content": {"application/json": {"schema": schema}}}
    return {"description": description, **found} if description else found


OPERATIONS: tuple[Operation, ...] = (
    *site.OPERATIONS,
    *devices.OPERATIONS,
    *queue.OPERATIONS,
    *sessions.OPERATIONS,
    *switches.OPERATIONS,
    *rules.OPERATIONS,
    *notices.OPERATIONS,
    Operation("GET", "/openapi.json", "This document", document),
)
