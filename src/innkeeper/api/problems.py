"""Refusals as HTTP answers: RFC 9457 problem details, with the hint for whoever reads them at night."""

from __future__ import annotations

from http import HTTPMethod, HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Match

from innkeeper.model.plans import Refusal, Why
from innkeeper.ports.store import StoreFailed

MEDIA_TYPE = "application/problem+json"

STATUS: dict[Why, int] = {
    Why.INVALID: 422,
    Why.NOT_FOUND: 404,
    Why.CONFLICT: 409,
    Why.BUSY: 409,
    Why.CHANGED: 412,
    Why.NO_ROOM: 507,
    Why.FORBIDDEN: 403,
    Why.UNAVAILABLE: 503,
}
_TITLES: dict[Why, str] = {
    Why.INVALID: "What was asked for cannot be",
    Why.NOT_FOUND: "There is no such object",
    Why.CONFLICT: "The object is not in a state that allows this",
    Why.BUSY: "Another operation holds the object",
    Why.CHANGED: "The object has changed since it was read",
    Why.NO_ROOM: "There is no room",
    Why.FORBIDDEN: "This is not allowed",
    Why.UNAVAILABLE: "This cannot be done now",
}
# What no refusal of ours says: it is about the request, not about the wish.
_EXPECTED = "See /openapi.json for what is expected"
_BY_STATUS = {401: ("unauthenticated", "Say who you are"), 410: ("gone", "This is not kept any more")}


class ProblemOut(BaseModel):
    """Every error has this form. `type` names the kind for programs; `hint` says what to do next."""

    type: Annotated[str, Field(examples=["urn:innkeeper:problem:not-found"])]
    title: str
    status: int
    detail: str
    hint: str = ""


class Problem(Exception):
    """Raised by an edge's function to answer with a refusal."""

    def __init__(self, refusal: Refusal, status: int | None = None) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.status = status or STATUS[refusal.why]


def invalid(reason: str, hint: str = "") -> Problem:
    return Problem(Refusal(why=Why.INVALID, reason=reason, hint=hint))


def answered(refusal: Refusal, status: int) -> JSONResponse:
    kind, title = _BY_STATUS.get(status, (refusal.why.value, _TITLES[refusal.why]))
    body = ProblemOut(
        type=f"urn:innkeeper:problem:{kind}",
        title=title,
        status=status,
        detail=refusal.reason,
        hint=refusal.hint,
    )
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(body.model_dump(), status, headers, media_type=MEDIA_TYPE)


def plain(status: int, detail: str, headers: dict[str, str] | None = None, hint: str = "") -> JSONResponse:
    """An error of HTTP itself: no such path, a method that a path does not have, a body that is too long."""
    title = HTTPStatus(status).phrase
    body = ProblemOut(type="about:blank", title=title, status=status, detail=detail, hint=hint)
    return JSONResponse(body.model_dump(), status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Every error of every route leaves in this form, also where a stream was asked for."""

    @app.exception_handler(Problem)
    async def on_problem(connection: HTTPConnection, problem: Problem) -> JSONResponse:
        answer = answered(problem.refusal, problem.status)
        if isinstance(connection, WebSocket):
            await connection.send_denial_response(answer)
        return answer

    @app.exception_handler(StoreFailed)
    async def on_store(_: Request, failed: StoreFailed) -> JSONResponse:
        return answered(Refusal(why=Why.UNAVAILABLE, reason=str(failed), hint="Nothing was changed"), 503)

    @app.exception_handler(RequestValidationError)
    async def on_shape(_: Request, error: RequestValidationError) -> JSONResponse:
        for one in error.errors():
            if one["type"] == "json_invalid":
                return plain(400, f"the body is not JSON: {one['ctx']['error']}", hint=_EXPECTED)
        wrong = "; ".join(_where_and_what(e) for e in error.errors()[:5])
        return answered(Refusal(why=Why.INVALID, reason=wrong, hint=_EXPECTED), 422)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        return _of_http(request, error)

    @app.exception_handler(Exception)
    async def on_fault(request: Request, _: Exception) -> JSONResponse:
        """The traceback goes to the daemon's log, not to whoever asked."""
        return plain(500, f"{request.method} {request.url.path}: a fault in Innkeeper itself; see the daemon's log")


def _of_http(request: Request, error: HTTPException) -> JSONResponse:
    headers, hint, words = dict(error.headers or {}), "", error.detail
    match error.status_code:
        case 400:
            words, hint = "the body is not JSON", _EXPECTED
        case 404:
            words = "there is nothing at this path"
        case 405:
            allowed = ", ".join(_methods(request))
            words, headers, hint = "this path does not know that method", {"allow": allowed}, f"It knows: {allowed}"
        case 415:
            hint = f"Send JSON, as {headers['accept']}"
        case _:
            pass
    return plain(error.status_code, f"{request.method} {request.url.path}: {words}", headers, hint)


def _methods(request: Request) -> list[str]:
    """All that a path knows: several routes may share it, and the one that refused speaks only for itself."""
    routes = request.app.routes
    asked = ({**request.scope, "method": method} for method in HTTPMethod)
    return [s["method"].value for s in asked if any(r.matches(s)[0] is Match.FULL for r in routes)]


def _where_and_what(error: Any) -> str:
    where = ".".join(str(p) for p in error["loc"] if p not in ("body", "query", "header"))
    return f"{where}: {error['msg']}" if where else str(error["msg"])
