"""Random lives of a store against a simple model of it: who holds what, who waits, what has ended; with crashes.

The model knows nothing of transactions, claims tables or revisions: only what the port promises.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from innkeeper.model.ids import InstanceId, OperationId
from innkeeper.model.instance import Instance
from innkeeper.model.plans import Plan, Verb
from innkeeper.model.work import Moment, Operation, OperationState, Stale
from innkeeper.store.store import Store, open_store
from tests.jobs.store.plans import (
    FACTS,
    Machine,
    delete,
    finish,
    launch,
    noted,
    plain,
    seen,
    set_up,
    several,
    submission,
)
from tests.jobs.store.plans import rename as rename_plan

T = TypeVar("T")
_ROOM = 3  # instances that fit
_NAMES, _SLOTS = ("a", "b", "c", "d"), st.integers(0, 3)


class Killed(BaseException):
    """The crash point's."""


@dataclass
class Deed:
    """An operation, as the model knows it."""

    kind: str
    instance: InstanceId
    key: str
    state: OperationState = field(default=OperationState.PENDING, init=False)
    done: int = field(default=0, init=False)
    cancel: bool = field(default=False, init=False)

    @property
    def ended(self) -> bool:
        return self.state.ended


@dataclass
class Family:
    """A parent, as the model knows it."""

    children: tuple[OperationId, ...]
    refused: int
    key: str
    cancel: bool = field(default=False, init=False)


@dataclass
class World:
    rows: dict[InstanceId, Instance] = field(default_factory=dict)
    machines: dict[InstanceId, Machine] = field(default_factory=dict)
    deeds: dict[OperationId, Deed] = field(default_factory=dict)
    families: dict[OperationId, Family] = field(default_factory=dict)

    def fits(self, *machines: Machine) -> bool:
        """One after the other."""
        room = _ROOM - len(self.rows)
        rows = self.rows.values()
        taken: list[tuple[object, ...]] = [(r.name, self.machines[r.id].address, r.uid_slot) for r in rows]
        for machine in machines:
            held = (machine.name, machine.address, machine.slot)
            if room == 0 or any(mine == theirs for other in taken for mine, theirs in zip(held, other, strict=True)):
                return False
            room -= 1
            taken.append(held)
        return True

    def begin(self, machine: Machine) -> None:
        self.rows[machine.instance] = machine.row()
        self.machines[machine.instance] = machine

    def holder(self, instance: InstanceId) -> OperationId | None:
        return next((id for id, deed in self.deeds.items() if deed.instance == instance and not deed.ended), None)

    def end(self, id: OperationId, state: OperationState) -> None:
        deed = self.deeds[id]
        deed.state = state
        gone = deed.kind == ("delete" if state is OperationState.SUCCEEDED else "launch")
        if gone:
            self.rows.pop(deed.instance, None)


