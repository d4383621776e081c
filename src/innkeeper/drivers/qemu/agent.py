"""The client of the QEMU guest agent, for guests that bring it.

The agent's line has no frames and no memory of who asked: an answer left over from an asker who gave up looks like the
answer to the next question. So each conversation begins with a byte that no JSON contains and a number that the agent
must repeat, and questions go one at a time. All that comes is a guest's claim: bounded in size, checked field by field.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from innkeeper.drivers.qemu.said import plain

SENTINEL = b"\xff"
ANSWER_MOST_BYTES = 16 * 1024  # to what we ask, an agent has no more to say than why not
# What askers who gave up may have left in the line, and how long the answer is to who looks for its end.
STALE_MOST = 64
SYNC_MOST_BYTES = 1024


class NoAgent(Exception):
    """Nothing in the guest answered, or not as an agent would."""


class Declined(NoAgent):
    """The agent answered, and will not."""


class GuestAgent:
    """Connects for each question, so that no line stays behind that a later daemon would have to wait for.

    Only between `hold_still` and `let_go`, which must follow, it keeps one.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._turn = asyncio.Lock()
        self._kept: _Line | None = None

    async def ping(self, timeout_s: float) -> None:
        """Return once the agent has answered.

        Raises:
            NoAgent: it did not.
        """
        await self._ask("guest-ping", None, timeout_s)

    async def shut_down(self, timeout_s: float) -> None:
        """Ask the guest to power itself off. The agent answers this question only if it will not.

        Raises:
            NoAgent: nobody heard, or the agent declined.
        """
        await self._ask("guest-shutdown", {"mode": "powerdown"}, timeout_s, answered=False)

    async def hold_still(self, timeout_s: float) -> int:
        """The guest's file systems are whole on its disks and nothing is written to them. Tells how many.

        The line stays open for `let_go`: an agent that lost its asker sleeps for a tenth of a second before it hears
        the next one, and all that the guest wants to write would wait for that.

        Raises:
            Declined: it will not, and none is held.
            NoAgent: nobody answered in time. It may still do it, later.
        """
        async with _patience("guest-fsfreeze-freeze", timeout_s), self._turn:
            line = await _open(self._connect)
            try:
                held = _number(await line.ask("guest-fsfreeze-freeze"))
                self._kept = line
            finally:
                if self._kept is not line:
                    line.close()
        return held

    async def let_go(self, timeout_s: float) -> int:
        """The guest's file systems may be written to. Tells how many were held.

        Raises:
            Declined: it will not.
            NoAgent: nobody answered in time.
        """
        line, self._kept = self._kept, None
        if line is not None:
            try:
                async with _patience("guest-fsfreeze-thaw", timeout_s):
                    return _number(await line.ask("guest-fsfreeze-thaw"))
            except Declined:
                raise
            except NoAgent:
                pass  # another line may come through
            finally:
                line.close()
        return _number(await self._ask("guest-fsfreeze-thaw", None, timeout_s))

    async def _ask(self, command: str, arguments: Any, timeout_s: float, *, answered: bool = True) -> Any:
        async with _patience(command, timeout_s), self._turn:
            line = await _open(self._connect)
            try:
                return await line.ask(command, arguments, answered=answered)
            finally:
                line.close()


class _Line:
    """A conversation with the agent, which answers what was asked in it and nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, command: str, arguments: Any = None, *, answered: bool = True) -> Any:
        question = {"execute": command} | ({"arguments": arguments} if arguments is not None else {})
        self._writer.write(json.dumps(question).encode() + b"\n")
        await self._writer.drain()
        return _result(command, await self._reader.readline()) if answered else None

    def close(self) -> None:
        self._writer.close()


async def _open(connect: Callable[[], socket.socket]) -> _Line:
    reader, writer = await asyncio.open_unix_connection(sock=connect(), limit=ANSWER_MOST_BYTES)
    try:
        await _synchronise(reader, writer)
    except BaseException:
        writer.close()
        raise
    return _Line(reader, writer)


@asynccontextmanager
async def _patience(command: str, timeout_s: float) -> AsyncIterator[None]:
    """
    Raises:
        NoAgent: time is up, or there is nobody on the line.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise NoAgent(f"the guest agent did not answer `{command}` in {timeout_s:g} s") from None
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise NoAgent(f"the guest agent cannot be asked `{command}`: {error}") from error


async def _synchronise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    number = secrets.randbelow(2**31)
    question = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
    # The byte in front clears whatever half a question the agent's parser still holds.
    writer.write(SENTINEL + json.dumps(question).encode() + b"\n")
    await writer.drain()
    for _ in range(STALE_MOST):
        await reader.readuntil(SENTINEL)
        answer = await reader.readline()
        if len(answer) > SYNC_MOST_BYTES:
            raise NoAgent(f"the guest agent answered {len(answer)} bytes where a number was asked for")
        if _result("guest-sync-delimited", answer) == number:
            return
        # A read of what is there already does not wait, and a guest can see to it that there always is something.
        await asyncio.sleep(0)
    raise NoAgent("the guest agent goes on answering questions that nobody asked")


def _number(said: object) -> int:
    if not isinstance(said, int) or isinstance(said, bool):
        raise NoAgent("the guest agent answered something else than a number of file systems")
    return said


def _result(command: str, line: bytes) -> Any:
    try:
        answer = json.loads(line)
    except RecursionError:
        raise ValueError("the answer is nested beyond reason") from None
    if not isinstance(answer, dict) or "return" not in answer:
        said = answer.get("error", {}) if isinstance(answer, dict) else {}
        words = said.get("desc") if isinstance(said, dict) else None
        raise Declined(f"the guest agent declined `{command}`: {plain(words) or 'it does not say why'}")
    return answer["return"]
