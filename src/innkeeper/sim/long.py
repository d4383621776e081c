"""Long orders: making templates and memory images. Accepted at once, carried out as time passes, asked again how they
stand.

The work belongs to our process, as a subprocess of the real agent does: when the process dies, it is gone and a
half-made directory remains, which the next process sweeps away. The order given again begins anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from innkeeper.model.actions import BakeMemory, BuildTemplate, Chain, ImportTemplate, LongAction, PublishTemplate
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import MemoryImageId, TemplateId
from innkeeper.model.instance import Taken
from innkeeper.model.observed import MemoryState, Report, StepProgress, TemplateState
from innkeeper.model.template import BAKER_SLOT, Baked, Image
from innkeeper.model.work import Accepted, Done, Order, Outcome, Refused
from innkeeper.sim.metal.pool import GIB, MIB
from innkeeper.sim.snapshots import chain_objections
from innkeeper.sim.state import Key, SimState, key_of

_TICKS = 40
_IMPORT_S_PER_GIB = 0.5
_PUBLISH_S_PER_GIB = 2.0
_SETTLES_S = 2.0
_KEPT_SHARE = 3  # of a booted guest's memory, what is not zero: one part of so many


@dataclass(frozen=True, slots=True, kw_only=True)
class _Making:
    """What a job will have made."""

    product: Image | Baked
    duration_s: float


class _Job:
    def __init__(self, order: Order, action: LongAction, making: _Making, at: float) -> None:
        self.order = order
        self.action = action
        self.product = making.product
        self.duration_s = making.duration_s
        self.began_at = at
        self.next_at = at + making.duration_s / _TICKS
        self.outcome: Outcome = Accepted()

    @property
    def staging(self) -> str:
        return f"making-{_made_id(self.action)}"


class LongOrders:
    def __init__(self, state: SimState, tell: Callable[[Report], None]) -> None:
        """Begins with what a fresh process does: sweep away what its predecessor left half-made."""
        self._state = state
        self._tell = tell
        self._jobs: dict[Key, _Job] = {}
        state.pool.being_read.clear()
        for name in tuple(state.pool.staging):
            state.pool.unstage(name)

    def give(self, order: Order, action: LongAction) -> Outcome:
        product = _standing(self._state, action)
        if product is not None:
            return Done(states=(self.state_of(_made_id(action), product),))
        job = self._jobs.get(key_of(order))
        if job is not None:
            return job.outcome
        self.interrupt(_made_id(action))
        making = _examine(self._state, action)
        if isinstance(making, Refused):
            return making
        job = _Job(order, action, making, self._state.clock.monotonic())
        self._jobs[key_of(order)] = job
        if isinstance(action, PublishTemplate):
            self._state.pool.being_read.add(action.volume)
        self._grow(job, 0.0)
        return job.outcome

    def cancel(self, key: Key) -> None:
        job = self._jobs.get(key)
        if job is not None:
            self._fail(job, Refused(reason=f"making {_called(job.action)} was cancelled"))

    def interrupt(self, made: str) -> None:
        """A newer order about this template or memory image has come."""
        for job in self._jobs.values():
            if _made_id(job.action) == made:
                newer = f"making {_called(job.action)} was interrupted by a newer order"
                self._fail(job, Refused(reason=newer, stale=True))

    def next_at(self) -> float | None:
        return min((job.next_at for job in self._under_way()), default=None)

    def tick(self) -> None:
        """Let jobs go on to where they are by now."""
        now = self._state.clock.monotonic()
        for job in self._under_way():
            if now >= job.next_at:
                job.next_at = now + job.duration_s / _TICKS
                self._grow(job, min(1.0, (now - job.began_at) / max(job.duration_s, 1e-9)))

    def state_of(self, made: str, product: Image | Baked) -> TemplateState | MemoryState:
        state = self._state
        state.seq += 1
        if isinstance(product, Baked):
            return MemoryState(memory=MemoryImageId(made), host=state.host, seq=state.seq, baked=product)
        return TemplateState(template=TemplateId(made), host=state.host, seq=state.seq, image=product)

    def staging(self) -> set[str]:
        """Names of half-made directories that somebody is at work in."""
        return {job.staging for job in self._under_way()}

    def _under_way(self) -> list[_Job]:
        return [job for job in self._jobs.values() if isinstance(job.outcome, Accepted)]

    def _grow(self, job: _Job, fraction: float) -> None:
        pool = self._state.pool
        if not pool.stage(job.staging, int(job.product.stored_bytes * fraction)):
            full = f"the pool is full, so {_called(job.action)} could not be finished"
            self._fail(job, Refused(reason=full, hint="Delete disks or templates, or add storage."))
            return
        order = job.order
        words = f"{type(job.action).__name__.removesuffix('Template').removesuffix('Memory').lower()} {fraction:.0%}"
        self._tell(StepProgress(operation=order.operation, step=order.step, fraction=fraction, words=words))
        if fraction >= 1.0:
            _keep(self._state, job.staging, job.action, job.product)
            self._end(job)
            made = self.state_of(_made_id(job.action), job.product)
            job.outcome = Done(states=(made,))
            self._state.obedience.note(order, job.outcome)
            self._tell(made)

    def _fail(self, job: _Job, why: Refused) -> None:
        """What has ended stays as it ended."""
        if isinstance(job.outcome, Accepted):
            self._state.pool.unstage(job.staging)
            self._end(job)
            job.outcome = why

    def _end(self, job: _Job) -> None:
        if isinstance(job.action, PublishTemplate):
            self._state.pool.being_read.discard(job.action.volume)


def _made_id(action: LongAction) -> str:
    return action.memory if isinstance(action, BakeMemory) else action.template


def _called(action: LongAction) -> str:
    return f"{'memory image' if isinstance(action, BakeMemory) else 'template'} {_made_id(action)}"


def _standing(state: SimState, action: LongAction) -> Image | Baked | None:
    if isinstance(action, BakeMemory):
        return state.pool.memories.get(action.memory)
    return state.pool.templates.get(action.template)


def _keep(state: SimState, staging: str, action: LongAction, product: Image | Baked) -> None:
    if isinstance(action, BakeMemory):
        assert isinstance(product, Baked)
        for disk in action.hardware.disks():
            state.pool.begin(disk.volume)
            found = state.pool.disks[disk.volume]
            found.taken = Taken(stored_bytes=found.used_bytes, consistent=True)
        state.pool.keep_memory(staging, action.memory, product)
    else:
        assert isinstance(product, Image)
        state.pool.publish(staging, action.template, product)


def _examine(state: SimState, action: LongAction) -> _Making | Refused:
    match action:
        case BuildTemplate():
            return _examine_build(state, action)
        case ImportTemplate():
            return _examine_import(state, action)
        case PublishTemplate():
            return _examine_publish(state, action)
        case BakeMemory():
            return _examine_bake(state, action)
        case _:
            assert_never(action)


def _digest(template: str) -> str:
    return hashlib.sha256(template.encode()).hexdigest()


def _examine_build(state: SimState, action: BuildTemplate) -> _Making | Refused:
    recipe = state.recipes.get(action.recipe)
    if recipe is None:
        return Refused(reason=f"there is no recipe {action.recipe}", hint=f"Known: {', '.join(sorted(state.recipes))}.")
    return _Making(product=replace(recipe.image, digest=_digest(action.template)), duration_s=recipe.build_s)


def _examine_import(state: SimState, action: ImportTemplate) -> _Making | Refused:
    file = state.files.get(action.path)
    if file is None:
        return Refused(
            reason=f"there is no file {action.path}", hint="Give the path of a file that exists on this host."
        )
    if file.format != action.format:
        return Refused(reason=f"{action.path} is not {action.format}", hint="State the format that it really has.")
    if file.flaw:
        return Refused(
            reason=f"{action.path} is refused: {file.flaw}", hint="Flatten it with `qemu-img convert` first."
        )
    if action.firmware is Firmware.DIRECT:
        return Refused(
            reason=f"{action.path} brings no kernel of its own to start directly", hint="Choose bios or uefi."
        )
    image = Image(
        digest=_digest(action.template),
        virtual_size_bytes=file.virtual_size_bytes,
        stored_bytes=file.stored_bytes,
        firmware=action.firmware,
        agent=True,
        cloud_init=True,
    )
    return _Making(product=image, duration_s=file.virtual_size_bytes / GIB * _IMPORT_S_PER_GIB)


def _examine_publish(state: SimState, action: PublishTemplate) -> _Making | Refused:
    parent = state.pool.templates.get(action.parent)
    disk = state.pool.disks.get(action.volume)
    if action.volume in state.holders or action.instance in state.machines:
        return Refused(reason=f"machine {action.instance} runs, so its disk is not at rest", hint="Stop it first.")
    if disk is None:
        return Refused(reason=f"disk {action.volume} is not on this host")
    if parent is None or disk.made.template != action.parent:
        return Refused(reason=f"disk {action.volume} does not depend on template {action.parent}")
    for refused in chain_objections(state, (Chain(volume=action.volume, below=action.below),)):
        return refused
    image = replace(
        parent,
        digest=_digest(action.template),
        virtual_size_bytes=disk.made.size_gib * GIB,
        stored_bytes=parent.stored_bytes + sum(state.pool.disks[v].used_bytes for v in (action.volume, *action.below)),
    )
    return _Making(product=image, duration_s=image.stored_bytes / GIB * _PUBLISH_S_PER_GIB)


def _examine_bake(state: SimState, action: BakeMemory) -> _Making | Refused:
    template = state.pool.templates.get(action.template)
    if template is None:
        return Refused(reason=f"template {action.template} is not on this host", hint="Build or import it here.")
    for volume in (disk.volume for disk in action.hardware.disks()):
        disk = state.pool.disks.get(volume)
        if disk is None or disk.made.template != action.template or disk.made.uid_slot != BAKER_SLOT:
            return Refused(reason=f"there is no disk {volume} of template {action.template} to boot from")
    if not template.agent or not state.guest.agent:
        return Refused(reason=f"nothing in a guest of template {action.template} answers", hint="Boot its instances.")
    guest = state.guest
    baked = Baked(digest=_digest(action.memory), stored_bytes=action.hardware.memory_mib * MIB // _KEPT_SHARE)
    return _Making(product=baked, duration_s=guest.boot_s + guest.cloud_init_s + _SETTLES_S)
