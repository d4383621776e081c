"""Trees of snapshots against a model: whatever is taken, restored, copied and deleted, each reads what it should.

Plans are carried out on a simulated host's pool. The model knows texts only: what each instance and each snapshot
holds.
"""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from innkeeper.model.actions import Action, CreateDisk, DeleteDisk, TakeSnapshot
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Draw, InstanceId, Kind, VolumeId
from innkeeper.model.instance import Instance, Snapshot
from innkeeper.model.plans import Plan, Put, Refusal
from innkeeper.model.work import Refused
from innkeeper.plan.delete import delete
from innkeeper.plan.disks.snapshot import delete_snapshot, restore, take
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.launch import launch
from innkeeper.plan.names import find_snapshot
from innkeeper.sim.metal.files import GuestFile
from innkeeper.sim.snapshots import take as take_on_host
from innkeeper.sim.state import SimState
from tests.plan.clusters import H1, IMAGE, MINE, NOW, TINY, a_cluster, same

_NAMES = ("a", "b", "c")
_CHOICE = st.integers(0, 99)


class Site:
    """Rows, and the host that they tell of; plans are carried out at once."""

    def __init__(self) -> None:
        self.cluster = a_cluster()
        self.state = SimState(H1)
        self.state.add_template(TINY, IMAGE)
        self.numbers = itertools.count(1)

    def launch(self, wish: LaunchWish) -> None:
        self.carry_out(launch(self.cluster, MINE, wish, self.draw(), NOW))

    def carry_out(self, plan: Plan | Refusal) -> None:
        assert isinstance(plan, Plan), plan
        self.cluster = self.cluster.after(plan.accept, self.cluster.revision + 1)
        for step in plan.steps:
            self._obey(step.action)
        self.cluster = self.cluster.after(plan.finish, self.cluster.revision + 1)

    def _obey(self, action: Action) -> None:
        match action:
            case CreateDisk():
                refused = self.state.pool.create(action)
            case DeleteDisk():
                refused = self.state.pool.delete(action.volume, None)
            case TakeSnapshot():
                told = take_on_host(self.state, action)
                assert not isinstance(told, Refused), told
                self.cluster, refused = self.cluster.seen(told), None
            case _:
                refused = None  # machines and networks: all are off
        assert refused is None, refused

    def draw(self) -> Draw:
        return Draw(str(next(self.numbers)).encode())

    def instance(self, name: str) -> Instance:
        return self.cluster.instances[InstanceId(self.cluster.named(Kind.INSTANCE, MINE, name) or "")]

    def root(self, name: str) -> VolumeId:
        return self.instance(name).hardware.disks()[0].volume

    def snapshot(self, name: str, word: str) -> Snapshot:
        found = find_snapshot(self.cluster, self.instance(name), word)
        assert isinstance(found, Snapshot), found
        return found

    def stack(self, volume: VolumeId) -> tuple[VolumeId, ...]:
        return (volume, *self.cluster.below(volume))

    def read(self, volume: VolumeId) -> str:
        disks = self.state.pool.disks
        begun = next((v for v in self.stack(volume) if disks[v].begun), None)
        found = None if begun is None else disks[begun].files.get("/note")
        return "" if found is None else found.data.decode()


class Trees(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.site = Site()
        self.holds: dict[str, str] = {}
        self.kept: dict[tuple[str, str], str] = {}

    # --- what may be wished

    @rule(name=st.sampled_from(_NAMES))
    def launch(self, name: str) -> None:
        if name not in self.holds:
            self.site.launch(LaunchWish(template="tiny", name=name, start=False))
            self.holds[name] = ""

    @rule(name=st.sampled_from(_NAMES), text=st.text("xyz", min_size=1, max_size=3))
    def write(self, name: str, text: str) -> None:
        if name in self.holds:
            volume = self.site.root(name)
            self.site.state.pool.begin(volume)
            self.site.state.pool.disks[volume].files["/note"] = GuestFile(mode=0, data=text.encode())
            self.holds[name] = text

    @rule(name=st.sampled_from(_NAMES))
    def snapshot(self, name: str) -> None:
        if name in self.holds:
            word = f"s{next(self.site.numbers)}"
            self.site.carry_out(take(self.site.cluster, self.site.instance(name), word, self.site.draw(), NOW))
            self.kept[name, word] = self.holds[name]

    @precondition(lambda self: self.kept)
    @rule(which=_CHOICE)
    def restore(self, which: int) -> None:
        name, word = self._one(which)
        snapshot = self.site.snapshot(name, word)
        self.site.carry_out(
            restore(self.site.cluster, self.site.instance(name), snapshot, self.site.draw(), restart=False)
        )
        self.holds[name] = self.kept[name, word]

    @precondition(lambda self: self.kept and len(self.holds) < len(_NAMES))
    @rule(which=_CHOICE)
    def copy(self, which: int) -> None:
        name, word = self._one(which)
        new = next(n for n in _NAMES if n not in self.holds)
        self.site.launch(LaunchWish(template="", snapshot=f"{name}/{word}", name=new, start=False))
        self.holds[new] = self.kept[name, word]

    @precondition(lambda self: self.kept)
    @rule(which=_CHOICE)
    def delete_snapshot(self, which: int) -> None:
        name, word = self._one(which)
        self.site.carry_out(delete_snapshot(self.site.cluster, self.site.snapshot(name, word)))
        del self.kept[name, word]

    @rule(name=st.sampled_from(_NAMES))
    def delete(self, name: str) -> None:
        if name in self.holds:
            self.site.carry_out(delete(self.site.cluster, self.site.instance(name), force=True))
            del self.holds[name]
            self.kept = {key: text for key, text in self.kept.items() if key[0] != name}

    # --- what must hold

    @invariant()
    def each_reads_what_it_should(self) -> None:
        assert {name: self.site.read(self.site.root(name)) for name in self.holds} == self.holds
        assert {key: self.site.read(self.site.snapshot(*key).volumes[0]) for key in self.kept} == self.kept

    @invariant()
    def the_pool_holds_exactly_what_the_rows_say(self) -> None:
        rows = {v.id: v.over for v in self.site.cluster.volumes.values()}
        assert {volume: disk.made.over for volume, disk in self.site.state.pool.disks.items()} == rows

    @invariant()
    def every_volume_is_needed(self) -> None:
        needed = {below for name in self.holds for below in self.site.stack(self.site.root(name))}
        needed |= {below for key in self.kept for below in self.site.stack(self.site.snapshot(*key).volumes[0])}
        assert set(self.site.cluster.volumes) == needed

    @invariant()
    def the_indexes_are_those_of_the_rows(self) -> None:
        tables = ("projects", "hosts", "templates", "networks", "instances", "volumes", "nics", "snapshots")
        nouns = [noun for table in tables for noun in getattr(self.site.cluster, table).values()]
        assert same(self.site.cluster, Cluster().after([Put(noun=noun) for noun in nouns], 1))

    def _one(self, which: int) -> tuple[str, str]:
        return sorted(self.kept)[which % len(self.kept)]


TestTrees = Trees.TestCase
TestTrees.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
