"""Routes of instances: looking, launching, renaming, deleting.

Annotations are evaluated at once in files of routes (no __future__ import): FastAPI reads them, and they name local
values.
"""

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime

from innkeeper.api import schemas
from innkeeper.api.answers import ACCEPTED, SHOWN, accepted, plainly, shown
from innkeeper.api.asked import Asked, granted
from innkeeper.api.pages import Paged
from innkeeper.api.problems import invalid
from innkeeper.api.shown import STATUSES, instance_out, metric_out, plan_out, rates_out, status_of
from innkeeper.control.instances import Instances
from innkeeper.control.launching import Launching, LaunchOrder
from innkeeper.control.monitor import Monitor
from innkeeper.control.submit import Asking
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.model.instance import FirstBoot
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.ports.store import Pictures

Since = Annotated[AwareDatetime | None, Query(description="five-minute spans from this moment on")]
WithLabels = Annotated[list[str] | None, Query(description="only those with this label, KEY=VALUE; may be repeated")]
OfStatus = Annotated[str | None, Query(description="only those that are so, such as `running`")]
Force = Annotated[bool, Query(description="as it runs, and over the head of any operation that holds it")]


def routes(asked: Asked, pictures: Pictures, instances: Instances, launching: Launching, monitor: Monitor) -> APIRouter:
    router = APIRouter(prefix="/v1/instances", tags=["instances"])
    _reading(router, asked, pictures, instances, monitor)
    _launching(router, asked, pictures, launching, monitor)
    _changing(router, asked, instances)
    return router


def _reading(router: APIRouter, asked: Asked, pictures: Pictures, instances: Instances, monitor: Monitor) -> None:
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    OfProject = Annotated[ProjectId, Depends(asked.project)]

    @router.get("", response_model=schemas.Instances)
    async def list_instances(
        who: WhoAsks, project: OfProject, page: Paged, label: WithLabels = None, status: OfStatus = None
    ) -> Any:
        """By name, those being launched or deleted too."""
        cluster, labels = pictures.cluster(), _labels(label or [])
        if status not in (None, *STATUSES):
            raise invalid(f"no instance is ever {status}", f"One of: {', '.join(STATUSES)}")
        found = [i for i in granted(instances.all(who, project)) if labels.items() <= dict(i.labels).items()]
        if status is not None:
            found = [i for i in found if status_of(cluster, i) == status]
        items, after = page.of(found, lambda i: (i.name,))
        return plainly(schemas.Instances(items=[instance_out(cluster, i, monitor) for i in items], next=after))

    @router.get("/{word}", response_model=schemas.InstanceOut, responses=SHOWN)
    async def show_instance(word: str, who: WhoAsks, project: OfProject, request: Request) -> Any:
        instance = granted(instances.find(who, project, word))
        return shown(request, instance_out(pictures.cluster(), instance, monitor), instance.generation)

    @router.get("/{word}/metrics", response_model=schemas.MetricsOut)
    async def instance_metrics(word: str, who: WhoAsks, project: OfProject, since: Since = None) -> Any:
        """What it used: the last hour in spans of 10 s, two weeks in spans of 5 minutes."""
        instance = granted(instances.find(who, project, word))
        kept = await monitor.kept(instance.id, 0 if since is None else int(since.timestamp()))
        recent = [r for r in map(rates_out, monitor.ring(instance.id)) if r is not None]
        return plainly(schemas.MetricsOut(recent=recent, kept=[metric_out(k) for k in kept]))


def _launching(router: APIRouter, asked: Asked, pictures: Pictures, launching: Launching, monitor: Monitor) -> None:
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    Ask = Annotated[Asking, Depends(asked.asking)]

    @router.post("", **_or_plans(ACCEPTED))
    async def launch(body: schemas.LaunchBody, who: WhoAsks, asking: Ask) -> Response:
        """One or several instances. With `dry_run` the plans that would be carried out, and nothing is done."""
        order = _order(body)
        if not body.dry_run:
            return accepted(await launching.launch(who, order, asking))
        cluster = pictures.cluster()
        plans = granted(await launching.rehearse(who, asking.project, order, asking.at))
        return plainly(schemas.Plans(items=[plan_out(p, cluster, monitor) for p in plans]))


def _changing(router: APIRouter, asked: Asked, instances: Instances) -> None:
    WhoAsks = Annotated[Principal, Depends(asked.who)]
    Ask = Annotated[Asking, Depends(asked.asking)]

    @router.patch("/{word}", **ACCEPTED)
    async def rename(word: str, body: schemas.RenameBody, who: WhoAsks, asking: Ask) -> Response:
        return accepted(await instances.rename(who, word, body.name, asking))

    @router.delete("/{word}", **ACCEPTED)
    async def delete(word: str, who: WhoAsks, asking: Ask, force: Force = False) -> Response:
        return accepted(await instances.delete(who, word, asking, force=force))


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = dict[str, str]()
    for pair in pairs:
        key, given, value = pair.partition("=")
        if not key or not given:
            raise invalid(f"label {pair!r} has no key and value", "For example: label=team=blue")
        labels[key] = value
    return labels


def _or_plans(accepted: dict[str, Any]) -> dict[str, Any]:
    plans = {200: {"model": schemas.Plans, "description": "With `dry_run`: what would be done"}}
    return {**accepted, "responses": {**accepted["responses"], **plans}}


def _order(body: schemas.LaunchBody) -> LaunchOrder:
    """A body as the use case wants it."""
    if (body.template is None) == (body.snapshot is None):
        said = (
            "neither template nor snapshot was given" if body.template is None else "template and snapshot were given"
        )
        hint = "Give one of them: a template as NAME, or a snapshot as INSTANCE/NAME"
        raise invalid(f"{said}, and an instance is made from one of them", hint)
    wish = LaunchWish(
        template=body.template or "",
        snapshot=body.snapshot,
        name=body.name,
        size=body.size,
        vcpus=body.vcpus,
        memory_mib=body.memory_mib,
        disk_gib=body.disk_gib,
        network=body.network,
        start=body.start,
        autostart=body.autostart,
        cold=body.cold,
        warms=body.warms,
        ephemeral=body.ephemeral,
        ttl_s=body.ttl_s,
        first_boot=FirstBoot(ssh_keys=tuple(body.ssh_keys)),
        labels=body.labels,
    )
    return LaunchOrder(wish=wish, user_data=_user_data(body), count=body.count, all_or_none=body.all_or_none)


def _user_data(body: schemas.LaunchBody) -> bytes | None:
    if body.user_data_base64 is None:
        return None if body.user_data is None else body.user_data.encode()
    if body.user_data is not None:
        raise invalid("user_data and user_data_base64 were both given", "Give one of them")
    try:
        return base64.b64decode(body.user_data_base64, validate=True)
    except binascii.Error as error:
        raise invalid(f"user_data_base64 is no base64: {error}", "Text goes into user_data as it is") from error
