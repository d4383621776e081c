"""An installation leaves its machine: `./run --remove`. Its data directory stays, with templates and logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time

from innkeeper.cli.line import CannotGoOn, Line
from innkeeper.drivers.linuxnet.hand import LinuxNet
from innkeeper.main.boot import return_no_more
from innkeeper.main.place import CannotServe, Place
from innkeeper.main.solo import net_settings
from innkeeper.store.store import open_store

_ENDING_S = 60.0
_NAMED = 5


def remove(line: Line, place: Place) -> None:
    """Daemon, networks, what serves them, and the unit that has it return at boot. May be repeated.

    Raises:
        CannotGoOn: instances are left; nothing was done.
        CannotReturn, NetFailed, OSError: something remains; it goes with the next try.
    """
    if _answers(line):
        _refuse([i["name"] for i in line.every("/v1/instances")])
    with contextlib.ExitStack() as stack:
        if place.data.is_dir():
            return_no_more(place)
            stack.callback(os.close, _without_daemon(place))
            _refuse(asyncio.run(_rows(place)))
        asyncio.run(without_networks(place))


async def without_networks(place: Place) -> None:
    """Networks outlive daemons and instances; these go, with all that serves them.

    Raises:
        NetFailed: something remains.
    """
    net = LinuxNet(net_settings(place))
    try:
        for network in await net.present():
            await net.remove(network)
    finally:
        await net.close()
    if place.volatile.is_dir():
        shutil.rmtree(place.volatile)


def _answers(line: Line) -> bool:
    try:
        line.get("/v1")
    except CannotGoOn:
        return False
    return True


async def _rows(place: Place) -> list[str]:
    if not (place.data / "innkeeper.db").exists():
        return []
    store = await open_store(place.data / "innkeeper.db", place.data / "secret.key")
    try:
        return sorted(i.name for i in store.pictures.cluster().instances.values())
    finally:
        await store.close()


def _refuse(names: list[str]) -> None:
    if names:
        some = " ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
        raise CannotGoOn(f"there are instances: {some}", f"Delete them with their disks: inn delete {some} --force", 2)


def _without_daemon(place: Place) -> int:
    """It is told to end, as its service manager would; the lock is ours then."""
    told, deadline = False, time.monotonic() + _ENDING_S
    while True:
        try:
            return place.lock()
        except CannotServe:  # it is held, so its number is that of the daemon
            if time.monotonic() > deadline:
                raise
        if not told:
            os.kill(int((place.data / "lock").read_text()), signal.SIGTERM)
            told = True
        time.sleep(0.1)
