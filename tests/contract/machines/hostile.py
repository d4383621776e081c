"""A QEMU that its guest has taken over, as far as its monitor's line shows: it says what a test has it say."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}


class Hostile:
    """One conversation. `answers` are what each command is answered; all others get an empty one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.greeting: Any = GREETING
        self.answers: dict[str, Any] = {}
        self.deaf = False
        self.over = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.say(self.greeting)
        try:
            while (question := await self._question(reader)) is not None:
                command = question["execute"]
                told = {} if command == "qmp_capabilities" else self.answers.get(command, {})
                whole = told if isinstance(told, dict) and told.get("error") else {"return": told}
                self.say(whole | {"id": question.get("id")})
                if command == "qmp_capabilities" and self.deaf:
                    await self.over.wait()
        except ConnectionError:
            pass  # the daemon hung up, as it may
        finally:
            writer.close()

    async def _question(self, reader: asyncio.StreamReader) -> dict[str, Any] | None:
        """Clients need not end a message with a line."""
        text = ""
        while data := await reader.read(65536):
            text += data.decode()
            try:
                found: dict[str, Any] = json.loads(text)
                return found
            except ValueError:
                continue  # not whole yet
        return None

    def say(self, message: Any) -> None:
        self.say_raw(json.dumps(message).encode() + b"\r\n")

    def say_raw(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    def line(self) -> socket.socket:
        """A new connection to it."""
        line = socket.socket(socket.AF_UNIX)
        line.setblocking(False)
        line.connect(str(self.path))
        return line


@asynccontextmanager
async def hostile(path: Path) -> AsyncIterator[Hostile]:
    made = Hostile(path)
    server = await asyncio.start_unix_server(made.serve, path, limit=1024)
    try:
        yield made
    finally:
        made.over.set()
        server.close()
