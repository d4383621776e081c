"""Every operation there is, each with what must stand before it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import pytest

from innkeeper.control.launching import LaunchOrder
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import Draw, ProjectId
from innkeeper.model.instance import Instance, Snapshot
from innkeeper.model.plans import Plan, Refusal
from innkeeper.model.work import Operation
from innkeeper.plan import delete as deleting
from innkeeper.plan import power
from innkeeper.plan import template as templates
from innkeeper.plan.disks import snapshot as snapshots
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.launch import launch, launch_together
from innkeeper.plan.names import find_instance, find_snapshot, find_template
from innkeeper.plan.setup import default_project
from innkeeper.plan.warm import making
from innkeeper.sim.commands import write_file
from innkeeper.sim.metal.pool import ImageFile
from tests.jobs.life import Decide, Life, Lives


def project(cluster: Cluster) -> ProjectId:
    found = default_project(cluster)
    assert found is not None
    return found


def launching(name: str, *, start: bool = True) -> Decide:
    wish = LaunchWish(template="tiny", name=name, start=start)
    return lambda c, d, n: launch(c, project(c), wish, d, n)


def two_together(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    wishes = (LaunchWish(template="tiny", name="web"), LaunchWish(template="tiny", name="db"))
    return launch_together(c, project(c), wishes, d, n)


def building(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    return templates.build(c, "tiny", d, n)


def importing(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    return templates.import_file(c, project(c), "mine", ("/images/mine.qcow2", "qcow2", Firmware.BIOS), d, n)


def publishing(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    instance = find_instance(c, project(c), "web")
    assert isinstance(instance, Instance)
    return templates.publish(c, instance, "golden", d, n)


def dropping_template(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    template = find_template(c, project(c), "tiny")
    return template if isinstance(template, Refusal) else templates.delete_template(c, template)


def warming(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    template = find_template(c, project(c), "tiny")
    return template if isinstance(template, Refusal) else making.warm(c, project(c), template, d, n)


def cooling(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    template = find_template(c, project(c), "tiny")
    return template if isinstance(template, Refusal) else making.cool(c, project(c), template)


def to_web(decide: Callable[[Cluster, Instance], Plan | Refusal]) -> Decide:
    def on_picture(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
        instance = find_instance(c, project(c), "web")
        return instance if isinstance(instance, Refusal) else decide(c, instance)

    return on_picture


async def template(life: Life, lives: Lives) -> None:
    """Built quickly as tiny is, and with cloud-init, so that launches may carry secrets."""
    tiny = lives.state.recipes["tiny"]
    lives.state.recipes["tiny"] = replace(tiny, image=replace(tiny.image, cloud_init=True))
    assert not isinstance(await life.wish(building), Refusal)


async def warm(life: Life, lives: Lives) -> None:
    await template(life, lives)
    assert not isinstance(await life.wish(warming), Refusal)


async def cloned(life: Life, lives: Lives) -> None:
    await warm(life, lives)
    assert not isinstance(await life.wish(launching("web")), Refusal)


async def stopped(life: Life, lives: Lives) -> None:
    await template(life, lives)
    assert not isinstance(await life.wish(launching("web", start=False)), Refusal)


async def running(life: Life, lives: Lives) -> None:
    await template(life, lives)
    assert not isinstance(await life.wish(launching("web")), Refusal)


async def paused(life: Life, lives: Lives) -> None:
    await running(life, lives)
    assert not isinstance(await life.wish(to_web(power.pause)), Refusal)


def web_and_first(decide: Callable[[Cluster, Instance, Snapshot, Draw], Plan | Refusal]) -> Decide:
    def on_picture(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
        instance = find_instance(c, project(c), "web")
        assert isinstance(instance, Instance)
        snapshot = find_snapshot(c, instance, "first")
        return snapshot if isinstance(snapshot, Refusal) else decide(c, instance, snapshot, d)

    return on_picture


def snapping(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    instance = find_instance(c, project(c), "web")
    return instance if isinstance(instance, Refusal) else snapshots.take(c, instance, "second", d, n)


def copying(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
    return launch(c, project(c), LaunchWish(template="", snapshot="web/first", name="copy"), d, n)


def note(lives: Lives, name: str, words: str) -> None:
    """Into a file of the guest."""
    said = write_file(lives.state, lives.state.running(name), "/root/note", words.encode())
    assert said.code == 0, said


async def noted(life: Life, lives: Lives) -> None:
    await running(life, lives)
    note(lives, "web", "before")


async def snapped(life: Life, lives: Lives) -> None:
    """With a snapshot, and other words since."""
    await noted(life, lives)
    take = to_web(lambda c, i: snapshots.take(c, i, "first", Draw(b"take"), 0.0))
    assert not isinstance(await life.wish(take), Refusal)
    note(lives, "web", "after")


async def snapped_and_off(life: Life, lives: Lives) -> None:
    await snapped(life, lives)
    assert not isinstance(await life.wish(to_web(lambda c, i: power.stop(c, i, force=True))), Refusal)


async def nothing(life: Life, lives: Lives) -> None:
    return


async def file_to_import(life: Life, lives: Lives) -> None:
    from_outside = {"/images/mine.qcow2": ImageFile(format="qcow2", virtual_size_bytes=1 << 30, stored_bytes=1 << 20)}
    lives.state.files.update(from_outside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    name: str
    before: Callable[[Life, Lives], Coroutine[Any, Any, None]]
    decide: Decide | LaunchOrder

    async def ask(self, life: Life, key: str | None = None) -> Operation | Refusal:
        """And wait for the end."""
        if isinstance(self.decide, LaunchOrder):
            return await life.launch(self.decide, key)
        return await life.wish(self.decide, key)


WITH_USER_DATA = LaunchOrder(
    wish=LaunchWish(template="tiny", name="web"), user_data=b"#cloud-config\npassword: open sesame\n"
)
SEVERAL = replace(WITH_USER_DATA, count=3)

WISHES = (
    Wish(name="build", before=nothing, decide=building),
    Wish(name="import", before=file_to_import, decide=importing),
    Wish(name="publish", before=stopped, decide=publishing),
    Wish(name="delete-template", before=template, decide=dropping_template),
    Wish(name="launch", before=template, decide=launching("web")),
    Wish(name="warm", before=template, decide=warming),
    Wish(name="delete-memory", before=warm, decide=cooling),
    Wish(name="delete-memory-cloned", before=cloned, decide=cooling),
    Wish(name="delete-template-warm", before=warm, decide=dropping_template),
    Wish(name="launch-warm", before=warm, decide=launching("web")),
    Wish(name="delete-clone", before=cloned, decide=to_web(lambda c, i: deleting.delete(c, i, force=True))),
    Wish(name="launch-user-data", before=template, decide=WITH_USER_DATA),
    Wish(name="launch-stopped", before=template, decide=launching("web", start=False)),
    Wish(name="launch-all-or-none", before=template, decide=two_together),
    Wish(name="start", before=stopped, decide=to_web(power.start)),
    Wish(name="stop", before=running, decide=to_web(lambda c, i: power.stop(c, i, force=False))),
    Wish(name="stop-force", before=running, decide=to_web(lambda c, i: power.stop(c, i, force=True))),
    Wish(name="restart", before=running, decide=to_web(lambda c, i: power.restart(c, i, force=False))),
    Wish(name="pause", before=running, decide=to_web(power.pause)),
    Wish(name="resume", before=paused, decide=to_web(power.resume)),
    Wish(name="rename", before=running, decide=to_web(lambda c, i: power.rename(c, i, "shop"))),
    Wish(name="snapshot", before=noted, decide=snapping),
    Wish(name="snapshot-again", before=snapped, decide=snapping),
    Wish(name="snapshot-off", before=snapped_and_off, decide=snapping),
    Wish(
        name="restore",
        before=snapped_and_off,
        decide=web_and_first(lambda c, i, s, d: snapshots.restore(c, i, s, d, restart=False)),
    ),
    Wish(
        name="rewind",
        before=snapped,
        decide=web_and_first(lambda c, i, s, d: snapshots.restore(c, i, s, d, restart=True)),
    ),
    Wish(name="copy", before=snapped, decide=copying),
    Wish(
        name="delete-snapshot",
        before=snapped,
        decide=web_and_first(lambda c, i, s, d: snapshots.delete_snapshot(c, s)),
    ),
    Wish(name="delete-snapshotted", before=snapped, decide=to_web(lambda c, i: deleting.delete(c, i, force=True))),
    Wish(name="delete", before=stopped, decide=to_web(lambda c, i: deleting.delete(c, i, force=False))),
    Wish(name="delete-force", before=running, decide=to_web(lambda c, i: deleting.delete(c, i, force=True))),
)

# Not one operation but a parent with its parts, each of which is refused for itself.
PARENT = Wish(name="launch-several", before=template, decide=SEVERAL)

# As parameters of a test. Each means a few dozen lives, so in the fast run a launch with secrets stands for all.
EACH = [pytest.param(w, id=w.name, marks=[] if w.name == "launch-user-data" else [pytest.mark.slow]) for w in WISHES]
EACH_AND_PARENT = [*EACH, pytest.param(PARENT, id=PARENT.name, marks=pytest.mark.slow)]
