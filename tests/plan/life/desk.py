"""The store's own rules for accepting and ending plans, without its database: for races between planners."""

from __future__ import annotations

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import OperationId
from innkeeper.model.plans import Plan
from innkeeper.model.work import Moment, Operation, OperationState, Record, Stale, Submission
from innkeeper.store.work.record import record
from innkeeper.store.work.standing import Draft, Standing
from innkeeper.store.work.submit import submit
from tests.plan.clusters import MINE, NOW


class Desk:
    """Where plans are handed in. Claims and generations are checked as in the store's transaction."""

    def __init__(self, cluster: Cluster) -> None:
        self._draft = Draft(Standing(cluster=cluster), {})
        self._count = 0

    @property
    def cluster(self) -> Cluster:
        return self._draft.cluster

    def hand_in(self, plan: Plan) -> Operation | Stale:
        self._count += 1
        id = OperationId(f"op-{self._count:012x}")
        (answer,) = submit(self._draft, [Submission(operation=id, project=MINE, principal="root", at=NOW, plan=plan)])
        return answer

    def accept(self, plan: Plan) -> OperationId:
        answer = self.hand_in(plan)
        assert isinstance(answer, Operation), answer
        return answer.id

    def turn_back(self, id: OperationId) -> bool:
        return self._record(id, Moment.UNDO_BEGUN, OperationState.UNDOING)

    def succeed(self, id: OperationId) -> bool:
        return self._record(id, Moment.ENDED, OperationState.SUCCEEDED)

    def fail(self, id: OperationId) -> bool:
        """When all was undone."""
        return self._record(id, Moment.ENDED, OperationState.FAILED)

    def _record(self, id: OperationId, moment: Moment, state: OperationState) -> bool:
        return record(self._draft, Record(operation=id, moment=moment, state=state, done=0, at=NOW))
