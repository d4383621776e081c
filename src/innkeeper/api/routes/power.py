"""Routes of what is done to a standing instance."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from innkeeper.api import schemas
from innkeeper.api.answers import ACCEPTED, accepted
from innkeeper.api.asked import Asked
from innkeeper.control.instances import Instances
from innkeeper.control.submit import Asking
from innkeeper.model.host import Principal

How = schemas.PowerBody | None


def routes(asked: Asked, instances: Instances) -> APIRouter:
    router = APIRouter(prefix="/v1/instances/{word}", tags=["instances"])
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    Ask = Annotated[Asking, Depends(asked.asking)]

    @router.post("/start", **ACCEPTED)
    async def start(word: str, who: WhoAsks, asking: Ask) -> Response:
        return accepted(await instances.start(who, word, asking))

    @router.post("/stop", **ACCEPTED)
    async def stop(word: str, who: WhoAsks, asking: Ask, body: How = None) -> Response:
        """The guest is asked, and forced when its time is up."""
        how = body or schemas.PowerBody()
        return accepted(await instances.stop(who, word, asking, force=how.force, grace_s=how.grace_s))

    @router.post("/restart", **ACCEPTED)
    async def restart(word: str, who: WhoAsks, asking: Ask, body: How = None) -> Response:
        how = body or schemas.PowerBody()
        return accepted(await instances.restart(who, word, asking, force=how.force, grace_s=how.grace_s))

    @router.post("/pause", **ACCEPTED)
    async def pause(word: str, who: WhoAsks, asking: Ask) -> Response:
        """Virtual CPUs stop; memory stays."""
        return accepted(await instances.pause(who, word, asking))

    @router.post("/resume", **ACCEPTED)
    async def resume(word: str, who: WhoAsks, asking: Ask) -> Response:
        """Also after a pause for want of disk space."""
        return accepted(await instances.resume(who, word, asking))

    return router
