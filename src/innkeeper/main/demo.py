"""`inn demo`: the whole house over one simulated host, for trying, for developing, and for measuring our own share.

Everything but the host is real: the store, the engine, the API. The host lives in this process and is gone with it,
so the data directory is a fresh one each time. Several hosts would need templates that travel between them, which we
do not have yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter
from cyclopts.validators import Number

from innkeeper.api.identity import Identity
from innkeeper.api.server import serving, unix_socket
from innkeeper.cli.grammar.words import whole
from innkeeper.cli.line import CannotGoOn, in_words
from innkeeper.control.submit import Asking
from innkeeper.control.watch import OURSELVES
from innkeeper.jobs.engine import Patience
from innkeeper.main.house import CannotSetUp, House, Settings, running
from innkeeper.main.place import CannotServe, Place
from innkeeper.model.ids import HostId
from innkeeper.model.plans import Refusal
from innkeeper.plan.template import CATALOGUE, build
from innkeeper.ports.store import StoreFailed
from innkeeper.sim.clock import SimClock
from innkeeper.sim.host import SimHost
from innkeeper.sim.state import SimState, sim_facts
from innkeeper.store.store import Store, open_store

_BUILD_S = 0.2  # nobody wants to wait for a template that is only simulated
_READY_S = 30.0
PORT = Number(gte=1, lte=65_535)
SOME = Number(gte=1, lte=1_000_000)


@dataclass(frozen=True, kw_only=True)
class Size:
    vcpus: Annotated[
        int, Parameter(help="hardware threads of the simulated host", metavar="N", converter=whole, validator=SOME)
    ] = 64
    memory_gib: Annotated[int, Parameter(help="its memory", metavar="N", converter=whole, validator=SOME)] = 256
    disk_gib: Annotated[int, Parameter(help="its disk", metavar="N", converter=whole, validator=SOME)] = 4096


def demo(
    *,
    size: Annotated[Size, Parameter(name="*")] = Size(),
    listen: Annotated[
        int | None,
        Parameter(
            help="also serve on this port of loopback, with a token", metavar="PORT", converter=whole, validator=PORT
        ),
    ] = None,
    data: Annotated[Path | None, Parameter(help="data directory, a fresh one; without, one that is removed")] = None,
) -> None:
    """Run a daemon over a simulated host, until Ctrl-C. Nothing of it remains."""
    with in_words((CannotServe, CannotSetUp, StoreFailed, OSError), "The demo did not start"), _place(data) as place:
        uvloop.run(_serve(place, size, listen))


@contextlib.contextmanager
def _place(data: Path | None) -> Iterator[Place]:
    if data is None:
        with tempfile.TemporaryDirectory(prefix="inn-demo-", ignore_cleanup_errors=True) as folder:
            yield Place(Path(folder))
        return
    place = Place(data.absolute())
    place.data.mkdir(parents=True, exist_ok=True)
    if any(place.data.iterdir()):
        raise CannotGoOn(
            f"{place.data} is not empty", "A simulated host forgets everything; give a directory that is new", 2
        )
    yield place


async def _serve(place: Place, size: Size, port: int | None) -> None:
    """Until SIGINT or SIGTERM."""
    enough = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, enough.set)
    token = None if port is None else secrets.token_urlsafe(16)
    async with _house(place, size, Identity(token)) as house:
        sockets = [unix_socket(place.socket)]
        if port is not None:
            sockets.append(socket.create_server(("127.0.0.1", port)))
        async with serving(house.app, sockets):
            sys.stdout.write(_greeting(place, size, port, token))
            sys.stdout.flush()
            await enough.wait()
    sys.stdout.write("\nThe simulated host is gone, and all that was on it.\n")


@contextlib.asynccontextmanager
async def _house(place: Place, size: Size, identify: Identity) -> AsyncIterator[House]:
    state = SimState(
        HostId("h-000000000001"),
        sim_facts(size.vcpus, size.memory_gib * 1024, size.disk_gib),
        clock=SimClock(start=time.time()),
    )
    state.recipes = {name: replace(recipe, build_s=_BUILD_S) for name, recipe in state.recipes.items()}
    store = await open_store(place.data / "innkeeper.db", place.data / "secret.key")
    try:
        host = SimHost(state, redeem=store.secrets.redeem)
        settings = Settings(names={host.id: "sim"}, patience=Patience(at_once=256, ask_again_s=0.05))
        async with running(store, {host.id: host}, state.clock, identify, settings) as house:
            async with asyncio.timeout(_READY_S):
                await _reported(store, host.id)
                await _templates(store, house, state.clock.now())
            yield house
    finally:
        await store.close()


async def _reported(store: Store, host: HostId) -> None:
    """Nothing can be placed on a host of which nothing is known."""
    revision = store.pictures.cluster().revision
    if store.pictures.cluster().hosts[host].facts is not None:
        return
    async for _ in store.journal.events(revision):
        if store.pictures.cluster().hosts[host].facts is not None:
            return


async def _templates(store: Store, house: House, now: float) -> None:
    asking = Asking(principal=OURSELVES.name, project=house.project, at=now)
    for recipe in CATALOGUE:
        answer = await house.submitter.submit(lambda c, d, n, recipe=recipe: build(c, recipe, d, n), asking)  # type: ignore[misc]
        if isinstance(answer, Refusal):
            raise CannotSetUp(f"template {recipe}: {answer}")
        await store.journal.wait_ended(answer.id, _READY_S)


def _greeting(place: Place, size: Size, port: int | None, token: str | None) -> str:
    tcp = "" if port is None else f"\nOn http://127.0.0.1:{port} with the header Authorization: Bearer {token}\n"
    return f"""\
A simulated host with {size.vcpus} threads, {size.memory_gib} GiB of memory and {size.disk_gib} GiB of disk; \
everything else is real.
Templates: {", ".join(sorted(CATALOGUE))}.

In another terminal:
  export INN_SOCKET={place.socket}
  inn launch tiny web
  inn list
  inn exec web -- uname -a
  inn launch debian-12 --count 5 --ephemeral --ttl 1h
  inn top
{tcp}
Ctrl-C ends it, and nothing remains.
"""
