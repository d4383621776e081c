"""The application: every route, over the use cases it is given."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from fastapi import Depends, FastAPI

from innkeeper.api import openapi, problems
from innkeeper.api.asked import Asked, only_known_queries
from innkeeper.api.limits import LimitedBodies
from innkeeper.api.routes import (
    events,
    guests,
    instances,
    metrics,
    operations,
    power,
    site,
    snapshots,
    streams,
    templates,
)
from innkeeper.control.instances import Instances
from innkeeper.control.launching import Launching
from innkeeper.control.lines import Lines
from innkeeper.control.monitor import Monitor
from innkeeper.control.operations import Operations
from innkeeper.control.site import Site
from innkeeper.control.snapshots import Snapshots
from innkeeper.control.templates import Templates
from innkeeper.control.waiting import Waiting
from innkeeper.control.watch import Watch
from innkeeper.ports.store import Pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What the edges can ask for; each route below receives only what it needs."""

    instances: Instances
    launching: Launching
    snapshots: Snapshots
    templates: Templates
    operations: Operations
    lines: Lines
    waiting: Waiting
    site: Site


def application(asked: Asked, cases: UseCases, pictures: Pictures, monitor: Monitor, watch: Watch) -> FastAPI:
    app = FastAPI(
        title="Innkeeper",
        version=version("innkeeper"),
        summary="A private cloud of VM instances",
        docs_url=None,  # its page loads scripts from elsewhere; the schema itself is at /openapi.json
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(only_known_queries)],
        generate_unique_id_function=lambda route: route.name,  # what clients call their methods
    )
    app.add_middleware(LimitedBodies)
    problems.install(app)
    app.include_router(instances.routes(asked, pictures, cases.instances, cases.launching, monitor))
    app.include_router(guests.routes(asked, pictures, monitor, cases.lines, cases.waiting))
    app.include_router(power.routes(asked, cases.instances))
    app.include_router(snapshots.routes(asked, pictures, cases.snapshots))
    app.include_router(templates.routes(asked, pictures, cases.templates))
    app.include_router(operations.routes(asked, pictures, cases.operations, watch))
    app.include_router(events.routes(asked, pictures, cases.operations))
    app.include_router(site.routes(asked, pictures, cases.site))
    app.include_router(metrics.routes(asked, pictures, cases.site, monitor))
    app.include_router(streams.routes(asked, cases.lines))
    openapi.documented(app)
    return app
