"""Streams over WebSocket: commands and shells, and the serial console.

Bytes go in binary messages, words in text messages holding JSON. Of a command: the client first sends its request
(argv, env, cwd, user, pty), then binary messages (input) and `{"eof":true}`, `{"resize":[rows,cols]}`,
`{"signal":n}`. The server sends binary messages whose first byte tells standard output (1) from error (2), and at
last one of `{"exit":code}`, `{"signal":n}`, `{"error":…}`. A console has plain bytes both ways.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, ValidationError

from innkeeper.api.asked import Asked
from innkeeper.control.lines import Lines
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.model.plans import Refusal
from innkeeper.ports.streams import Console, ExecRequest, Exited, Failed, Pty, Session, Stderr, Stdout, StreamClosed

log = logging.getLogger(__name__)

Side = Annotated[int, Field(ge=1, le=10_000)]


class PtyIn(BaseModel):
    rows: Side
    cols: Side
    term: str = "xterm-256color"


class ExecIn(BaseModel):
    """A command to run; without `argv` the user's login shell."""

    argv: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    user: str | None = None
    pty: PtyIn | None = None


class WordsIn(BaseModel):
    """What is said while a command runs. Words that mean nothing are passed over."""

    eof: bool = False
    resize: tuple[Side, Side] | None = None
    signal: Annotated[int | None, Field(ge=1, le=64)] = None


def routes(asked: Asked, lines: Lines) -> APIRouter:
    router = APIRouter(prefix="/v1/instances/{word}")
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    OfProject = Annotated[ProjectId, Depends(asked.project)]

    @router.websocket("/exec")
    async def run(socket: WebSocket, word: str, who: WhoAsks, project: OfProject) -> None:
        await socket.accept()
        try:
            request = _request(ExecIn.model_validate_json(await socket.receive_text()))
        except (ValidationError, KeyError) as wrong:
            await _refuse(socket, f"the request cannot be understood: {_short(wrong)}", "See /openapi.json: ExecIn")
            return
        except WebSocketDisconnect:
            return
        session = await lines.exec(who, project, word, request)
        if isinstance(session, Refusal):
            await _refuse(socket, session.reason, session.hint)
            return
        try:
            await _either(_from_client(socket, session), _to_client(socket, session))
        finally:
            await session.close()

    @router.websocket("/console")
    async def console(socket: WebSocket, word: str, who: WhoAsks, project: OfProject) -> None:
        await socket.accept()
        line = await lines.console(who, project, word)
        if isinstance(line, Refusal):
            await _refuse(socket, line.reason, line.hint)
            return
        try:
            await _either(_typed(socket, line), _said(socket, line))
        finally:
            await line.close()

    return router


def _request(body: ExecIn) -> ExecRequest:
    pty = None if body.pty is None else Pty(rows=body.pty.rows, cols=body.pty.cols, term=body.pty.term)
    return ExecRequest(argv=tuple(body.argv), env=body.env, cwd=body.cwd, user=body.user, pty=pty)


def _short(wrong: Exception) -> str:
    if isinstance(wrong, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong.errors()[:3])
    return "it is not text"


async def _refuse(socket: WebSocket, reason: str, hint: str) -> None:
    await socket.send_text(json.dumps({"error": reason, "hint": hint}))
    await socket.close()


class _Over(Exception):
    """One of both ways has ended."""


async def _either(*ways: Awaitable[None]) -> None:
    """Until one of both ways ends; the other is ended then."""

    async def to_its_end(way: Awaitable[None]) -> None:
        await way
        raise _Over

    try:
        async with asyncio.TaskGroup() as group:
            for way in ways:
                group.create_task(to_its_end(way))
    except* (_Over, WebSocketDisconnect, StreamClosed) as ends:
        log.debug("a stream has ended, as all do: %s", ends.exceptions)


async def _from_client(socket: WebSocket, session: Session) -> None:
    """Until the client hangs up."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("bytes") is not None:
            await session.write(message["bytes"])
        elif message.get("text"):
            try:
                await _obey(session, WordsIn.model_validate_json(message["text"]))
            except ValidationError as wrong:
                await _refuse(socket, f"a word cannot be understood: {_short(wrong)}", "See /openapi.json: exec")
                return


async def _obey(session: Session, words: WordsIn) -> None:
    if words.resize is not None:
        await session.resize(*words.resize)
    if words.signal is not None:
        await session.signal(words.signal)
    if words.eof:
        await session.eof()


async def _to_client(socket: WebSocket, session: Session) -> None:
    while True:
        match await session.read():
            case Stdout(data):
                await socket.send_bytes(b"\x01" + data)
            case Stderr(data):
                await socket.send_bytes(b"\x02" + data)
            case Exited(code=code, signal=signal):
                await socket.send_text(json.dumps({"exit": code} if signal is None else {"signal": signal}))
                await socket.close()
                return
            case Failed(reason):
                await _refuse(socket, reason, "")
                return


async def _typed(socket: WebSocket, console: Console) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes") or (message.get("text") or "").encode()
        await console.write(data)


async def _said(socket: WebSocket, console: Console) -> None:
    while data := await console.read():
        await socket.send_bytes(data)
    await socket.close()
