"""Steps and parts of steps that several verbs share."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
from uuid import UUID, uuid5

from innkeeper.model.actions import Action, Chain, ConvergeNetwork, CreateDisk, SeedCard, StartMachine, WriteSeed
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import InstanceId, Kind, NetworkId, Ref
from innkeeper.model.instance import Instance, Volume
from innkeeper.model.network import Network, Nic
from innkeeper.model.plans import NoUndo, Step
from innkeeper.model.template import Image

LAST = 2**31  # a generation above all that were ever given: what has no row obeys nothing else any more
_MACHINE_IDS = UUID("5f3f2b0a-2f39-4c1c-9a52-1f0f1d6c2c8e")
Card = tuple[Nic, Network]


def step(instance: Instance, about: Ref, action: Action, undo: Action | NoUndo) -> Step:
    """On the instance's host, with its generation: the newest that anything of it has been ordered with."""
    return Step(host=instance.host, about=about, generation=instance.generation, action=action, undo=undo)


def start_action(instance: Instance, image: Image, chains: tuple[Chain, ...]) -> StartMachine:
    """The order that makes QEMU run; the same at launch, at start and after a host's boot."""
    return StartMachine(
        instance=instance.id,
        name=instance.name,
        template=instance.template,
        hardware=instance.hardware,
        kernel_args=None if image.kernel_args is None else f"{image.kernel_args} {_own_names(instance)}",
        uid_slot=instance.uid_slot,
        chains=chains,
    )


def _own_names(instance: Instance) -> str:
    """The machine-id also for disks that were published with another's in /etc/machine-id: machine-id(5),
    systemd.machine_id=. The host name until the guest sets one: a parameter of Linux since 5.19, which an older one
    hands to its init as a variable.
    """
    return f"hostname={instance.name} systemd.machine_id={machine_id(instance.id)}"


def machine_id(instance: InstanceId) -> str:
    """The same with every start, warm or not."""
    return uuid5(_MACHINE_IDS, instance).hex


def disk_action(instance: Instance, volume: Volume) -> CreateDisk:
    """The order that makes an instance's disk, empty over what it stands on."""
    return CreateDisk(
        volume=volume.id,
        template=instance.template,
        size_gib=volume.size_gib,
        uid_slot=instance.uid_slot,
        over=volume.over,
    )


def seed_action(instance: Instance, cards: Iterable[Card]) -> WriteSeed:
    """The seed of an instance, as launch and rename write it. Only the first card leads out and resolves names."""
    held = tuple(cards)
    return WriteSeed(
        instance=instance.id,
        hostname=instance.name,
        domain=held[0][1].domain if held else "",
        ssh_keys=instance.first_boot.ssh_keys,
        user_data=instance.first_boot.user_data,
        cards=tuple(_seed_card(nic, network, first=nic is held[0][0]) for nic, network in held),
    )


def _seed_card(nic: Nic, network: Network, *, first: bool) -> SeedCard:
    prefix = IPv4Network(network.cidr).prefixlen
    return SeedCard(
        mac=nic.mac,
        addresses=tuple(f"{a}/{prefix}" for a in nic.addresses),
        gateway=network.gateway if first else None,
        dns=(network.gateway,) if first else (),
        mtu=network.mtu,
    )


def make(cluster: Cluster, instance: Instance) -> tuple[Step, ...]:
    """All that an instance needs before it can start, made again where it stands already; there is nothing to undo."""
    disks = (step(instance, d.ref, disk_action(instance, d), NoUndo.NOTHING) for d in cluster.disks(instance.id))
    seed = step(instance, instance.ref, seed_action(instance, cards(cluster, instance)), NoUndo.NOTHING)
    return (*disks, seed, *converge(cluster, instance, NoUndo.NOTHING))


def cards(cluster: Cluster, instance: Instance) -> tuple[Card, ...]:
    """An instance's cards with their networks, in the order in which the guest finds them."""
    nics = (cluster.nics[card.nic] for card in instance.hardware.cards())
    return tuple((nic, cluster.networks[nic.network]) for nic in nics)


def converge(cluster: Cluster, instance: Instance, undo: NoUndo | None = None) -> tuple[Step, ...]:
    """One step for each network of an instance. Without `undo`, undoing converges again, to what is wanted by then."""
    networks: dict[NetworkId, None] = dict.fromkeys(nic.network for nic in cluster.cards(instance.id))
    actions = (ConvergeNetwork(network=network) for network in networks)
    return tuple(step(instance, Ref(Kind.NETWORK, a.network), a, undo or a) for a in actions)
