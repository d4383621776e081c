"""The part of every composition root that is the same: rooms put together over a store and hosts, running as one.

Whoever composes brings the store and the hosts; here they become loops and an application. Nothing below knows how many
hosts there are or what they are made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from innkeeper.api.app import UseCases, application
from innkeeper.api.asked import Asked
from innkeeper.control.instances import Instances
from innkeeper.control.launching import Launching
from innkeeper.control.lines import Lines
from innkeeper.control.monitor import Monitor
from innkeeper.control.operations import Operations
from innkeeper.control.site import Site
from innkeeper.control.snapshots import Snapshots
from innkeeper.control.submit import Asking, Submitter
from innkeeper.control.templates import Templates
from innkeeper.control.waiting import Waiting
from innkeeper.control.warming import Warming
from innkeeper.control.watch import OURSELVES, Rhythm, Watch
from innkeeper.jobs.engine import Engine, Patience
from innkeeper.model.host import Principal
from innkeeper.model.ids import Draw, HostId, ProjectId
from innkeeper.model.plans import Plan, Refusal
from innkeeper.plan.setup import default_project, set_up
from innkeeper.ports.clock import Clock
from innkeeper.ports.host import HostPort, StreamPort
from innkeeper.ports.store import History, Journal, Pictures, Secrets, Works
from innkeeper.ports.tasks import steady

_SITE = ProjectId("")


class AnyStore(Protocol):
    """A store with all its sides."""

    @property
    def pictures(self) -> Pictures: ...
    @property
    def works(self) -> Works: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def history(self) -> History: ...


class AnyHost(HostPort, StreamPort, Protocol):
    """A host with orders and streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Read once, by whoever composes. `ranges_in_use` are CIDRs that the default network keeps away from; without
    `warms` no memory image is made unless somebody asks for it.
    """

    names: Mapping[HostId, str]
    ranges_in_use: tuple[str, ...] = ()
    patience: Patience = Patience()
    rhythm: Rhythm = Rhythm()
    warms: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    app: FastAPI
    submitter: Submitter
    watch: Watch
    monitor: Monitor
    project: ProjectId


class CannotSetUp(Exception):
    """The first rows cannot be made; the text says why."""


def _entropy() -> bytes:
    return secrets.token_bytes(32)


@contextlib.asynccontextmanager
async def running(
    store: AnyStore,
    hosts: Mapping[HostId, AnyHost],
    clock: Clock,
    identify: Callable[[HTTPConnection], Principal],
    settings: Settings,
) -> AsyncIterator[House]:
    """The house at work while the block runs. Leaving it is as good as kill -9.

    What was accepted goes on at the next start.
    """
    submitter = Submitter(store.works, store.pictures, clock, _entropy)
    monitor = Monitor(store.history, clock)
    watch = Watch(hosts, store.pictures, submitter, monitor, clock)
    engine = Engine(store.works, store.pictures, hosts, clock, settings.patience)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(steady("submitting", submitter.run), name="submitter"),
            group.create_task(steady("the engine", engine.run), name="engine"),
        ]
        project = await _set_up(store.pictures, submitter, clock, settings)
        tasks.append(group.create_task(watch.run(project, settings.rhythm), name="watch"))
        tasks.append(group.create_task(steady("the monitor", monitor.run), name="monitor"))
        if settings.warms:
            warming = Warming(submitter, store.pictures, clock)
            tasks.append(group.create_task(steady("warming", warming.run), name="warming"))
        site = Site(store.pictures)
        cases = UseCases(
            instances=Instances(submitter, store.pictures),
            launching=Launching(submitter, store.pictures, store.secrets, lambda: Draw(_entropy())),
            snapshots=Snapshots(submitter, store.pictures),
            templates=Templates(submitter, store.pictures),
            operations=Operations(store.works, store.journal),
            lines=Lines(store.pictures, hosts),
            waiting=Waiting(store.pictures, store.journal),
            site=site,
        )
        app = application(Asked(identify, site, clock, store.secrets.mark), cases, store.pictures, monitor, watch)
        yield House(app=app, submitter=submitter, watch=watch, monitor=monitor, project=project)
        for task in tasks:
            task.cancel()


async def _set_up(pictures: Pictures, submitter: Submitter, clock: Clock, settings: Settings) -> ProjectId:
    """Project, network and host rows, where they are missing."""
    plan = set_up(pictures.cluster(), settings.names.items(), settings.ranges_in_use, Draw(_entropy()))
    if isinstance(plan, Plan):
        made = plan
        asking = Asking(principal=OURSELVES.name, project=_SITE, at=clock.now())
        answer = await submitter.submit(lambda cluster, draw, now: made, asking)
        if isinstance(answer, Refusal):
            raise CannotSetUp(str(answer))
    elif isinstance(plan, Refusal):
        raise CannotSetUp(str(plan))
    project = default_project(pictures.cluster())
    if project is None:
        raise CannotSetUp("project default could not be made")
    return project
