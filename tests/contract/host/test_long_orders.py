"""Orders that take their time: accepted, asked again, cancelled, interrupted, in every world behind the host's seam."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from innkeeper.model.actions import BuildTemplate, DeleteTemplate
from innkeeper.model.ids import TemplateId
from innkeeper.model.observed import Phase, StepProgress, TemplateState
from innkeeper.model.work import Accepted, Done
from tests.contract.host.world import Cast, World, done, heard, refused

NEW = TemplateId("t-00000000beef")


async def test_a_long_order_is_accepted_and_ends(world: World) -> None:
    cast = Cast(world)
    order = cast.order(BuildTemplate(template=NEW, recipe=world.stage.recipe))
    async with heard(world, StepProgress) as progress:
        assert isinstance(await cast.give(order), Accepted)
        assert isinstance(await cast.give(order), Accepted)
        assert NEW not in (await world.host.inventory()).templates
        (made,) = done(await cast.settled(order)).states
    assert isinstance(made, TemplateState)
    assert made.template == NEW
    assert made.image.digest
    fractions = [p.fraction for p in progress if p.operation == order.operation]
    assert fractions == sorted(fractions)
    inventory = await world.host.inventory()
    assert NEW in inventory.templates
    assert not inventory.leftovers
    await world.restart_agent()
    assert isinstance(await cast.give(order), Done)


async def test_a_long_order_can_be_cancelled(world: World) -> None:
    cast = Cast(world)
    order = cast.order(BuildTemplate(template=NEW, recipe=world.stage.recipe))
    assert isinstance(await cast.give(order), Accepted)
    for _ in range(2):
        await world.host.cancel(order.operation, order.step)
    refused(await cast.settled(order))
    inventory = await world.host.inventory()
    assert NEW not in inventory.templates
    assert not inventory.leftovers


async def test_a_guest_that_was_asked_to_leave_may_stay_after_all(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    await world.deafen(cast.instance)
    patient = cast.order(cast.stop(world.stage.deadline_s * 10), generation=2)
    async with asyncio.timeout(world.stage.deadline_s), asyncio.TaskGroup() as group:
        waiting = group.create_task(world.host.give(patient))
        await asyncio.sleep(0.05)
        await world.host.cancel(patient.operation, patient.step)
    assert not refused(waiting.result()).stale
    (seen,) = [m for m in (await world.host.inventory()).machines if m.instance == cast.instance]
    assert seen.phase is Phase.RUNNING


async def test_cancelling_what_is_unknown_or_ended_is_no_error(world: World) -> None:
    cast = Cast(world)
    order = cast.order(cast.disk())
    await world.host.cancel(order.operation, order.step)
    done(await cast.give(order))
    await world.host.cancel(order.operation, order.step)
    assert cast.volume in (await world.host.inventory()).disks


async def test_a_long_order_survives_the_agent(world: World) -> None:
    cast = Cast(world)
    order = cast.order(BuildTemplate(template=NEW, recipe=world.stage.recipe))
    assert isinstance(await cast.give(order), Accepted)
    await world.restart_agent()
    assert NEW not in (await world.host.inventory()).templates
    done(await cast.settled(order))
    inventory = await world.host.inventory()
    assert NEW in inventory.templates
    assert not inventory.leftovers


async def test_its_undo_ends_a_long_order(world: World) -> None:
    cast = Cast(world)
    order = cast.order(BuildTemplate(template=NEW, recipe=world.stage.recipe))
    assert isinstance(await cast.give(order), Accepted)
    undo = replace(order, undo=True, action=DeleteTemplate(template=NEW))
    done(await cast.give(undo))
    refused(await cast.settled(order))
    inventory = await world.host.inventory()
    assert NEW not in inventory.templates
    assert not inventory.leftovers


async def test_an_unknown_recipe_is_refused(world: World) -> None:
    cast = Cast(world)
    refused(await cast.settled(cast.order(BuildTemplate(template=NEW, recipe="no-such-recipe"))))
    assert NEW not in (await world.host.inventory()).templates
