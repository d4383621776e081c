"""Serving: uvicorn on a UNIX socket, and on loopback if wanted, with the peer's credentials in each request's state."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from innkeeper.api.identity import GROUP, peer_of

log = logging.getLogger(__name__)

_LEAVING_S = 2


class _PeerProtocol(HttpToolsProtocol):
    """Notes who is at the other end before the first request is read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own word
        super().connection_made(transport)
        self.app_state = {**self.app_state, "peer": peer_of(transport)}


class _Server(uvicorn.Server):
    """Leaves signals to whoever composes us, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def unix_socket(path: Path) -> socket.socket:
    """A listening socket for root and the group `innkeeper`; what lay there from a dead daemon is replaced.

    Raises:
        OSError: the path is too long for a socket (107 bytes), or its directory cannot be written.
    """
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)  # from the first moment: who connects before a chmod is connected
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    try:
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    except (KeyError, PermissionError) as error:
        log.info("only user %d may connect, for its group is not %s: %s", os.geteuid(), GROUP, error)
    sock.listen(512)
    return sock


@contextlib.asynccontextmanager
async def serving(app: FastAPI, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Serves while the block runs; open requests get two seconds to end."""
    config = uvicorn.Config(
        app,
        http=_PeerProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="websockets-sansio",
        # The kernel tells of every end of these sockets, and a reader that pauses, as a pager does, answers no pings.
        ws_ping_interval=None,
        timeout_graceful_shutdown=_LEAVING_S,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=sockets), name="http")
        await server.listening.wait()
        try:
            yield
        finally:
            server.should_exit = True
