"""Counters of every running machine, taken every ten seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.orders.networks import Networks
from innkeeper.agent.watching.roster import Roster
from innkeeper.drivers.linuxnet.hand import LinuxNet, NetFailed, NicCounters
from innkeeper.drivers.qemu import process
from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.qmp import NoAnswer, Rejected
from innkeeper.model.ids import InstanceId, NicId
from innkeeper.model.observed import Sample

log = logging.getLogger(__name__)

EVERY_S = 10.0
_NOTHING = NicCounters(
    received_bytes=0, sent_bytes=0, received_packets=0, sent_packets=0, received_dropped=0, sent_dropped=0
)


class Sampler:
    def __init__(self, roster: Roster, net: LinuxNet, outbox: Outbox, networks: Networks) -> None:
        self._roster = roster
        self._net = net
        self._outbox = outbox
        self._networks = networks

    async def run(self, every_s: float = EVERY_S) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self.take()

    async def take(self) -> None:
        """One sample of each machine that is up. What cannot be read of one machine does not delay the others."""
        machines = self._roster.up()
        if not machines:
            return
        traffic = await self._traffic()
        async with asyncio.TaskGroup() as group:
            for instance, machine in machines.items():
                group.create_task(self._take(instance, machine, traffic))

    async def _take(self, instance: InstanceId, machine: Machine, traffic: Mapping[NicId, NicCounters]) -> None:
        try:
            sample = await self._sample(instance, machine, traffic)
        except (OSError, NoAnswer, Rejected) as gone:
            log.debug("no sample of %s: %s", instance, gone)
            return
        if self._roster.find(instance) is not None:
            self._outbox.put(sample)

    async def _traffic(self) -> Mapping[NicId, NicCounters]:
        counters: dict[NicId, NicCounters] = {}
        for network in self._networks.wanted():
            try:
                counters |= await self._net.counters(network)
            except NetFailed as failed:
                log.warning("no counters of network %s: %s", network, failed)
        return counters

    async def _sample(self, instance: InstanceId, machine: Machine, traffic: Mapping[NicId, NicCounters]) -> Sample:
        pid = machine.record.pid
        disks = (await Disks(machine.monitor).counters()).values()
        # Adding up all its pages takes the kernel a while for a large guest.
        memory_mib = await asyncio.to_thread(_memory_mib, pid)
        cpu_s = process.cpu_s(pid)
        if cpu_s is None:
            raise ProcessLookupError(f"process {pid} has ended")
        cards = [traffic.get(nic, _NOTHING) for nic in self._networks.cards(instance)]
        return Sample(
            instance=instance,
            at=time.time(),
            cpu_s=cpu_s,
            memory_mib=memory_mib,
            disk_read_bytes=sum(d.read_bytes for d in disks),
            disk_written_bytes=sum(d.written_bytes for d in disks),
            net_received_bytes=sum(c.received_bytes for c in cards),
            net_sent_bytes=sum(c.sent_bytes for c in cards),
        )


def _memory_mib(pid: int) -> float:
    """Proportional set size: a page that k processes share counts 1/k."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
