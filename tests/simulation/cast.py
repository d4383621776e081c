"""A small simulated host, and the orders that make machines on it."""

from __future__ import annotations

import itertools

from innkeeper.model.actions import (
    Action,
    ApplyNetwork,
    CreateDisk,
    SeedCard,
    StartMachine,
    WriteSeed,
)
from innkeeper.model.hardware import Channels, Disk, Firmware, Hardware, NetworkCard, RandomSource, SeedDisk
from innkeeper.model.ids import (
    HostId,
    InstanceId,
    Kind,
    NetworkId,
    NicId,
    OperationId,
    ProjectId,
    Ref,
    SecretRef,
    TemplateId,
    VolumeId,
)
from innkeeper.model.network import Network, NetworkWanted, Port
from innkeeper.model.work import Order
from innkeeper.sim.state import SimState, sim_facts

HOST = HostId("h1")
TINY = TemplateId("t-tiny")
NETWORK = Network(
    id=NetworkId("net-1"),
    project=ProjectId("p-1"),
    name="default",
    cidr="10.1.0.0/16",
    gateway="10.1.0.1",
    domain="inn.internal",
)
_operations = itertools.count(1)


def order(action: Action, about: Ref, generation: int = 1) -> Order:
    """A new order each time."""
    operation = OperationId(f"op-{next(_operations)}")
    return Order(operation=operation, step=0, undo=False, host=HOST, about=about, generation=generation, action=action)


class Cast:
    """The n-th instance, and the orders that make it."""

    def __init__(self, number: int, memory_mib: int = 1024) -> None:
        self.number = number
        self.name = f"m{number}"
        self.instance = InstanceId(f"i-{number}")
        self.volume = VolumeId(f"vol-{number}")
        self.nic = NicId(f"nic-{number}")
        self.mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        self.address = f"10.1.{1 + number // 250}.{number % 250 + 2}"
        self.ref = Ref(Kind.INSTANCE, self.instance)
        self.memory_mib = memory_mib

    def port(self) -> Port:
        return Port(
            nic=self.nic,
            instance=self.instance,
            hostname=self.name,
            mac=self.mac,
            addresses=(self.address,),
            uid_slot=self.number,
        )

    def disk(self, size_gib: int = 10) -> Order:
        action = CreateDisk(volume=self.volume, template=TINY, size_gib=size_gib, uid_slot=self.number)
        return order(action, Ref(Kind.VOLUME, self.volume))

    def seed(self, user_data: SecretRef | None = None) -> Order:
        card = SeedCard(mac=self.mac, addresses=(f"{self.address}/16",), gateway=None, dns=(), mtu=1500)
        action = WriteSeed(
            instance=self.instance, hostname=self.name, domain="x", ssh_keys=(), user_data=user_data, cards=(card,)
        )
        return order(action, self.ref)

    def start_action(self) -> StartMachine:
        hardware = Hardware(
            machine="pc-q35-7.2",
            cpu_model="host",
            firmware=Firmware.DIRECT,
            vcpus=1,
            memory_mib=self.memory_mib,
            devices=(
                Channels(slot=1),
                RandomSource(slot=2),
                Disk(slot=3, volume=self.volume),
                SeedDisk(slot=4),
                NetworkCard(slot=5, nic=self.nic, network=NETWORK.id, mac=self.mac),
            ),
        )
        return StartMachine(
            instance=self.instance,
            name=self.name,
            template=TINY,
            hardware=hardware,
            kernel_args="quiet",
            uid_slot=self.number,
        )

    def start(self, generation: int = 1) -> Order:
        return order(self.start_action(), self.ref, generation)

    def parts(self) -> tuple[Order, ...]:
        return (self.disk(), self.seed(), network(1, self), self.start())


def network(generation: int, *guests: Cast, absent: bool = False) -> Order:
    wanted = NetworkWanted(network=NETWORK, generation=generation, ports=tuple(g.port() for g in guests))
    return order(ApplyNetwork(wanted=wanted, absent=absent), Ref(Kind.NETWORK, NETWORK.id), generation)


def small_state() -> SimState:
    """8 GiB of memory and a pool of 20 GiB."""
    state = SimState(HOST, sim_facts(4, 8192, 20), sample_every_s=0)
    state.add_template(TINY)
    return state
