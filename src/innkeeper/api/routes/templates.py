"""Routes of templates."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from innkeeper.api import schemas
from innkeeper.api.answers import ACCEPTED, SHOWN, accepted, plainly, shown
from innkeeper.api.asked import Asked, granted
from innkeeper.api.pages import Paged
from innkeeper.api.problems import invalid
from innkeeper.api.shown import template_out
from innkeeper.control.submit import Asking
from innkeeper.control.templates import Templates
from innkeeper.model.hardware import Firmware
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.ports.store import Pictures

_FIRMWARES = {f.value: f for f in (Firmware.BIOS, Firmware.UEFI)}


def routes(asked: Asked, pictures: Pictures, templates: Templates) -> APIRouter:
    router = APIRouter(prefix="/v1/templates", tags=["templates"])
    _reading(router, asked, pictures, templates)
    _making(router, asked, templates)
    return router


def _reading(router: APIRouter, asked: Asked, pictures: Pictures, templates: Templates) -> None:
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    OfProject = Annotated[ProjectId, Depends(asked.project)]

    @router.get("", response_model=schemas.Templates)
    async def list_templates(who: WhoAsks, project: OfProject, page: Paged) -> Any:
        """Complete ones, by name and version: everybody's and the project's own."""
        items, after = page.of(granted(templates.list(who, project)), lambda t: (t.name, t.version, t.id))
        return plainly(schemas.Templates(items=[template_out(pictures.cluster(), t) for t in items], next=after))

    @router.get("/{word}", response_model=schemas.TemplateOut, responses=SHOWN)
    async def show_template(word: str, who: WhoAsks, project: OfProject, request: Request) -> Any:
        """By name (its newest version), name:version, or id."""
        template = granted(templates.find(who, project, word))
        return shown(request, template_out(pictures.cluster(), template), template.generation)


def _making(router: APIRouter, asked: Asked, templates: Templates) -> None:
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    Ask = Annotated[Asking, Depends(asked.asking)]

    @router.post("/build", **ACCEPTED)
    async def build(body: schemas.BuildBody, who: WhoAsks, asking: Ask) -> Response:
        """The next version of a catalogue entry."""
        return accepted(await templates.build(who, body.recipe, asking))

    @router.post("/import", **ACCEPTED)
    async def import_template(body: schemas.ImportBody, who: WhoAsks, asking: Ask) -> Response:
        """From a disk image on the daemon's host."""
        firmware = _FIRMWARES.get(body.firmware)
        if firmware is None:
            raise invalid(f"{body.firmware!r} is no firmware", f"Known: {', '.join(_FIRMWARES)}")
        source = (body.path, body.format, firmware)
        return accepted(await templates.import_file(who, body.name, source, asking))

    @router.post("/publish", **ACCEPTED)
    async def publish(body: schemas.PublishBody, who: WhoAsks, asking: Ask) -> Response:
        """From the root disk of a stopped instance."""
        return accepted(await templates.publish(who, body.instance, body.name, asking))

    @router.post("/{word}/warm", **ACCEPTED)
    async def warm_template(word: str, who: WhoAsks, asking: Ask) -> Response:
        """Boot it once and keep its memory, from which launches then go on."""
        return accepted(await templates.warm(who, word, asking))

    @router.delete("/{word}/memory", **ACCEPTED)
    async def delete_memory_images(word: str, who: WhoAsks, asking: Ask) -> Response:
        """Launches boot from then on; what runs keeps what it has."""
        return accepted(await templates.cool(who, word, asking))

    @router.delete("/{word}", **ACCEPTED)
    async def delete_template(word: str, who: WhoAsks, asking: Ask) -> Response:
        return accepted(await templates.delete(who, word, asking))