class Subject:
    """A store on a loop and a folder of its own, which can be killed and opened again."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="inn-store-")
        self._path = Path(self._folder.name)
        self._loop = asyncio.new_event_loop()
        self._doomed = False
        self.store = self._opened()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def _opened(self) -> Store:
        store = self.do(open_store(self._path / "db", self._path / "key", on_commit=self._crash_point))
        assert store.mended == ()
        return store

    def _crash_point(self, _: int) -> None:
        if self._doomed:
            raise Killed

    def reopen(self) -> None:
        self.do(self.store.close())
        self.store = self._opened()

    def kill(self) -> None:
        """In the middle of a commit, of which nothing remains."""
        nothing = Plan(verb=Verb.SET_UP, title="nothing", subjects=())
        self._doomed = True
        try:
            self.do(self.store.works.submit([submission(nothing, "op-doomed")]))
        except Killed:
            self._doomed = False
        assert not self._doomed

    def remove(self) -> None:
        self.do(self.store.close())
        self.do(self._loop.shutdown_default_executor())
        self._loop.close()
        self._folder.cleanup()


class StoreMachine(RuleBasedStateMachine):
    operations: Bundle[OperationId] = Bundle("operations")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.number = 0
        self.subject = Subject()
        self.do = self.subject.do

    @property
    def store(self) -> Store:
        return self.subject.store

    def teardown(self) -> None:
        self.subject.remove()

    @initialize()
    def furnish(self) -> None:
        self.do(self.store.works.submit([submission(set_up(replace(FACTS, disk_gib=2 * _ROOM)), "op-setup")]))
        (work,) = self.do(self.store.works.take(1))
        assert self.do(finish(self.store, work))

    # --- rules

    @rule(target=operations, name=st.sampled_from(_NAMES), address=_SLOTS, slot=_SLOTS)
    def launches(self, name: str, address: int, slot: int) -> OperationId:
        self.number += 1
        machine = Machine(number=self.number, name=name, address=f"10.1.1.{address}", slot=slot)
        fits = self.world.fits(machine)
        id = self._submit(launch(machine), "launch", machine.instance, fits)
        if fits:
            self.world.begin(machine)
        return id

    @rule(target=operations, data=st.data(), force=st.booleans())
    def deletes(self, data: st.DataObject, *, force: bool) -> OperationId:
        row = self._some_row(data)
        if row is None:
            return OperationId("op-none")
        holder = self.world.holder(row.id)
        fits = holder is None or force
        id = self._submit(delete(row, force=force), "delete", row.id, fits)
        if fits:
            if holder is not None:
                self.world.deeds[holder].state = OperationState.CANCELLED
            changed = delete(row).accept[0]
            self.world.rows[row.id] = changed.noun  # type: ignore[union-attr,assignment]
        return id

    @rule(target=operations, data=st.data(), name=st.sampled_from(_NAMES))
    def renames(self, data: st.DataObject, name: str) -> OperationId:
        row = self._some_row(data)
        if row is None:
            return OperationId("op-none")
        taken = any(other.name == name for other in self.world.rows.values() if other.id != row.id)
        fits = self.world.holder(row.id) is None and not taken
        id = self._submit(rename_plan(row, name), "rename", row.id, fits)
        if fits:
            self.world.rows[row.id] = rename_plan(row, name).accept[0].noun  # type: ignore[union-attr,assignment]
        return id

    @rule(id=operations, end=st.sampled_from(["step", "succeed", "retreat", "fail"]))
    def records(self, id: OperationId, end: str) -> None:
        deed = self.world.deeds.get(id)
        if deed is None:
            return
        moment, state, done = {
            "step": (Moment.STEP_DONE, OperationState.RUNNING, deed.done + 1),
            "succeed": (Moment.ENDED, OperationState.SUCCEEDED, deed.done),
            "retreat": (Moment.UNDO_BEGUN, OperationState.UNDOING, deed.done),
            "fail": (Moment.ENDED, OperationState.FAILED, 0),
        }[end]
        wanted = not deed.ended
        assert self.do(self.store.works.record(noted(id, moment, state, done))) is wanted
        if not wanted:
            return
        deed.done = done
        if state.ended:
            self.world.end(id, state)
            return
        deed.state = state
        if moment is Moment.UNDO_BEGUN and deed.kind == "launch" and deed.instance in self.world.rows:
            machine = self.world.machines[deed.instance]
            self.world.rows[deed.instance] = launch(machine).retreat[0].noun  # type: ignore[union-attr,assignment]

    @rule(id=operations)
    def cancels(self, id: OperationId) -> None:
        deed = self.world.deeds.get(id)
        found = self.do(self.store.works.cancel(id))
        assert (found is None) is (deed is None)
        if deed is not None and not deed.ended and deed.state is not OperationState.UNDOING:
            deed.cancel = True

    @rule(id=operations)
    def asks_again_with_the_same_key(self, id: OperationId) -> None:
        deed = self.world.deeds.get(id)
        if deed is None or not deed.key:
            return
        again = submission(set_up(), f"{id}-again", key=deed.key)
        (answer,) = self.do(self.store.works.submit([again]))
        assert isinstance(answer, Operation)
        assert answer.id == id

    @rule(data=st.data(), seq=st.integers(1, 5))
    def reports(self, data: st.DataObject, seq: int) -> None:
        row = self._some_row(data)
        if row is not None:
            self.do(self.store.pictures.report([seen(self.world.machines[row.id], seq)]))

    @rule(crash=st.booleans())
    def restarts(self, *, crash: bool) -> None:
        before = self.store.pictures.cluster()
        if crash:
            self.subject.kill()
        self.subject.reopen()
        assert plain(self.store.pictures.cluster()) == plain(before)
        waiting = [deed for deed in self.world.deeds.values() if not deed.ended]
        taken = self.do(self.store.works.take(100)) if waiting else ()
        assert {work.operation.id for work in taken} == {id for id, deed in self.world.deeds.items() if not deed.ended}
        for work in taken:
            deed = self.world.deeds[work.operation.id]
            now = work.operation
            assert (now.state, now.done, now.cancel_wanted) == (deed.state, deed.done, deed.cancel)

    # --- what always holds

    @invariant()
    def the_picture_is_the_world(self) -> None:
        cluster = self.store.pictures.cluster()
        assert dict(cluster.instances) == self.world.rows
        holders = {ref.id: id for ref, id in cluster.claims.items() if ref.id in self.world.rows}
        unended = {i: holder for i in self.world.rows if (holder := self.world.holder(i)) is not None}
        assert holders == unended
        for id, deed in self.world.deeds.items():
            wanted = deed.cancel or deed.state is OperationState.CANCELLED
            assert self.store.works.cancel_wanted(id) is wanted or deed.ended

    # --- parts

    def _some_row(self, data: st.DataObject) -> Instance | None:
        rows = sorted(self.world.rows.values(), key=lambda row: row.id)
        return data.draw(st.sampled_from(rows)) if rows else None

    def _submit(self, plan: Plan, kind: str, instance: InstanceId, fits: bool) -> OperationId:
        self.number += 1
        id = OperationId(f"op-{self.number}")
        (answer,) = self.do(self.store.works.submit([submission(plan, id, key=f"k{self.number}")]))
        assert isinstance(answer, Operation if fits else Stale), answer
        if fits:
            self.world.deeds[id] = Deed(kind, instance, f"k{self.number}")
        return id


def _lives(count: int, steps: int) -> settings:
    return settings(
        max_examples=count, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


class FamilyMachine(StoreMachine):
    """With parents."""

    @rule(
        target=StoreMachine.operations,
        places=st.lists(st.tuples(st.sampled_from(_NAMES), _SLOTS, _SLOTS), min_size=1, max_size=3),
    )
    def launches_several(self, places: list[tuple[str, int, int]]) -> MultipleResults[OperationId]:
        """With one that was refused before; all of the others, or none."""
        first = self.number + 1
        self.number += len(places) + 1
        machines = [
            Machine(number=first + i, name=name, address=f"10.1.1.{address}", slot=slot)
            for i, (name, address, slot) in enumerate(places)
        ]
        id, key = OperationId(f"op-{self.number}-parent"), f"k{self.number}"
        wish = submission(several(*machines, refused=("no luck",)), id, key=key)
        fits = self.world.fits(*machines)
        (answer,) = self.do(self.store.works.submit([wish]))
        assert isinstance(answer, Operation if fits else Stale), answer
        assert self.do(self.store.works.submit([wish])) == (answer,), "as before"
        if not fits:
            assert self.do(self.store.journal.children(id)) == ()
            return multiple()
        children = tuple(OperationId(f"op-{machine.number}") for machine in machines)
        self.world.families[id] = Family(children, 1, key)
        for child, machine in zip(children, machines, strict=True):
            self.world.begin(machine)
            self.world.deeds[child] = Deed("launch", machine.instance, key="")
        return multiple(*children)

    @rule(data=st.data())
    def cancels_several(self, data: st.DataObject) -> None:
        if not self.world.families:
            return
        id = data.draw(st.sampled_from(sorted(self.world.families)))
        found = self.do(self.store.works.cancel(id))
        assert found is not None
        family = self.world.families[id]
        family.cancel = family.cancel or not found.state.ended
        assert found.cancel_wanted is family.cancel
        for child in family.children:
            deed = self.world.deeds[child]
            if not deed.ended and deed.state is not OperationState.UNDOING:
                deed.cancel = True

    @invariant()
    def parents_are_what_their_children_are(self) -> None:
        for id, family in self.world.families.items():
            found = self.do(self.store.journal.operation(id))
            assert found is not None
            ended = [deed.ended for child in family.children if (deed := self.world.deeds[child])]
            state = OperationState.FAILED if all(ended) else OperationState.RUNNING
            assert (found.state, found.done, found.steps) == (state, sum(ended) + family.refused, len(ended) + 1)
            assert tuple(child.id for child in self.do(self.store.journal.children(id))) == family.children


class LongMachine(FamilyMachine):
    """The same, for longer."""


FamilyMachine.TestCase.settings = _lives(5, 25)
LongMachine.TestCase.settings = _lives(50, 50)
TestStore = FamilyMachine.TestCase
TestLongLives = pytest.mark.slow(LongMachine.TestCase)
