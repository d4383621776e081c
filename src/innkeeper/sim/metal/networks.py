"""The networks of a simulated host. A whole wanted state replaces the one before; there are no single changes."""

from __future__ import annotations

from collections.abc import Iterable

from innkeeper.model.actions import ApplyNetwork
from innkeeper.model.hardware import NetworkCard
from innkeeper.model.ids import InstanceId, NetworkId, NicId
from innkeeper.model.network import NetworkWanted, Port
from innkeeper.model.work import Refused


class Networks:
    """Gone with a reboot, as namespaces and taps are."""

    def __init__(self) -> None:
        self.applied: dict[NetworkId, NetworkWanted] = {}
        self._ports: dict[NetworkId, dict[NicId, Port]] = {}

    def apply(self, action: ApplyNetwork, cards: Iterable[tuple[InstanceId, NetworkCard]]) -> Refused | None:
        """`cards` are those of running machines; they are looked at only when a network goes."""
        wanted = action.wanted
        network = wanted.network.id
        before = self.applied.get(network)
        if before is not None and wanted.generation < before.generation:
            stale = f"network {network} is at generation {before.generation}, newer than {wanted.generation}"
            return Refused(reason=stale, hint="Look at the cluster again.", stale=True)
        if action.absent:
            return self._remove(network, cards)
        if before is wanted:
            return None
        ports = {port.nic: port for port in wanted.ports}
        if len({port.mac for port in wanted.ports}) < len(wanted.ports) or len(ports) < len(wanted.ports):
            return Refused(reason=f"network {network} would have one card or MAC address twice")
        self.applied[network] = wanted
        self._ports[network] = ports
        return None

    def _remove(self, network: NetworkId, cards: Iterable[tuple[InstanceId, NetworkCard]]) -> Refused | None:
        user = next((instance for instance, card in cards if card.network == network), None)
        if user is not None:
            return Refused(
                reason=f"network {network} is in use by running machine {user}", hint="Stop the machine first."
            )
        self.applied.pop(network, None)
        self._ports.pop(network, None)
        return None

    def port(self, instance: InstanceId, card: NetworkCard) -> Port | Refused:
        """The tap that waits for this very card."""
        ports = self._ports.get(card.network)
        if ports is None:
            return Refused(reason=f"network {card.network} is not set up on this host, which card {card.nic} needs")
        port = ports.get(card.nic)
        if port is None or port.instance != instance or port.mac != card.mac:
            return Refused(reason=f"network {card.network} has no port for card {card.nic} ({card.mac}) of {instance}")
        return port
