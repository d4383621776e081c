"""Streams to the daemon: a WebSocket over its UNIX socket, and a command's session over that.

The messages are described where the daemon answers them (api/routes/streams.py). What goes wrong with a stream ends
with exit code 255, as with ssh: every smaller one may be the command's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from innkeeper.cli.line import CannotGoOn, Line, at, first_of, no_daemon, problem

OURS = 255
_CLOSE_S = 1.0  # farewells come after all that we have not read, which may be much
Taker = Callable[[int, bytes], Awaitable[None]]


@contextlib.asynccontextmanager
async def connected(line: Line, path: str) -> AsyncIterator[ClientConnection]:
    uri = f"ws://innkeeper{line.target(path)}"
    opening = unix_connect(line.path, uri=uri, max_size=None, compression=None, close_timeout=_CLOSE_S)
    try:
        socket = await opening
    except InvalidStatus as refused:
        said = problem(refused.response.status_code, bytes(refused.response.body))
        raise CannotGoOn(said.reason, said.hint, OURS) from refused
    except InvalidHandshake as error:
        raise CannotGoOn(f"what answers at {line.path} opens no streams: {error}", "", 3) from error
    except OSError as error:
        raise no_daemon(line.path, error) from error
    try:
        yield socket
    finally:
        await socket.close()


async def ended(socket: ClientConnection, take: Taker) -> int:
    """Passes output on until the command has ended; its exit code, or 128 + signal as shells say.

    Raises:
        CannotGoOn: the command did not start, or the line broke.
    """
    try:
        async for message in socket:
            if isinstance(message, bytes):
                await take(message[0], message[1:])
            else:
                return _code(json.loads(message))
    except ConnectionClosed as closed:
        raise lost() from closed
    raise lost()


def lost() -> CannotGoOn:
    return CannotGoOn(
        "the line to the instance broke", "Did the daemon stop, or the instance? See: inn list, inn logs", OURS
    )


def _code(words: dict[str, Any]) -> int:
    if "exit" in words:
        return int(words["exit"])
    if "signal" in words:
        return 128 + int(words["signal"])
    raise refused(words)


def refused(words: dict[str, Any]) -> CannotGoOn:
    return CannotGoOn(words.get("error", "the stream ended in an unknown way"), words.get("hint", ""), OURS)


async def tell(socket: ClientConnection, words: dict[str, object]) -> None:
    """A word to the other side; one that hung up meanwhile does not need it any more."""
    with contextlib.suppress(ConnectionClosed):
        await socket.send(json.dumps(words))


def until_answering(line: Line, name: str, say: Callable[[str], object]) -> None:
    """One that may still be booting is waited for; whether it will answer at all, the daemon knows best."""
    one = line.get(at("instances", name))
    if one["status"] in ("starting", "launching") or (one["status"] == "running" and not one["agent"]):
        say(f"{one['name']} does not answer yet; waiting until it does …\n")
        line.get(at("instances", name, "wait"), **{"for": "agent", "timeout_s": 300})


@contextlib.contextmanager
def streaming() -> Iterator[None]:
    """What is refused before a stream begins ends with the same code as what breaks in it."""
    try:
        yield
    except CannotGoOn as failed:
        raise failed if failed.code > 1 else CannotGoOn(failed.reason, failed.hint, OURS) from failed


def run(work: Coroutine[Any, Any, int]) -> int:
    """Task groups raise groups; a command ends with the first thing that went wrong."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        raise first_of(group) from group
