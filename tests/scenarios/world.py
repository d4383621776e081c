"""A whole site in virtual time: store, engine, watch and monitor over one simulated host, and what was said in it.

Only the host is simulated. The store is real, but its disk always takes equally long: each commit waits its turn and a
fixed moment of virtual time, so that all that follows from one commit has happened before the next begins. That makes
a conversation the same each time, however fast the machine is that it runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from innkeeper.control.instances import Instances
from innkeeper.control.launching import Launching
from innkeeper.control.monitor import Monitor
from innkeeper.control.operations import Operations
from innkeeper.control.snapshots import Snapshots
from innkeeper.control.submit import Asking, Submitter
from innkeeper.control.templates import Templates
from innkeeper.control.waiting import Waiting
from innkeeper.control.watch import OURSELVES, Rhythm, Watch
from innkeeper.jobs.engine import Engine, Patience
from innkeeper.model.actions import TemplateAction
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Principal, Role
from innkeeper.model.ids import Draw, HostId, ProjectId
from innkeeper.model.plans import Plan, Refusal
from innkeeper.model.work import Operation, OperationState, Order
from innkeeper.plan.repair import repair
from innkeeper.plan.setup import default_project, set_up
from innkeeper.plan.words import Names
from innkeeper.sim.clock import SimClock, SimLoop
from innkeeper.sim.host import SimHost
from innkeeper.sim.state import Key, SimState, key_of, sim_facts
from innkeeper.sim.transcript import Transcript
from innkeeper.store.store import Store, open_store
from innkeeper.store.work.standing import Draft
from innkeeper.store.writer import Writer
from tests.jobs.life import fresh_database

T = TypeVar("T")

HOST = HostId("h-000000000001")
YOU = Principal(name="you", role=Role.ADMINISTRATOR)
_COMMIT_S = 0.0007  # no timer of the house strikes at such a moment
_CALM_S = 3.0  # longer than a guest takes to boot or to shut down
_PATIENCE_S = 3600.0
_ID = re.compile(r"\b(?:i|vol|nic|net|t|op|p|h|snap)-[0-9a-f]{12}\b")


def in_virtual_time(writer: Writer) -> None:
    """Commits one after the other, each a moment long; while the thread writes, time stands still."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    ask, turn, writing = writer.ask, asyncio.Lock(), set[object]()

    async def in_turn(evaluate: Callable[[Draft], T], keys: Sequence[str] = ()) -> T:
        async with turn:
            await asyncio.sleep(_COMMIT_S)
            writing.add(evaluate)
            try:
                return await ask(evaluate, keys)
            finally:
                writing.clear()

    loop.wait_for(lambda: bool(writing))
    writer.ask = in_turn  # type: ignore[method-assign]  # the real one is called; only when is decided here


