"""The one match that turns a step of a plan into an order to a host.

An order carries all that its host needs. What must be as of now, and not as of planning, joins here: the whole
wanted state of a network, projected from the newest picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from innkeeper.model.actions import Action, ApplyNetwork, ConvergeNetwork
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import HostId, NetworkId
from innkeeper.model.network import NetworkWanted
from innkeeper.model.plans import NoUndo, Step
from innkeeper.model.work import Operation, Order
from innkeeper.plan.network import network_wanted

Project = Callable[[Cluster, HostId, NetworkId], NetworkWanted | None]


class OncePerPicture:
    """`network_wanted`, worked out once for all orders that are made from one picture.

    A projection looks at every port of the network. Launches that are committed together converge together, from the
    same picture, and so share it.
    """

    def __init__(self) -> None:
        self._picture: Cluster | None = None
        self._projected: dict[tuple[HostId, NetworkId], NetworkWanted | None] = {}

    def __call__(self, cluster: Cluster, host: HostId, network: NetworkId) -> NetworkWanted | None:
        if cluster is not self._picture:
            self._picture, self._projected = cluster, {}
        key = (host, network)
        if key not in self._projected:
            self._projected[key] = network_wanted(cluster, host, network)
        return self._projected[key]


def order_for(
    cluster: Cluster, operation: Operation, number: int, step: Step, project: Project = network_wanted
) -> Order | None:
    """The order of a step; None when there is nothing to order any more."""
    order = Order(
        operation=operation.id,
        step=number,
        undo=False,
        host=step.host,
        about=step.about,
        generation=step.generation,
        action=step.action,
    )
    return _as_of_now(cluster, order, step.action, project)


def undo_for(
    cluster: Cluster, operation: Operation, number: int, step: Step, project: Project = network_wanted
) -> Order | None:
    """The order that undoes a step; None when it leaves nothing to undo."""
    if isinstance(step.undo, NoUndo):
        return None
    order = order_for(cluster, operation, number, replace(step, action=step.undo), project)
    return None if order is None else replace(order, undo=True)


def _as_of_now(cluster: Cluster, order: Order, action: Action, project: Project) -> Order | None:
    match action:
        case ConvergeNetwork(network=network):
            wanted = project(cluster, order.host, network)
            if wanted is None:
                return None
            return replace(order, action=ApplyNetwork(wanted=wanted), generation=wanted.generation)
        case _:
            return order
