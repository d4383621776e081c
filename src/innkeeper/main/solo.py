"""One machine: a local host put together from its drivers, with what it found out about itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from innkeeper.agent.facts import Found, look
from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.kept.records import Records
from innkeeper.agent.local import Body, LocalHost
from innkeeper.agent.orders.baking import Baking, Oven
from innkeeper.agent.orders.carrying import Hands
from innkeeper.agent.orders.disks import Disks
from innkeeper.agent.orders.networks import Networks
from innkeeper.agent.orders.snapshots import Snapshots
from innkeeper.agent.orders.starting import Disks as Pool
from innkeeper.agent.orders.starting import HostWays, Starting
from innkeeper.agent.orders.templates import Templates as TemplateWork
from innkeeper.agent.watching.machines import Machines
from innkeeper.agent.watching.roster import Roster
from innkeeper.agent.watching.sampler import EVERY_S, Sampler
from innkeeper.drivers.confine.hand import Launcher, unable
from innkeeper.drivers.linuxnet.hand import LinuxNet
from innkeeper.drivers.linuxnet.probe import probe as network_problems
from innkeeper.drivers.linuxnet.settings import NetSettings
from innkeeper.drivers.memory.faults import MemoryFault
from innkeeper.drivers.memory.hand import Memories
from innkeeper.drivers.metadata.hand import SeedFailed, Seeds
from innkeeper.drivers.qcow2.convert import Converter
from innkeeper.drivers.qcow2.faults import PoolFault
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.layers.frozen import Frozen
from innkeeper.drivers.qcow2.places import Places
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.drivers.qemu.probe.kvm import Acceleration, acceleration
from innkeeper.drivers.qemu.probe.version import QemuFacts, QemuUnusable, probe_qemu
from innkeeper.drivers.qemu.start import UefiFiles
from innkeeper.main.place import CannotServe, Place
from innkeeper.model.ids import InstanceId, Kind, Ref, SecretRef
from innkeeper.ports.launcher import LauncherGone, SpawnFailed
from innkeeper.ports.tasks import steady

log = logging.getLogger(__name__)

QEMU = "qemu-system-x86_64"
UEFI = UefiFiles(code=Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), variables=Path("/usr/share/OVMF/OVMF_VARS_4M.fd"))

Redeem = Callable[[SecretRef], Awaitable[bytes]]


class _Leaving(Exception):
    """Ends all tasks of the host: leaving is as good as kill -9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the host works with. `redeem` fetches a secret."""

    redeem: Redeem
    net: LinuxNet
    launcher: Launcher


@contextlib.asynccontextmanager
async def local_host(
    place: Place, redeem: Redeem, net: LinuxNet, *, sample_every_s: float = EVERY_S
) -> AsyncIterator[LocalHost]:
    """This machine as a host, its machines found again. Leaving it leaves them running.

    Raises:
        CannotServe: QEMU is missing or too old, we may not start it, or the data directory cannot be used.
    """
    if (why := unable()) is not None:
        raise CannotServe(why)
    launcher = Launcher()
    try:
        hypervisor = await _hypervisor(place, launcher)
        async with asyncio.TaskGroup() as group:
            try:
                body = await _body(place, hypervisor, Means(redeem=redeem, net=net, launcher=launcher), group)
            except (PoolFault, MemoryFault, SeedFailed, OSError) as error:
                raise _unusable(place, error) from error
            roster = body.hands.roster
            try:
                await body.hands.machines.find_again()
                host = LocalHost(place.host_id(), body, group)
                sampler = Sampler(roster, net, body.outbox, body.hands.networks)
                group.create_task(steady("sampling", lambda: sampler.run(sample_every_s)), name="samples")
                yield host
            finally:
                await roster.close()
            raise _Leaving
    except* _Leaving:
        log.debug("tasks of this host have ended; its machines run on")
    finally:
        launcher.close()


def net_settings(place: Place) -> NetSettings:
    return NetSettings(tag=place.tag, state_dir=place.volatile)


async def _hypervisor(place: Place, launcher: Launcher) -> tuple[QemuFacts, Acceleration]:
    try:
        await launcher.start()
        qemu = await probe_qemu(shutil.which(QEMU) or QEMU)
        speed = await acceleration(qemu, launcher, place.users.prover, place.data / "kvm.json")
    except (QemuUnusable, SpawnFailed, LauncherGone) as unusable:
        raise CannotServe(str(unusable)) from unusable
    except OSError as error:
        raise CannotServe(f"QEMU cannot be tried out here: {error}") from error
    log.info("QEMU %s, %s: %s", qemu.text, speed.kind.value, speed.reason)
    return qemu, speed


def _unusable(place: Place, error: Exception) -> CannotServe:
    return CannotServe(f"the data directory {place.data} cannot be used: {error}")


async def _body(
    place: Place, hypervisor: tuple[QemuFacts, Acceleration], means: Means, group: asyncio.TaskGroup
) -> Body:
    """The host's parts, and its pool in order."""
    qemu, speed = hypervisor
    pool, seeds = await _pool(place)
    memories = await _memories(place)
    outbox, records = Outbox(place.data / "agent" / "seq"), Records(place.data / "agent" / "records")
    machines_root = place.data / "machines"

    def obeyed(instance: InstanceId) -> int:
        return records.of(Ref(Kind.INSTANCE, instance)).generation

    roster = Roster(place.host_id(), outbox, group)
    machines = Machines(roster, machines_root, means.launcher, group, obeyed)
    ways = HostWays(
        binary=qemu.binary,
        accelerator=speed.kind,
        groups=speed.groups,
        users=place.users,
        uefi=UEFI,
        seeds=place.data / "seeds",
    )
    oven = Oven(root=place.data / "baking", ways=ways, pool=pool, net=means.net, launcher=means.launcher)
    baking = Baking(oven, memories, Frozen(place.data / "pool"))
    await baking.prepare()
    hands = Hands(
        roster=roster,
        machines=machines,
        starting=Starting(ways, pool, means.net, machines, memories),
        baking=baking,
        disks=Disks(pool.volumes, pool.templates, seeds, place.users, means.redeem),
        snapshots=Snapshots(pool.places, Frozen(place.data / "pool"), machines, roster),
        networks=Networks(means.net, place.data / "agent" / "networks"),
        templates=TemplateWork(
            pool.templates, Converter(place.data / "pool", place.users.converter), place.data / "workshop"
        ),
    )
    found = Found(
        accelerator=speed.kind.value,
        accelerator_reason=speed.reason,
        qemu_version=qemu.text,
        machine_type=qemu.machine_type,
        problems=network_problems(net_settings(place)),
    )
    return Body(
        hands=hands,
        records=records,
        outbox=outbox,
        facts=lambda: look(found, place.data / "pool"),
        machines=machines_root,
    )


async def _memories(place: Place) -> Memories:
    memories = Memories(place.data / "pool")
    await memories.prepare()
    await memories.clean_staging()
    return memories


async def _pool(place: Place) -> tuple[Pool, Seeds]:
    """The drivers of disks, and the pool without what an earlier life of ours left half-made."""
    root = place.data / "pool"
    pool = Pool(places=Places(root), volumes=Volumes(root), templates=Templates(root))
    seeds = Seeds(place.data / "seeds")
    for part in (pool.volumes, pool.templates, seeds):
        await part.prepare()
    await pool.templates.clean_staging()
    return pool, seeds
