"""Routes of the site: the server itself, hosts, networks."""

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from innkeeper.api import schemas
from innkeeper.api.answers import SHOWN, plainly, shown
from innkeeper.api.asked import Asked, granted
from innkeeper.api.pages import Paged
from innkeeper.api.shown import host_out, network_out
from innkeeper.control.site import Site
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.plan.size import NAMED
from innkeeper.plan.template import CATALOGUE
from innkeeper.ports.store import Pictures


def routes(asked: Asked, pictures: Pictures, site: Site) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["site"])
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    OfProject = Annotated[ProjectId, Depends(asked.project)]

    @router.get("", response_model=schemas.ServerOut)
    async def server(who: WhoAsks, project: OfProject) -> Any:
        """The server itself; `revision` is where the feed of events goes on from now."""
        cluster = pictures.cluster()
        return plainly(
            schemas.ServerOut(
                version=version("innkeeper"),
                principal=who.name,
                project=cluster.projects[project].name,
                revision=cluster.revision,
                catalogue=sorted(CATALOGUE),
                sizes=list(NAMED),
            )
        )

    @router.get("/hosts", response_model=schemas.Hosts)
    async def list_hosts(who: WhoAsks, page: Paged) -> Any:
        items, after = page.of(granted(site.hosts(who)), lambda h: (h.name, h.id))
        return plainly(schemas.Hosts(items=[host_out(pictures.cluster(), h) for h in items], next=after))

    @router.get("/hosts/{word}", response_model=schemas.HostOut, responses=SHOWN)
    async def show_host(word: str, who: WhoAsks, request: Request) -> Any:
        host = granted(site.host(who, word))
        return shown(request, host_out(pictures.cluster(), host), host.generation)

    @router.get("/networks", response_model=schemas.Networks)
    async def list_networks(who: WhoAsks, project: OfProject, page: Paged) -> Any:
        items, after = page.of(granted(site.networks(who, project)), lambda n: (n.name,))
        return plainly(schemas.Networks(items=[network_out(pictures.cluster(), n) for n in items], next=after))

    @router.get("/networks/{word}", response_model=schemas.NetworkOut, responses=SHOWN)
    async def show_network(word: str, who: WhoAsks, project: OfProject, request: Request) -> Any:
        network = granted(site.network(who, project, word))
        return shown(request, network_out(pictures.cluster(), network), network.generation)

    return router
