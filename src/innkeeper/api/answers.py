"""The two ways in which a request is answered well: with what is, or with the operation that was accepted.

Values are written to JSON once, as they are made; FastAPI knows their schemas for the documentation alone.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

from innkeeper.api import schemas
from innkeeper.api.asked import granted
from innkeeper.api.shown import operation_out
from innkeeper.api.versions import known, tag_of
from innkeeper.model.plans import Refusal
from innkeeper.model.work import Operation

_JSON = "application/json"

SHOWN: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "Version of this answer", "schema": {"type": "string"}}}},
    304: {"description": "If-None-Match names this very version"},
}
ACCEPTED: dict[str, Any] = {
    "status_code": 202,
    "response_model": schemas.OperationOut,
    "responses": {
        202: {
            "description": "Accepted, and durable: an operation, to be polled, waited for and cancelled",
            "headers": {"Location": {"description": "Path of the operation", "schema": {"type": "string"}}},
        }
    },
}


def plainly(value: BaseModel) -> Response:
    return Response(value.model_dump_json(), media_type=_JSON)


def shown(request: Request, value: BaseModel, generation: int = 0) -> Response:
    """One object with its tag; 304 without it when the asker has this very version."""
    body = value.model_dump_json().encode()
    tag = tag_of(body, generation)
    headers = {"etag": tag, "cache-control": "no-cache"}
    if known(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=_JSON, headers=headers)


def accepted(answer: Operation | Refusal) -> Response:
    """202 with where to look."""
    operation = granted(answer)
    body = operation_out(operation).model_dump_json()
    return Response(body, 202, {"location": f"/v1/operations/{operation.id}"}, _JSON)
