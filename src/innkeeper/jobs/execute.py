"""The one match that turns a step of a plan into an order to a host.

An order carries all that its host needs. What must be as of now, and not as of planning, joins here: the whole
wanted state of a network, projected from the newest picture.
"""

from __future__ import annotations

from dataclasses import replace

from innkeeper.model.actions import Action, ApplyNetwork, ConvergeNetwork
from innkeeper.model.cluster import Cluster
from innkeeper.model.plans import NoUndo, Step
from innkeeper.model.work import Operation, Order
from innkeeper.plan.network import network_wanted


def order_for(cluster: Cluster, operation: Operation, number: int, step: Step) -> Order | None:
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
    return _as_of_now(cluster, order, step.action)


def undo_for(cluster: Cluster, operation: Operation, number: int, step: Step) -> Order | None:
    """The order that undoes a step; None when it leaves nothing to undo."""
    if isinstance(step.undo, NoUndo):
        return None
    order = order_for(cluster, operation, number, replace(step, action=step.undo))
    return None if order is None else replace(order, undo=True)


def _as_of_now(cluster: Cluster, order: Order, action: Action) -> Order | None:
    match action:
        case ConvergeNetwork(network=network):
            wanted = network_wanted(cluster, order.host, network)
            if wanted is None:
                return None
            return replace(order, action=ApplyNetwork(wanted=wanted), generation=wanted.generation)
        case _:
            return order
