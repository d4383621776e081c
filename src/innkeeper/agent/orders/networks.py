"""Networks of this host: brought to what is wanted, and kept so.

The newest wanted state of each network is kept in a file, so that a fresh agent, or a pass on the timer, repairs
what a foreign hand or a crash undid without asking anybody. Several wishes that wait for one network become one
pass with the newest.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Container
from pathlib import Path

from innkeeper.agent.faults import CannotObey
from innkeeper.agent.kept.keeping import keep
from innkeeper.drivers.linuxnet.hand import LinuxNet, NetFailed
from innkeeper.model.actions import ApplyNetwork
from innkeeper.model.codec import NotReadable, decode, encode
from innkeeper.model.ids import InstanceId, NetworkId, NicId
from innkeeper.model.network import NetworkWanted

log = logging.getLogger(__name__)


class Networks:
    def __init__(self, net: LinuxNet, root: Path) -> None:
        self._net = net
        self._root = root
        self._newest: dict[NetworkId, NetworkWanted] = {}
        self._applied: dict[NetworkId, int] = {}
        self._locks: defaultdict[NetworkId, asyncio.Lock] = defaultdict(asyncio.Lock)
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def apply(self, action: ApplyNetwork, running: Container[InstanceId]) -> None:
        """What waits while a newer wish comes is fulfilled by the newer.

        Raises:
            CannotObey: a newer wish was fulfilled before, or a running machine uses what is to go.
            NetFailed: it is not as wanted.
        """
        wanted = action.wanted
        known = self._known(wanted.network.id)
        if known is not None and wanted.generation < known.generation:
            newer = f"network {wanted.network.id} is at generation {known.generation}, newer than {wanted.generation}"
            raise CannotObey(newer, "Look at the cluster again", stale=True)
        if action.absent:
            await self._remove(wanted.network.id, running)
        else:
            await self._converge(wanted)

    async def keep(self) -> None:
        """One pass over all networks that this host is to have.

        What fails is logged, and tried again with the next pass.
        """
        for path in sorted(self._root.glob("*.json")):
            network = NetworkId(path.stem)
            async with self._locks[network]:
                newest = self._known(network)
                if newest is None:
                    continue  # removed meanwhile
                try:
                    await self._net.converge(newest)
                except NetFailed as failed:
                    log.error("network %s: %s", newest.network.name, failed)
                    continue
                self._applied[network] = newest.generation
        for network, newest in self._newest.items():
            if not self._path(network).exists():
                self._keep(newest)

    def wanted(self) -> tuple[NetworkId, ...]:
        return tuple(self._newest)

    def cards(self, instance: InstanceId) -> tuple[NicId, ...]:
        """The instance's cards in all networks of this host."""
        return tuple(p.nic for w in self._newest.values() for p in w.ports if p.instance == instance)

    async def present(self) -> tuple[NetworkId, ...]:
        kept = {NetworkId(path.stem) for path in self._root.glob("*.json")}
        return tuple(sorted(kept | set(await self._net.present())))

    def _known(self, network: NetworkId) -> NetworkWanted | None:
        """The newest wish, also of an earlier life."""
        if network not in self._newest and self._path(network).exists():
            wanted = _read(self._path(network))
            if wanted is not None:
                self._newest[network] = wanted
        return self._newest.get(network)

    async def _converge(self, wanted: NetworkWanted) -> None:
        network = wanted.network.id
        self._newest[network] = wanted
        async with self._locks[network]:
            newest = self._newest.get(network)
            if newest is None or self._applied.get(network, -1) >= newest.generation:
                return
            self._keep(newest)
            await self._net.converge(newest)
            self._applied[network] = newest.generation

    async def _remove(self, network: NetworkId, running: Container[InstanceId]) -> None:
        known = self._known(network)
        users = sorted(p.instance for p in known.ports if p.instance in running) if known is not None else ()
        if users:
            raise CannotObey(f"network {network} is in use by running machine {users[0]}", "Stop it first")
        async with self._locks[network]:
            self._path(network).unlink(missing_ok=True)
            self._newest.pop(network, None)
            self._applied.pop(network, None)
            await self._net.remove(network)

    def _path(self, network: NetworkId) -> Path:
        return self._root / f"{network}.json"

    def _keep(self, wanted: NetworkWanted) -> None:
        """On a full disk nothing is kept rather than an older wish, which would take away newer machines' cards."""
        path = self._path(wanted.network.id)
        try:
            keep(path, encode(wanted))
        except OSError as error:
            log.error("the wanted state of network %s cannot be kept: %s", wanted.network.name, error)
            path.unlink(missing_ok=True)


def _read(path: Path) -> NetworkWanted | None:
    try:
        return decode(path.read_text(), NetworkWanted)
    except (NotReadable, FileNotFoundError) as error:
        log.error("the wanted state of network %s is lost (%s); it comes again with the next change", path.stem, error)
        return None
