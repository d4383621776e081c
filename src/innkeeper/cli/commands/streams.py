"""`inn exec`, `inn shell`, `inn console`, `inn logs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Annotated, Any

from cyclopts import Parameter
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from innkeeper.cli import terminal
from innkeeper.cli.channel import OURS, connected, ended, lost, refused, run, streaming, tell, until_answering
from innkeeper.cli.grammar.words import HERE, Here, Instance
from innkeeper.cli.line import CannotGoOn, Line, at

_DETACH = b"\x1d"  # Ctrl-], as telnet, virsh console and docker's cousins have it
_PATIENCE = 3  # how often Ctrl-C is passed on before it ends us
_LEAVE_S = 5.0  # how long the command may take to go when we are told to go

User = Annotated[str | None, Parameter(help="the user in the instance; otherwise root", metavar="NAME")]


def exec_(
    name: Instance,
    /,
    *command: Annotated[str, Parameter(allow_leading_hyphen=True, help="what to run, and its own options")],
    tty: Annotated[bool, Parameter(name=["--tty", "-t"], help="give it a terminal, as top or vi want one")] = False,
    user: User = None,
    cwd: Annotated[str | None, Parameter(help="the folder to run it in", metavar="PATH")] = None,
    env: Annotated[
        list[str] | None, Parameter(name=["--env", "-e"], help="KEY=VALUE, or KEY for ours; repeat it", metavar="KEY")
    ] = None,
    where: Here = HERE,
) -> None:
    """Its exit code becomes ours."""
    if not command:
        raise CannotGoOn("no command was given", f"For example: inn exec {name} -- uname -a", 2)
    request: dict[str, Any] = {"argv": list(command), "user": user, "cwd": cwd, "env": _variables(env or [])}
    if tty:
        request["pty"] = _pty()
    with streaming():
        until_answering(where.line, name, sys.stderr.write)
    with terminal.raw() if tty else contextlib.nullcontext():
        code = run(_session(where.line, name, request))
    sys.exit(code)


def shell(name: Instance, /, *, user: User = None, where: Here = HERE) -> None:
    """A login shell, in a terminal of the size of ours."""
    if not sys.stdin.isatty():
        raise CannotGoOn("a shell wants a terminal", f"Without one: inn exec {name} -- COMMAND", 2)
    with streaming():
        until_answering(where.line, name, sys.stderr.write)
    with terminal.raw():
        code = run(_session(where.line, name, {"argv": [], "user": user, "pty": _pty()}))
    sys.exit(code)


def console(name: Instance, /, *, where: Here = HERE) -> None:
    """What was said lately, then live."""
    line = where.line
    with streaming():
        line.get(at("instances", name))
    with terminal.raw():
        run(_console(line, name))
    sys.stderr.write("\n")


def logs(
    name: Instance,
    /,
    *,
    follow: Annotated[
        bool, Parameter(help="what it said lately, then what it says, until it stops or Ctrl-C comes")
    ] = False,
    where: Here = HERE,
) -> None:
    sys.stdout.flush()
    if follow:
        with streaming():
            where.line.get(at("instances", name))
        run(_followed(where.line, name))
    else:
        sys.stdout.buffer.write(where.line.text(at("instances", name, "log")))


def _variables(pairs: list[str]) -> dict[str, str]:
    found = dict[str, str]()
    for pair in pairs:
        key, given, value = pair.partition("=")
        if not key or (not given and key not in os.environ):
            raise CannotGoOn(f"--env {pair}: there is no such variable", "Write KEY=VALUE", 2)
        found[key] = value if given else os.environ[key]
    return found


def _pty() -> dict[str, Any]:
    rows, cols = terminal.size()
    return {"rows": rows, "cols": cols, "term": os.environ.get("TERM") or "xterm"}


async def _session(line: Line, name: str, request: dict[str, Any]) -> int:
    async with connected(line, at("instances", name, "exec")) as socket, asyncio.TaskGroup() as group:
        await tell(socket, request)
        typing = group.create_task(_type(socket))
        numbers = (signal.SIGWINCH,) if "pty" in request else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        patience = asyncio.timeout(None)
        signals = _Signals(socket, group, patience)
        try:
            async with patience:
                with terminal.heard(numbers, signals.hear):
                    code = await ended(socket, terminal.write)
        except TimeoutError:
            words = f"the command in {name} did not end within {_LEAVE_S:g} s of being told to"
            raise CannotGoOn(words, f"It may run on; see: inn show {name}", signals.last_code) from None
        typing.cancel()
    return code


class _Signals:
    """A changed window goes to the guest's terminal; without one, Ctrl-C goes to the command, and so does what tells
    us to end: `patience` then runs out soon."""

    def __init__(self, socket: ClientConnection, group: asyncio.TaskGroup, patience: asyncio.Timeout) -> None:
        self._socket = socket
        self._group = group
        self._patience = patience
        self._interrupts = 0
        self.last_code = OURS

    def hear(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._group.create_task(tell(self._socket, {"resize": terminal.size()}))
            return
        if number in (signal.SIGTERM, signal.SIGHUP):
            self.last_code = 128 + number
            self._patience.reschedule(asyncio.get_running_loop().time() + _LEAVE_S)
        else:
            self._interrupts += 1
        if self._interrupts > _PATIENCE:
            raise KeyboardInterrupt  # the command does not listen, and the person wants to go
        self._group.create_task(tell(self._socket, {"signal": number}))


async def _type(socket: ClientConnection) -> None:
    async for data in terminal.typed():
        with contextlib.suppress(ConnectionClosed):
            await socket.send(data)
    await tell(socket, {"eof": True})


async def _console(line: Line, name: str) -> int:
    async with connected(line, at("instances", name, "console")) as socket, asyncio.TaskGroup() as group:
        sys.stderr.write(f"console of {name}; Ctrl-] ends it\r\n")
        typing = group.create_task(_type_until_detached(socket)) if sys.stdin.isatty() else None
        await _say(socket)
        if typing is not None:
            typing.cancel()
    return 0


async def _followed(line: Line, name: str) -> int:
    async with connected(line, at("instances", name, "console")) as socket:
        await _say(socket)
    return 0


async def _type_until_detached(socket: ClientConnection) -> None:
    async for data in terminal.typed():
        if _DETACH in data:
            break
        with contextlib.suppress(ConnectionClosed):
            await socket.send(data)
    await socket.close()


async def _say(socket: ClientConnection) -> None:
    """Until either side looks away. A text message instead of bytes is a refusal."""
    try:
        async for message in socket:
            if isinstance(message, str):
                raise refused(json.loads(message))
            await terminal.write(1, message)
    except ConnectionClosed as closed:  # not by us, and not in order
        raise lost() from closed
