"""An installation leaves its machine: `./run --remove`. Its data directory stays, with templates and logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil

from innkeeper.cli.line import CannotGoOn, Line
from innkeeper.drivers.linuxnet.hand import LinuxNet
from innkeeper.main.boot import UNITS, return_no_more, unit_name
from innkeeper.main.daemon import end, stands
from innkeeper.main.place import CannotServe, Place
from innkeeper.main.solo import net_settings
from innkeeper.store.store import open_store

_NAMED = 5


def remove(line: Line, place: Place) -> None:
    """Daemon, networks, what serves them, and the unit that has it return at boot. May be repeated.

    Raises:
        CannotGoOn: instances are left, or who serves them does not answer; nothing was done. Or an instance came while
            the daemon was being ended; it says so.
        CannotReturn, NetFailed, OSError: something remains; it goes with the next try.
    """
    with contextlib.ExitStack() as stack:
        if stands(line):
            _refuse([i["name"] for i in line.every("/v1/instances")])
            stack.callback(os.close, end(place))
            _admit(asyncio.run(_rows(place)), place)
        elif place.data.is_dir():
            stack.callback(os.close, _lock(place))
            _refuse(asyncio.run(_rows(place)))
        if place.data.is_dir():
            return_no_more(place)
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
        some = _some(names)
        raise CannotGoOn(f"there are instances: {some}", f"Delete them with their disks: {_delete(names)}", 2)


def _admit(names: list[str], place: Place) -> None:
    """Between our look and the daemon's end somebody was faster."""
    if names:
        name = unit_name(place)
        again = f"systemctl start {name}" if (UNITS / name).exists() else f"inn serve --data {place.data}"
        raise CannotGoOn(
            f"the daemon has ended, and nothing else was done: meanwhile there were instances: {_some(names)}",
            f"They run on. Start the daemon again: {again}; then: {_delete(names)}",
            2,
        )


def _delete(names: list[str]) -> str:
    return f"inn delete {' '.join(names) if len(names) <= _NAMED else 'NAME...'} --force"


def _some(names: list[str]) -> str:
    return " ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")


def _lock(place: Place) -> int:
    """Nobody listens; so nobody else may begin to."""
    try:
        return place.lock()
    except CannotServe as held:
        hint = "It is starting, or ending, or hangs: look at its log, then try again; nothing was done"
        raise CannotGoOn(f"nobody answers at {place.socket}, and yet {held}", hint) from held
