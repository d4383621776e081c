"""Networks of this host, brought to what is wanted: the door to this driver.

One network is converged as a whole, always by the same code. Each pass is one piece of synchronous work in a worker
thread, because namespaces belong to threads; a pass that has begun is seen to its end even when its caller is
cancelled, so that the network's lock tells the truth. Everything can die at any instruction: what stands is found by
looking, never by remembering.

This room keeps no generations and refuses none: that is the caller's.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from innkeeper.drivers.linuxnet import names, render
from innkeeper.drivers.linuxnet.dnsmasq import ServiceFailed, user
from innkeeper.drivers.linuxnet.faults import faults
from innkeeper.drivers.linuxnet.host import ranges
from innkeeper.drivers.linuxnet.host.outside import Outside
from innkeeper.drivers.linuxnet.kernel import taps
from innkeeper.drivers.linuxnet.kernel.nft import NftProcess, NftRefused
from innkeeper.drivers.linuxnet.kernel.rtnl import RtnlRefused
from innkeeper.drivers.linuxnet.places import Places
from innkeeper.drivers.linuxnet.settings import NetFailed, NetSettings, NicCounters
from innkeeper.model.ids import NetworkId, NicId
from innkeeper.model.network import NetworkWanted
from innkeeper.ports.tasks import to_the_end

__all__ = ["LinuxNet", "NetFailed", "NetSettings", "NicCounters"]

_THREADS = 4
_REFUSED = (OSError, RtnlRefused, NftRefused, ServiceFailed)

T = TypeVar("T")


class LinuxNet:
    """Networks in namespaces of their own, under one installation's tag. Needs root. Close it; what it made stays."""

    def __init__(self, settings: NetSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="net")
        self._locks: defaultdict[NetworkId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._opening = asyncio.Lock()
        self._outside: Outside | None = None
        self._nft_process = NftProcess()
        self._places = Places(settings, self._nft_process)

    async def converge(self, wanted: NetworkWanted) -> None:
        """The host's part of this network is exactly this afterwards. May be repeated.

        Raises:
            NetFailed: it is not; what was done so far stays and the next pass goes on from it.
        """
        network = wanted.network
        if wrong := faults(wanted):
            raise NetFailed(f"Network {network.name} cannot be as it is wanted: {'; '.join(wrong)}. Correct and retry.")
        outside = await self._host()
        async with self._locks[network.id]:
            await self._do(f"converge network {network.name}", self._converge, outside, wanted)

    async def remove(self, network: NetworkId) -> None:
        """Nothing of this network remains: no namespace, interface, rule, process or file. May be repeated.

        Raises:
            NetFailed: something remains.
        """
        if not names.is_id(network):
            raise NetFailed(f"{network!r} is no id of a network. Give the id that `inn network list` shows.")
        outside = await self._host()
        async with self._locks[network]:
            await self._do(f"remove network {network}", self._remove, outside, network)

    async def open_tap(self, network: NetworkId, nic: NicId) -> int:
        """A fresh descriptor of this card's tap, for QEMU. The caller closes it.

        Raises:
            NetFailed: the network is not here, the card is not part of it, or another process holds the tap.
        """
        place = self._places.held(network)
        if place is None:
            async with self._locks[network]:
                place = await self._do(f"open the tap of {nic}", self._places.find, network)
        # From here on without the lock: launches do not wait for each other's passes.
        fd = None if place is None else await self._do(f"open the tap of {nic}", place.open_tap, nic)
        if fd is None:
            raise NetFailed(f"Card {nic} has no tap in network {network} on this host. Converge the network first.")
        return fd

    async def open_loose_tap(self) -> int:
        """A fresh descriptor of a tap that leads nowhere, for a guest that is to meet nobody. The caller closes it.

        Nothing of it remains once QEMU has ended and it is closed.

        Raises:
            NetFailed: this machine cannot make one.
        """
        return await self._do("open a tap that leads nowhere", taps.loose)

    async def present(self) -> tuple[NetworkId, ...]:
        """Networks of this installation of which the host has anything, half-made ones included."""
        return await self._do("list networks", self._places.present)

    async def counters(self, network: NetworkId) -> Mapping[NicId, NicCounters]:
        """Of every card that has a tap here. A network that is not here has none."""
        async with self._locks[network]:
            place = await self._do("read counters", self._places.find, network)
            return {} if place is None else await self._do("read counters", place.counters)

    async def ranges_in_use(self) -> tuple[str, ...]:
        """What the host reaches, name servers and our transit included: ranges of networks are chosen apart from it."""
        outside = await self._host()
        survey = await self._do("look at the host's addresses", outside.survey)
        servers = ranges.name_servers_in(self._settings.resolv_conf)
        found = {*ranges.in_use(survey), *map(ranges.host_range, servers), self._settings.transit_cidr}
        return tuple(sorted(found))

    async def close(self) -> None:
        """Lets go of everything, after what was begun has ended; networks and their services go on."""
        await asyncio.to_thread(self._threads.shutdown)
        self._places.close()
        if self._outside is not None:
            self._outside.close()
            self._outside = None
        await asyncio.to_thread(self._nft_process.close)

    # --- in a worker thread

    def _converge(self, outside: Outside, wanted: NetworkWanted) -> None:
        network = wanted.network
        place = self._places.make(network.id)
        place.lay(network, render.inside(self._settings.tag, wanted, self._settings.transit_cidr))
        resolver = None
        if network.nat:
            uplink = outside.uplink(network, place)
            place.lead_out(network, uplink)
            resolver = str(uplink.host.ip)
        else:
            outside.withdraw(network.id)
        place.plug(network, wanted.ports)
        outside.settle()
        folder = self._places.folder(network.id)
        place.serve(wanted, render.guest_service(wanted, resolver, folder, user()))

    def _remove(self, outside: Outside, network: NetworkId) -> None:
        place = self._places.find(network)
        if place is not None:
            place.clear()
        outside.withdraw(network)
        outside.settle()
        self._places.erase(network)

    # --- between the loop and the threads

    async def _host(self) -> Outside:
        async with self._opening:
            if self._outside is None:
                await self._do("look at the host", self._look_outside)
            assert self._outside is not None
            return self._outside

    def _look_outside(self) -> None:
        """Kept at once, so that it is closed also when nobody waits for it any more."""
        self._outside = Outside(self._settings, self._nft_process)

    async def _do(self, what: str, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await to_the_end(functools.partial(work, *arguments), self._threads)
        except _REFUSED as refused:
            raise NetFailed(
                f"Could not {what}: {refused}. What was done stays and the next pass goes on from it; "
                "`inn host show` lists what this host lacks."
            ) from refused
