"""The namespaces of this installation's networks, named and held open; what the host has of each is found by looking.

Used in worker threads, for one network by one thread at a time.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.dnsmasq import Service
from innkeeper.drivers.linuxnet.inside import Inside
from innkeeper.drivers.linuxnet.kernel import namespaces
from innkeeper.drivers.linuxnet.kernel.namespaces import Space
from innkeeper.drivers.linuxnet.kernel.nft import NftProcess
from innkeeper.drivers.linuxnet.settings import NetSettings
from innkeeper.model.ids import NetworkId

_log = logging.getLogger(__name__)


class Places:
    def __init__(self, settings: NetSettings, nft_process: NftProcess) -> None:
        self._tag, self._nft_process = settings.tag, nft_process
        self._root_netns = settings.root_netns
        self._folders = settings.state_dir / "networks"
        self._open: dict[NetworkId, Inside] = {}

    def close(self) -> None:
        for place in self._open.values():
            place.close()
        self._open.clear()

    def folder(self, network: NetworkId) -> Path:
        return self._folders / network

    def held(self, network: NetworkId) -> Inside | None:
        """The one that is open, unseen whether it still is the network's."""
        return self._open.get(network)

    def make(self, network: NetworkId) -> Inside:
        """The network's namespace, named and open; made if there is none."""
        name = names.namespace(self._tag, network)
        held = self._open.get(network)
        if not namespaces.exists(name):
            # Somebody took the name away, but the namespace may live: our guests' taps are in it.
            if held is not None:
                namespaces.give_name(name, held.space.path)
            else:
                self._name(name, network)
        if held is not None and held.space.inode != os.stat(namespaces.NAMED / name).st_ino:
            self._let_go(network)
            held = None
        if held is None:
            held = Inside(namespaces.named(name), Service(self.folder(network)), self._nft_process)
            self._open[network] = held
        return held

    def find(self, network: NetworkId) -> Inside | None:
        """As `make`, but makes none."""
        name = names.namespace(self._tag, network)
        return self.make(network) if names.is_id(network) and namespaces.exists(name) else None

    def erase(self, network: NetworkId) -> None:
        """Neither service nor files nor namespace. The name goes last: until then `present` tells of it."""
        self._let_go(network)
        Service(self.folder(network)).erase()
        namespaces.drop(names.namespace(self._tag, network))
        if not self.present() and self._folders.exists():
            shutil.rmtree(self._folders, ignore_errors=True)

    def present(self) -> tuple[NetworkId, ...]:
        found = {names.network_of(self._tag, name) for name in namespaces.names()}
        found |= {NetworkId(path.name) for path in self._folders.iterdir()} if self._folders.is_dir() else set()
        return tuple(sorted(network for network in found if network is not None))

    def _name(self, name: str, network: NetworkId) -> None:
        alive = self._served(network)
        if alive is None:
            namespaces.create(name)
            return
        try:
            namespaces.give_name(name, alive.path)
        finally:
            alive.close()

    def _served(self, network: NetworkId) -> Space | None:
        """The namespace in which this network's service still lives, if it can be one that we made.

        All that happens in it is the network's from then on, so it is never the host's, and never another user's.
        """
        space = Service(self.folder(network)).namespace()
        if space is None:
            return None
        if space.is_ours() and space.inode not in self._hosts():
            return space
        _log.error("a service of network %s runs in a namespace that is not the network's; it gets a new one", network)
        space.close()
        return None

    def _hosts(self) -> set[int]:
        """The namespaces that are no network's: the daemon's own, and the one that stands for the host."""
        found = set()
        for name in (None, self._root_netns):
            space = namespaces.named(name)
            found.add(space.inode)
            space.close()
        return found

    def _let_go(self, network: NetworkId) -> None:
        place = self._open.pop(network, None)
        if place is not None:
            place.close()
