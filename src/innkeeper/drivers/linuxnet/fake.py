"""Networks without a kernel, for tests of whoever uses this driver. As strict as the real one about what is wanted.

Descriptors are real ones (of /dev/null), so that whoever forgets to close them is found out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.faults import faults
from innkeeper.drivers.linuxnet.settings import NetFailed, NicCounters
from innkeeper.model.ids import NetworkId, NicId
from innkeeper.model.network import NetworkWanted

_NOTHING = NicCounters(
    received_bytes=0,
    sent_bytes=0,
    received_packets=0,
    sent_packets=0,
    received_dropped=0,
    sent_dropped=0,
)


class FakeNet:
    """`standing` is what was converged last, by network. `refuse` makes the next call fail with these words."""

    def __init__(self, in_use: tuple[str, ...] = ("192.0.2.0/24",)) -> None:
        self.standing: dict[NetworkId, NetworkWanted] = {}
        self.refuse: str | None = None
        self._in_use = in_use

    async def converge(self, wanted: NetworkWanted) -> None:
        self._refused()
        if wrong := faults(wanted):
            raise NetFailed(f"Network {wanted.network.name} cannot be as it is wanted: {'; '.join(wrong)}.")
        self.standing[wanted.network.id] = wanted

    async def remove(self, network: NetworkId) -> None:
        self._refused()
        if not names.is_id(network):
            raise NetFailed(f"{network!r} is no id of a network.")
        self.standing.pop(network, None)

    async def open_tap(self, network: NetworkId, nic: NicId) -> int:
        self._refused()
        wanted = self.standing.get(network)
        if wanted is None or all(port.nic != nic for port in wanted.ports):
            raise NetFailed(f"Card {nic} has no tap in network {network} on this host. Converge the network first.")
        return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    async def open_loose_tap(self) -> int:
        self._refused()
        return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    async def present(self) -> tuple[NetworkId, ...]:
        return tuple(sorted(self.standing))

    async def counters(self, network: NetworkId) -> Mapping[NicId, NicCounters]:
        wanted = self.standing.get(network)
        return {} if wanted is None else {port.nic: _NOTHING for port in wanted.ports}

    async def ranges_in_use(self) -> tuple[str, ...]:
        return self._in_use

    async def close(self) -> None:
        """Networks go on."""

    def _refused(self) -> None:
        if self.refuse is not None:
            words, self.refuse = self.refuse, None
            raise NetFailed(words)