class Conversation(Transcript):
    """A long order, which is given again and again to ask how it stands, is said once in a life of ours."""

    def __init__(self, look: Callable[[], Cluster]) -> None:
        super().__init__(look)
        self.asked: set[Key] = set()

    def ordered(self, order: Order) -> None:
        if key_of(order) not in self.asked:
            super().ordered(order)
        if isinstance(order.action, TemplateAction):
            self.asked.add(key_of(order))


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One life of our process, as its users reach it."""

    host: SimHost
    submitter: Submitter
    launching: Launching
    instances: Instances
    templates: Templates
    operations: Operations
    snapshots: Snapshots
    waiting: Waiting


class World:
    """What outlives our process: the machine, the database file, the time, and what was said."""

    def __init__(self, folder: Path, lives: contextlib.AsyncExitStack) -> None:
        shutil.copy(fresh_database(), folder / "inn.db")
        self._folder = folder
        self.state = SimState(HOST, sim_facts(), clock=SimClock(), sample_every_s=0)
        self.transcript = Conversation(lambda: self.cluster)
        self.store: Store
        self.life: Life
        self._lives = lives
        self._entropy = itertools.count(1)
        self._called: dict[str, str] = {}

    @property
    def cluster(self) -> Cluster:
        return self.store.pictures.cluster()

    def asking(self, name: str = YOU.name) -> Asking:
        project = default_project(self.cluster) or ProjectId("")
        return Asking(principal=name, project=project, at=self.state.clock.now())

    def line(self, text: str) -> None:
        self.transcript.lines.append(text)

    def text(self) -> str:
        """All that was said. What was called by its id is called by the name that it had last."""
        return _ID.sub(lambda found: self._called.get(found[0], found[0]), self.transcript.text())

    # --- lives

    async def begin(self) -> None:
        """Our process starts, and does what it does at its start."""
        await self.enter()
        await self.calm()

    async def enter(self) -> None:
        """Our process starts, and has done nothing yet."""
        self.transcript.asked.clear()
        await self._lives.enter_async_context(self._living())

    async def end(self) -> None:
        """Our process is gone, as by kill -9."""
        await self._lives.aclose()

    async def calm(self) -> None:
        """Every operation has ended, and so has what follows from it."""
        for _ in range(20):
            await self.state.clock.sleep(_CALM_S)
            standing = [o for o in await self.store.journal.operations(None, 1000) if not o.state.ended]
            if not standing:
                return
            for operation in standing:
                await self.store.journal.wait_ended(operation.id, _PATIENCE_S)
        raise AssertionError("one operation leads to another, without an end")

    async def differences(self) -> list[str]:
        """What repair would still mend."""
        before = self.cluster
        inventory = await self.life.host.inventory()
        return [plan.title for plan in repair(before, inventory, self.cluster)]

    # --- inside a life

    @contextlib.asynccontextmanager
    async def _living(self) -> AsyncIterator[None]:
        self.store = store = await open_store(self._folder / "inn.db", self._folder / "key")
        in_virtual_time(store.writer)
        self.life = life = self._composed(store)
        hosts, clock = {HOST: life.host}, self.state.clock
        monitor = Monitor(store.history, clock)
        watch = Watch(hosts, store.pictures, life.submitter, monitor, clock)
        engine = Engine(store.works, store.pictures, hosts, clock, Patience())
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in (life.submitter.run(), engine.run(), self._narrate())]
                project = await self._set_up(life.submitter)
                tasks += [group.create_task(work) for work in (watch.run(project, Rhythm()), monitor.run())]
                yield
                for task in tasks:
                    task.cancel()
        finally:
            life.host.end()
            await store.close()

    def _composed(self, store: Store) -> Life:
        clock, pictures = self.state.clock, store.pictures
        submitter = Submitter(store.works, pictures, clock, self._draws)
        return Life(
            host=SimHost(self.state, redeem=store.secrets.redeem, witness=self.transcript),
            submitter=submitter,
            launching=Launching(submitter, pictures, store.secrets, lambda: Draw(self._draws())),
            instances=Instances(submitter, pictures),
            templates=Templates(submitter, pictures),
            operations=Operations(store.works, store.journal),
            snapshots=Snapshots(submitter, pictures),
            waiting=Waiting(pictures, store.journal),
        )

    async def _set_up(self, submitter: Submitter) -> ProjectId:
        plan = set_up(self.cluster, [(HOST, "h1")], (), Draw(b"first"))
        if isinstance(plan, Plan):
            answer = await submitter.submit(lambda cluster, draw, now: plan, self.asking(OURSELVES.name))
            assert isinstance(answer, Operation), answer
            await self.store.journal.wait_ended(answer.id, _PATIENCE_S)
        assert not isinstance(plan, Refusal), plan
        return self.asking().project

    async def _narrate(self) -> None:
        """What we begin by ourselves, how operations end, and what everything is called."""
        journal = self.store.journal
        async for event in journal.events(self.cluster.revision):
            names = Names(self.cluster)
            self._called.update(names)
            operation = None if event.operation is None else await journal.operation(event.operation)
            if operation is None:
                continue
            self._called[operation.id] = f"({operation.title})"
            if event.what == OperationState.PENDING and operation.principal == OURSELVES.name:
                self.line(f"innkeeper: {operation.title}")
            if operation.state.ended and event.what.startswith(operation.state.value):
                self.line(_end(operation))

    def _draws(self) -> bytes:
        return next(self._entropy).to_bytes(32, "big")


def _end(operation: Operation) -> str:
    why = [operation.error] if operation.error not in ("", operation.state.value) else []
    return ": ".join([operation.title, operation.state.value, *why]) + (operation.hint and f". {operation.hint}")
