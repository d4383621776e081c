"""Routes of what goes on in an instance: waiting for it, what it says of itself, and its log."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from innkeeper.api import schemas
from innkeeper.api.answers import plainly
from innkeeper.api.asked import WAIT_MOST_S, Asked, granted
from innkeeper.api.shown import guest_out, instance_out
from innkeeper.control.lines import Lines
from innkeeper.control.monitor import Monitor
from innkeeper.control.waiting import Until, Waiting
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.ports.store import Pictures

For = Annotated[Until, Query(alias="for")]
Timeout = Annotated[float, Query(ge=0, le=WAIT_MOST_S, allow_inf_nan=False, description="seconds")]


def routes(asked: Asked, pictures: Pictures, monitor: Monitor, lines: Lines, waiting: Waiting) -> APIRouter:
    router = APIRouter(prefix="/v1/instances/{word}", tags=["instances"])
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    OfProject = Annotated[ProjectId, Depends(asked.project)]

    @router.get("/wait", response_model=schemas.InstanceOut | None)
    async def wait(
        word: str, who: WhoAsks, project: OfProject, until: For = Until.AGENT, timeout_s: Timeout = 300
    ) -> Any:
        """The instance once it is so; a problem when it never will be, or is not in time. `null` once it is deleted."""
        instance = granted(await waiting.wait(who, project, word, until, timeout_s))
        return None if instance is None else plainly(instance_out(pictures.cluster(), instance, monitor))

    @router.get("/guest", response_model=schemas.GuestOut)
    async def guest(word: str, who: WhoAsks, project: OfProject) -> Any:
        """What the guest says of itself now."""
        return plainly(guest_out(granted(await lines.guest(who, project, word))))

    @router.get("/log", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def log(word: str, who: WhoAsks, project: OfProject) -> Response:
        """What was said on the serial console, and by QEMU, lately; also of an instance that is down."""
        return Response(granted(await lines.log(who, project, word)), media_type="text/plain; charset=utf-8")

    return router
