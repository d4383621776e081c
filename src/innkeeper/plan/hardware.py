"""The hardware of new machines: which devices there are, and at which places."""

from __future__ import annotations

from innkeeper.model.hardware import (
    Channels,
    Disk,
    Firmware,
    Hardware,
    NetworkCard,
    RandomSource,
    RootPort,
    SeedDisk,
)
from innkeeper.model.host import HostFacts
from innkeeper.model.ids import NetworkId, NicId, VolumeId
from innkeeper.model.instance import Size

# Places on the root bus. Sockets for later devices come last, so that adding more of them moves nothing.
_SLOT_CHANNELS, _SLOT_RANDOM, _SLOT_ROOT, _SLOT_SEED, _SLOT_NIC, _SLOT_SOCKETS = 1, 2, 3, 4, 5, 16
_SOCKETS = 4
Card = tuple[NicId, NetworkId, str]  # with its MAC


def new_hardware(facts: HostFacts, firmware: Firmware, size: Size, volume: VolumeId, card: Card) -> Hardware:
    """Of a machine with one disk and one card."""
    nic, network, mac = card
    sockets = tuple(RootPort(slot=_SLOT_SOCKETS + i, chassis=i + 1) for i in range(_SOCKETS))
    return Hardware(
        machine=facts.machine_type,
        cpu_model=facts.cpu_model,
        firmware=firmware,
        vcpus=size.vcpus,
        memory_mib=size.memory_mib,
        devices=(
            Channels(slot=_SLOT_CHANNELS),
            RandomSource(slot=_SLOT_RANDOM),
            Disk(slot=_SLOT_ROOT, volume=volume),
            SeedDisk(slot=_SLOT_SEED),
            NetworkCard(slot=_SLOT_NIC, nic=nic, network=network, mac=mac),
            *sockets,
        ),
    )
