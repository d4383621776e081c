"""The daemon's end of the launcher's line: requests go out as they come, answers are matched by number.

A launcher that died is replaced when the next program is to be started. One that we leave behind, by `close` or by our
own death, stays until its children have ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from innkeeper.drivers.confine.launcher import DESCRIPTORS_MOST, MESSAGE_BYTES
from innkeeper.ports.launcher import LauncherGone, Spawned, SpawnFailed, SpawnRequest

PROGRAM = Path(__file__).with_name("launcher.py")
# A flood of forks on a busy host takes its time; a launcher that does not answer at all is dead or stuck.
ANSWER_TIMEOUT_S = 20.0


def unable() -> str | None:
    """Why nothing can be started in confinement here; None if it can."""
    if os.geteuid() != 0:
        return (
            "machines are started each as a user of its own, which only root may arrange, "
            f"and this is user {os.geteuid()}: run `inn serve` as root"
        )
    return None


class Launcher:
    """Starts programs in confinement through a launcher process. One per daemon.

    `log` is the file in which launchers complain when nobody listens to them any more; None is our own standard error,
    which a launcher that stays keeps open.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._line: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self.pid: int | None = None

    async def start(self) -> None:
        """Have a launcher. May be repeated; one that runs is kept."""
        async with self._starting:
            if self._line is None:
                await self._start()

    async def spawn(self, request: SpawnRequest) -> Spawned:
        await self.start()
        descriptors = [request.log, *request.descriptors]
        self._number += 1
        body = _body(request) | {"id": self._number, "count": len(descriptors)}
        message = json.dumps(body).encode()
        if len(message) > MESSAGE_BYTES or len(descriptors) > DESCRIPTORS_MOST:
            raise SpawnFailed(f"cannot start {request.argv[0]}: it has too many arguments or descriptors")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = answer
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._send(message, descriptors)
                told = await answer
        except TimeoutError:
            raise LauncherGone(f"the launcher (pid {self.pid}) did not answer in {ANSWER_TIMEOUT_S:.0f} s") from None
        finally:
            self._waiting.pop(body["id"], None)
        if "failed" in told:
            raise SpawnFailed(told["failed"])
        return Spawned(pid=told["pid"], start_time=told["start_time"])

    def close(self) -> None:
        """Let the launcher go; it stays until its children have ended. May be repeated."""
        self._lost("it was let go")

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
            ours.setblocking(False)
            words = [sys.executable, "-I", "-S", str(PROGRAM), str(theirs.fileno())]
            null = asyncio.subprocess.DEVNULL
            with self._log.open("ab") if self._log is not None else nullcontext() as log:
                starter = await asyncio.create_subprocess_exec(
                    *words, stdin=null, stdout=null, stderr=log, pass_fds=(theirs.fileno(),)
                )
            theirs.close()
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await starter.wait()
                hello = await asyncio.get_running_loop().sock_recv(ours, MESSAGE_BYTES)
            self.pid = json.loads(hello)["ready"]
        except (TimeoutError, ValueError) as error:
            ours.close()
            raise SpawnFailed(f"the launcher {PROGRAM} did not start: {error!r}") from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._line = ours
        asyncio.get_running_loop().add_reader(ours, self._heard, ours)

    async def _send(self, message: bytes, descriptors: list[int]) -> None:
        while True:
            line = self._line
            if line is None:
                raise LauncherGone("the launcher died before it was asked")
            try:
                socket.send_fds(line, [message], descriptors)
                return
            except BlockingIOError:
                await _writable(line)
            except OSError as error:
                self._lost(str(error))
                raise LauncherGone(f"the launcher (pid {self.pid}) is gone: {error}") from error

    def _heard(self, line: socket.socket) -> None:
        try:
            message = line.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(str(error))
            return
        if not message:
            self._lost("it ended")
            return
        told = json.loads(message)
        answer = self._waiting.get(told["id"])
        if answer is not None and not answer.done():
            answer.set_result(told)

    def _lost(self, why: str) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        asyncio.get_running_loop().remove_reader(line)
        asyncio.get_running_loop().remove_writer(line)
        line.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LauncherGone(f"the launcher (pid {self.pid}) is gone: {why}"))


def _body(request: SpawnRequest) -> dict[str, Any]:
    body = asdict(request)
    del body["log"], body["descriptors"]
    return body


async def _writable(line: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(line, ready.cancel)
    try:
        await asyncio.wait([ready])
    finally:
        if line.fileno() != -1:  # or it was lost meanwhile
            loop.remove_writer(line)
