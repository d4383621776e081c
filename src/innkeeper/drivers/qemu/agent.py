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
from collections.abc import Callable
from typing import Any

from innkeeper.ports.streams import GuestNic

SENTINEL = b"\xff"
ANSWER_MOST_BYTES = 256 * 1024
NICS_MOST = 64


class NoAgent(Exception):
    """Nothing in the guest answered, or not as an agent would."""


class GuestAgent:
    """Connects for each question, so that no line stays behind that a later daemon would have to wait for."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._turn = asyncio.Lock()

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

    async def nics(self, timeout_s: float) -> tuple[GuestNic, ...]:
        """Network interfaces as the guest tells them.

        Raises:
            NoAgent: it told none.
        """
        return _nics(await self._ask("guest-network-get-interfaces", None, timeout_s))

    async def _ask(self, command: str, arguments: Any, timeout_s: float, *, answered: bool = True) -> Any:
        question = {"execute": command} | ({"arguments": arguments} if arguments is not None else {})
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                reader, writer = await asyncio.open_unix_connection(sock=self._connect(), limit=ANSWER_MOST_BYTES)
                try:
                    await _synchronise(reader, writer)
                    writer.write(json.dumps(question).encode() + b"\n")
                    await writer.drain()
                    return _result(command, await reader.readline()) if answered else None
                finally:
                    writer.close()
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
    while True:
        await reader.readuntil(SENTINEL)
        if _result("guest-sync-delimited", await reader.readline()) == number:
            return


def _result(command: str, line: bytes) -> Any:
    try:
        answer = json.loads(line)
    except RecursionError:
        raise ValueError("the answer is nested beyond reason") from None
    if not isinstance(answer, dict) or "return" not in answer:
        said = answer.get("error", {}) if isinstance(answer, dict) else {}
        words = said.get("desc") if isinstance(said, dict) else None
        raise NoAgent(f"the guest agent declined `{command}`: {_plain(words)[:200] or 'it does not say why'}")
    return answer["return"]


def _plain(text: object) -> str:
    return "".join(c for c in text if c.isprintable()) if isinstance(text, str) else ""


def _nics(told: Any) -> tuple[GuestNic, ...]:
    found = []
    for entry in told[:NICS_MOST] if isinstance(told, list) else ():
        if not isinstance(entry, dict):
            continue
        addresses = entry.get("ip-addresses")
        kept = [_address(a) for a in addresses[:NICS_MOST]] if isinstance(addresses, list) else []
        mac = _plain(entry.get("hardware-address"))[:17] or None
        nic = GuestNic(name=_plain(entry.get("name"))[:32], mac=mac, addresses=tuple(a for a in kept if a))
        found.append(nic)
    return tuple(found)


def _address(told: Any) -> str:
    if not isinstance(told, dict) or not isinstance(told.get("prefix"), int):
        return ""
    address = _plain(told.get("ip-address"))[:45]
    return f"{address}/{told['prefix']}" if address else ""
