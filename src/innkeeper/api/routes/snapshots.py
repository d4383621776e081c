"""Routes of an instance's snapshots. Making another instance from one is a launch (instances.py)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from innkeeper.api import schemas
from innkeeper.api.answers import ACCEPTED, SHOWN, accepted, plainly, shown
from innkeeper.api.asked import Asked, granted
from innkeeper.api.pages import Key, Paged
from innkeeper.api.shown import snapshot_out
from innkeeper.control.snapshots import Snapshots
from innkeeper.control.submit import Asking
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.model.instance import Snapshot
from innkeeper.ports.store import Pictures

Called = schemas.SnapshotBody | None
How = schemas.RestoreBody | None


def routes(asked: Asked, pictures: Pictures, snapshots: Snapshots) -> APIRouter:
    router = APIRouter(prefix="/v1/instances/{word}/snapshots", tags=["snapshots"])
    _reading(router, asked, pictures, snapshots)
    _changing(router, asked, snapshots)
    return router


def _reading(router: APIRouter, asked: Asked, pictures: Pictures, snapshots: Snapshots) -> None:
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    OfProject = Annotated[ProjectId, Depends(asked.project)]

    @router.get("", response_model=schemas.Snapshots)
    async def list_snapshots(word: str, who: WhoAsks, project: OfProject, page: Paged) -> Any:
        """Oldest first, those being taken too."""
        items, after = page.of(granted(snapshots.list(who, project, word)), _by_age)
        return plainly(schemas.Snapshots(items=[snapshot_out(pictures.cluster(), s) for s in items], next=after))

    @router.get("/{snapshot}", response_model=schemas.SnapshotOut, responses=SHOWN)
    async def show_snapshot(word: str, snapshot: str, who: WhoAsks, project: OfProject, request: Request) -> Any:
        """By name, or id."""
        found = granted(snapshots.find(who, project, word, snapshot))
        return shown(request, snapshot_out(pictures.cluster(), found), found.generation)


def _changing(router: APIRouter, asked: Asked, snapshots: Snapshots) -> None:
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    Ask = Annotated[Asking, Depends(asked.asking)]

    @router.post("", **ACCEPTED)
    async def take_snapshot(word: str, who: WhoAsks, asking: Ask, body: Called = None) -> Response:
        """The instance runs on, or is off. Its disks alone: memory is not part of it."""
        return accepted(await snapshots.take(who, word, None if body is None else body.name, asking))

    @router.post("/{snapshot}/restore", **ACCEPTED)
    async def restore_snapshot(word: str, snapshot: str, who: WhoAsks, asking: Ask, body: How = None) -> Response:
        """What the instance has written since is dropped. One that runs is refused, unless it may be restarted."""
        how = body or schemas.RestoreBody()
        return accepted(await snapshots.restore(who, word, snapshot, asking, restart=how.restart))

    @router.delete("/{snapshot}", **ACCEPTED)
    async def delete_snapshot(word: str, snapshot: str, who: WhoAsks, asking: Ask) -> Response:
        """What stands over it stays whole."""
        return accepted(await snapshots.delete(who, word, snapshot, asking))


def _by_age(snapshot: Snapshot) -> Key:
    """A cursor holds whole numbers and words."""
    return round(snapshot.created_at * 1_000_000), snapshot.id
