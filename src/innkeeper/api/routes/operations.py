"""Routes of operations."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from innkeeper.api import schemas
from innkeeper.api.answers import ACCEPTED, SHOWN, accepted, plainly, shown
from innkeeper.api.asked import WAIT_MOST_S, Asked, granted
from innkeeper.api.pages import MOST
from innkeeper.api.shown import operation_out, steps_out
from innkeeper.control.operations import Operations
from innkeeper.control.submit import Asking
from innkeeper.control.watch import Watch
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.model.work import Operation
from innkeeper.ports.store import Pictures

Cursor = Annotated[int | None, Query(ge=0, le=1 << 62, description="`next` of the page before")]
Parent = Annotated[str | None, Query(description="id of an operation")]
Limit = Annotated[int, Query(ge=1, le=MOST)]
Timeout = Annotated[float, Query(ge=0, le=WAIT_MOST_S, allow_inf_nan=False, description="seconds")]


class _WithProgress:
    """An operation with how far it is."""

    def __init__(self, operations: Operations, watch: Watch) -> None:
        self._operations = operations
        self._watch = watch

    def __call__(self, operation: Operation) -> schemas.OperationOut:
        progress = None if operation.state.ended else self._watch.progress(operation.id, operation.done)
        if progress is None:
            return operation_out(operation)
        return operation_out(operation, progress.fraction, progress.words)

    async def with_children(self, operation: Operation) -> schemas.OperationOut:
        answer = self(operation)
        answer.children = [child.id for child in await self._operations.children(operation)]
        return answer


def routes(asked: Asked, pictures: Pictures, operations: Operations, watch: Watch) -> APIRouter:
    router = APIRouter(prefix="/v1/operations", tags=["operations"])
    seen = _WithProgress(operations, watch)
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    OfProject = Annotated[ProjectId, Depends(asked.project)]
    Ask = Annotated[Asking, Depends(asked.asking)]

    @router.get("", response_model=schemas.Operations)
    async def list_operations(
        who: WhoAsks, project: OfProject, cursor: Cursor = None, limit: Limit = 50, parent: Parent = None
    ) -> Any:
        """Newest change first, without the parts of others; with `parent` its parts, all in one page."""
        if parent is not None:
            of = granted(await operations.find(who, project, parent))
            return plainly(schemas.Operations(items=[seen(o) for o in await operations.children(of)]))
        found = granted(await operations.list(who, project, limit, cursor))
        more = str(found[-1].revision) if len(found) == limit else None
        return plainly(schemas.Operations(items=[seen(o) for o in found], next=more))

    @router.get("/{word}", response_model=schemas.OperationOut, responses=SHOWN)
    async def show_operation(word: str, who: WhoAsks, project: OfProject, request: Request) -> Any:
        """With the steps of its plan."""
        found = granted(await operations.find(who, project, word))
        answer = await seen.with_children(found)
        plan = await operations.plan(found)
        if plan is not None:
            answer.plan = steps_out(plan, pictures.cluster(), found)
        return shown(request, answer, found.revision)

    @router.get("/{word}/wait", response_model=schemas.OperationOut)
    async def wait_for_operation(word: str, who: WhoAsks, project: OfProject, timeout_s: Timeout = 30) -> Any:
        """Once it has ended, or as it is when time is up."""
        found = granted(await operations.wait(who, project, word, timeout_s))
        return plainly(await seen.with_children(found))

    @router.post("/{word}/cancel", **ACCEPTED)
    async def cancel(word: str, who: WhoAsks, asking: Ask) -> Response:
        """It stops at its next step and undoes what it did. May be repeated, with or without a key."""
        return accepted(await operations.cancel(who, asking.project, word))

    return router
