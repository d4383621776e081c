"""How long a request may be: nobody fills the daemon's memory with a body that no wish needs.

FastAPI has a limit of its own, which answers in plain text; ours answers as every error does.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from innkeeper.api.problems import plain

BODY_MOST = 4 << 20
_WORDS = f"a request may have {BODY_MOST} bytes; let the guest fetch what is longer, or push it"


class LimitedBodies:
    """Around an application. A body that says its length is refused at once, another when it has passed the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _length(scope) > BODY_MOST:
            await plain(413, _WORDS)(scope, receive, send)
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if count > BODY_MOST:
                raise HTTPException(413, _WORDS)
            return message

        await self._app(scope, counted, send)


def _length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
