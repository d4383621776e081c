"""The schema served at /openapi.json, with what FastAPI cannot know: problems, who may ask, and the streams."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from innkeeper.api.problems import MEDIA_TYPE, ProblemOut
from innkeeper.api.routes.streams import ExecIn

_DESCRIPTION = """
Over the UNIX socket the kernel says who asks: root and members of the group `innkeeper` are administrators. Over TCP
a bearer token is needed.

Every change answers `202` with an operation and its `Location`: poll it, wait for it (`GET …/wait`), cancel it
(`POST …/cancel`). With an `Idempotency-Key` a request may be sent again when its answer was lost. `GET /v1/events`
tells of every change, and goes on from any revision. Errors are problem details (RFC 9457).
"""
_STREAMS = {
    "exec": (
        "Run a command: WebSocket",
        "First the client sends an `ExecIn` as text. Then it sends input in binary messages, and words as text: "
        '`{"eof":true}`, `{"resize":[rows,cols]}`, `{"signal":15}`. The server sends output in binary messages, whose '
        "first byte is 1 for standard output and 2 for standard error, and last one text message: "
        '`{"exit":code}`, `{"signal":number}` or `{"error":words,"hint":words}`.',
    ),
    "console": (
        "The serial console: WebSocket",
        "Binary messages both ways: first what was said lately, then live. A text message is an error.",
    ),
}


def documented(app: FastAPI) -> None:
    """Gives the application its schema, made when it is first asked for."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]  # FastAPI's documented way


def _schema(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=_DESCRIPTION, routes=app.routes
    )
    components = made["components"]
    for name in ("HTTPValidationError", "ValidationError"):  # ours are problems
        components["schemas"].pop(name, None)
    for model in (ProblemOut, ExecIn):
        _add(components["schemas"], model)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    # Over the UNIX socket nothing is sent: the empty requirement.
    made["security"] = [{"token": []}, {}]
    for name, (summary, words) in _STREAMS.items():
        made["paths"][f"/v1/instances/{{word}}/{name}"] = {"get": _stream(name, summary, words)}
    for operation in (operation for path in made["paths"].values() for operation in path.values()):
        operation["responses"].pop("422", None)
        problem = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
        operation["responses"]["default"] = {"description": "A problem", "content": {MEDIA_TYPE: problem}}
    return made


def _add(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    made = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(made.pop("$defs", {}))
    schemas[model.__name__] = made


def _stream(name: str, summary: str, words: str) -> dict[str, Any]:
    string = {"type": "string"}
    return {
        "tags": ["instances"],
        "summary": summary,
        "description": words,
        "operationId": f"{name}_stream",
        "parameters": [
            {"name": "word", "in": "path", "required": True, "schema": string},
            {"name": "project", "in": "query", "required": False, "schema": {**string, "default": "default"}},
        ],
        "responses": {"101": {"description": "The stream begins"}},
    }
