"""A daemon for tests of its edges: the whole house over one simulated host, in a thread of this process.

Everything is real but the host: the store, the engine, HTTP over a UNIX socket and TCP. Its clock runs fast, so that a
guest boots in a few milliseconds. One daemon serves all tests of a file; each uses names of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
from starlette.requests import HTTPConnection

from innkeeper.api.identity import Identity
from innkeeper.api.server import serving, unix_socket
from innkeeper.control.submit import Asking
from innkeeper.control.watch import Rhythm
from innkeeper.jobs.engine import Patience
from innkeeper.main.house import House, Settings, running
from innkeeper.model.host import Principal
from innkeeper.model.ids import HostId
from innkeeper.model.work import Operation, OperationState
from innkeeper.plan.template import build
from innkeeper.sim.clock import SimClock
from innkeeper.sim.faults import Fault, Faults
from innkeeper.sim.host import SimHost
from innkeeper.sim.metal.guests import Guest
from innkeeper.sim.state import SimState, sim_facts
from innkeeper.store.store import Store, open_store
from innkeeper.store.work.prune import Keep
from tests.jobs.life import fresh_database

T = TypeVar("T")

TOKEN = "a-token-that-nobody-guesses"
SPEED = 50.0
_HOST = HostId("h-000000000001")
_START_S = 30


@dataclass(kw_only=True)
class Wanted:
    """How a daemon is to be. `orders` says what happens to the n-th order; `identify` who people are taken for."""

    folder: Path
    orders: dict[int, Fault] = field(default_factory=dict)
    identify: Callable[[HTTPConnection], Principal] = Identity(TOKEN)
    keep_revisions: int = 200_000
    guest: Guest = Guest()


class Daemon:
    """Begins with entering, ends with leaving."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._loop = asyncio.new_event_loop()
        self._ready, self._enough = threading.Event(), asyncio.Event()
        self._going_on = threading.Event()
        self._thread = threading.Thread(target=self._main, name="daemon")
        self._failed: BaseException | None = None
        self.socket = wanted.folder / "api.sock"
        self.port = 0
        self.state: SimState
        self.store: Store
        self.house: House

    def __enter__(self) -> Daemon:
        self._thread.start()
        assert self._ready.wait(_START_S)
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._enough.set)
        self._thread.join(_START_S)
        if self._failed is not None and kind is None:
            raise self._failed

    @contextlib.contextmanager
    def client(self, **more: Any) -> Iterator[httpx.Client]:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://innkeeper", timeout=30, **more) as client:
            yield client

    def do(self, act: Callable[[], T]) -> T:
        """In the daemon's own thread: pull a string of the simulated machine."""

        async def acted() -> T:
            return act()

        return self.run(acted)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """In the daemon's own loop, until it is done."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(_START_S)

    def build_takes(self, recipe: str, seconds: float) -> None:
        """From now on, in the simulated host's own time."""
        recipes = self.state.recipes
        self.do(lambda: recipes.update({recipe: replace(recipes[recipe], build_s=seconds)}))

    def hold(self) -> None:
        """Until `go_on` the daemon's loop stands still, as under a debugger."""
        self._going_on.clear()
        standing = threading.Event()

        def stand() -> None:
            standing.set()
            self._going_on.wait(_START_S)

        self._loop.call_soon_threadsafe(stand)
        assert standing.wait(_START_S)

    def go_on(self) -> None:
        self._going_on.set()

    # --- in the thread

    def _main(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._serve())
        except BaseException as failed:
            self._failed = failed
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        wanted = self._wanted
        shutil.copy(fresh_database(), wanted.folder / "inn.db")
        self.state = SimState(_HOST, sim_facts(64, 65_536, 4096), clock=SimClock(speed=SPEED), sample_every_s=25)
        self.state.guest = wanted.guest
        self.state.recipes = {name: replace(r, build_s=1.0) for name, r in self.state.recipes.items()}
        self.store = await open_store(
            wanted.folder / "inn.db", wanted.folder / "key", keep=Keep(revisions=wanted.keep_revisions)
        )
        host = SimHost(self.state, Faults(orders=wanted.orders), redeem=self.store.secrets.redeem)
        settings = Settings(
            names={_HOST: "sim"},
            patience=Patience(ask_again_s=0.2),
            rhythm=Rhythm(repair_s=200, tidy_s=2),
            warms=False,
        )
        try:
            async with running(self.store, {_HOST: host}, self.state.clock, wanted.identify, settings) as self.house:
                await self._furnish()
                tcp = socket.create_server(("127.0.0.1", 0))
                self.port = tcp.getsockname()[1]
                async with serving(self.house.app, [unix_socket(self.socket), tcp]):
                    self._ready.set()
                    await self._enough.wait()
        finally:
            await self.store.close()

    async def _furnish(self) -> None:
        """The host is known, and so are its templates: made at once, since no test is about waiting for them."""
        while self.store.pictures.cluster().hosts[_HOST].facts is None:
            await self.state.clock.sleep(0.1)
        for recipe in ("tiny", "debian-12"):
            await self._built(recipe)

    async def _built(self, recipe: str) -> None:
        asking = Asking(principal="root", project=self.house.project, at=self.state.clock.now())
        answer = await self.house.submitter.submit(lambda c, d, n: build(c, recipe, d, n), asking)
        assert isinstance(answer, Operation), answer
        ended = await self.store.journal.wait_ended(answer.id, _START_S)
        assert ended is not None
        assert ended.state is OperationState.SUCCEEDED, ended
