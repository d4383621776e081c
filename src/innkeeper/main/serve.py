"""`inn serve`: the daemon of one machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import signal
import socket
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Annotated

import structlog
import uvloop
from cyclopts import Parameter
from cyclopts.validators import Number

from innkeeper.api.identity import Identity
from innkeeper.api.server import serving, unix_socket
from innkeeper.cli.grammar.words import whole
from innkeeper.cli.line import in_words
from innkeeper.drivers.linuxnet.hand import LinuxNet, NetFailed
from innkeeper.main.clock import SystemClock
from innkeeper.main.house import CannotSetUp, Settings, running
from innkeeper.main.place import DATA_FOLDER, CannotServe, Place
from innkeeper.main.solo import local_host, net_settings
from innkeeper.ports.store import StoreFailed
from innkeeper.store.store import Store, open_store

log = logging.getLogger("innkeeper")

LOG_MOST_BYTES = 8 << 20
TOKEN_LEAST = 32  # characters; what we make has 43


def serve(
    *,
    data: Annotated[Path, Parameter(help="data directory (INN_DATA)")] = DATA_FOLDER,
    listen: Annotated[
        int | None,
        Parameter(
            help="also serve on this port of loopback, with a token",
            metavar="PORT",
            converter=whole,
            validator=Number(gte=1, lte=65_535),
        ),
    ] = None,
    accept_database: Annotated[
        bool,
        Parameter(negative="", help="serve with a database older than what this host holds; what it lacks is removed"),
    ] = False,
    no_warm: Annotated[
        bool, Parameter(negative="", help="make no memory images but those that are asked for: inn template warm")
    ] = False,
    log_file: Annotated[
        Path | None, Parameter(help="log there instead of to standard error; two files of 8 MiB are kept")
    ] = None,
    verbose: Annotated[bool, Parameter(negative="", help="log more")] = False,
) -> None:
    """Run the daemon for this machine, until SIGINT or SIGTERM. Instances run on without it."""
    with in_words((OSError,), "The daemon has not started"):
        _log(log_file, logging.DEBUG if verbose else logging.INFO)
    kinds = (CannotServe, CannotSetUp, StoreFailed, NetFailed, OSError)
    with in_words(kinds, "This daemon has ended; instances run on"):
        uvloop.run(_serve(Place(data.absolute()), listen, accept_database=accept_database, warms=not no_warm))


async def _serve(place: Place, port: int | None, *, accept_database: bool, warms: bool) -> None:
    place.make()
    held = place.lock()
    _spare_us()
    enough = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, enough.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(os.close, held)
        store = await open_store(place.data / "innkeeper.db", place.data / "secret.key")
        stack.push_async_callback(store.close)
        place.check_database(store.pictures.cluster(), accepted=accept_database)
        net = LinuxNet(net_settings(place))
        stack.push_async_callback(net.close)
        in_use = await net.ranges_in_use()
        host = await stack.enter_async_context(local_host(place, store.secrets.redeem, net))
        settings = Settings(names={host.id: socket.gethostname()}, ranges_in_use=in_use, warms=warms)
        token = None if port is None else _token(place)
        house = await stack.enter_async_context(
            running(store, {host.id: host}, SystemClock(), Identity(token), settings)
        )
        sockets = [unix_socket(place.socket)]
        if port is not None:
            sockets.append(_loopback(port))
        await stack.enter_async_context(serving(house.app, sockets))
        log.info("serving %s at %s", place.data, place.socket)
        death = await _until(enough, store)
        log.info("leaving; instances run on")
    if death is not None:
        raise death


async def _until(enough: asyncio.Event, store: Store) -> StoreFailed | None:
    """None: we were told to end. Otherwise why we must, and be started anew: the store is dead."""

    async def outlived() -> StoreFailed:
        death = await store.death()
        log.critical("the store is dead: %s", death, exc_info=death.__cause__)
        enough.set()
        return death

    async with asyncio.TaskGroup() as group:
        living = group.create_task(outlived(), name="the store's life")
        await enough.wait()
        living.cancel()
    return None if living.cancelled() else living.result()


def _loopback(port: int) -> socket.socket:
    """
    Raises:
        CannotServe: the port is another's.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        todo = f"choose another with --listen, or end that program; ss -ltnp 'sport = :{port}' names it"
        raise CannotServe(f"port {port} of 127.0.0.1 is in use by another program: {todo}") from error


def _token(place: Place) -> str:
    """Made once, whole; readable for root alone.

    Raises:
        CannotServe: the file that is there is no secret: too short, or others may read it.
    """
    path = place.data / "api-token"
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(fd)
        draft.replace(path)
    token = path.read_text().strip()
    if len(token) < TOKEN_LEAST or path.stat().st_mode & 0o077:
        raise CannotServe(f"{path} is no secret token: remove it, and a new one is made at the next start")
    return token


def _spare_us() -> None:
    """When memory runs out, a machine ends before the daemon that can tell why."""
    try:
        Path("/proc/self/oom_score_adj").write_text("-900")
    except OSError as error:
        log.warning("this daemon is not spared when memory runs out: %s", error)


def _log(file: Path | None, level: int) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso")],
        # Plain tracebacks: others show the values of variables, among which are users' secrets.
        processor=structlog.dev.ConsoleRenderer(
            colors=file is None and sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        ),
    )
    handler: logging.Handler = logging.StreamHandler()
    if file is not None:
        handler = RotatingFileHandler(file, maxBytes=LOG_MOST_BYTES, backupCount=1)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])
    for noisy in ("uvicorn", "alembic", "qemu.qmp", "asyncio", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
