"""Each step refused before and after its effect, its answer lost, its host away.

What stands in the end, and what does not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from innkeeper.model.plans import NoUndo, Verb
from innkeeper.model.work import Operation, OperationState
from innkeeper.sim.faults import Fault, Faults
from tests.jobs.life import Lives, footprint
from tests.jobs.wishes import EACH, WISHES, Wish


async def _prepared(folder: Path, wish: Wish) -> tuple[Lives, dict[str, object]]:
    lives = Lives(folder)
    async with lives.living() as life:
        await wish.before(life, lives)
        return lives, footprint(lives, life.cluster)


async def _steps(folder: Path, wish: Wish) -> int:
    lives, _ = await _prepared(folder, wish)
    async with lives.living() as life:
        ended = await wish.ask(life)
        assert isinstance(ended, Operation)
        return ended.steps


@pytest.mark.parametrize("wish", EACH)
async def test_a_refused_step_undoes_what_was_done(wish: Wish, tmp_path: Path) -> None:
    for number in range(1, await _steps(tmp_path / "calm", wish) + 1):
        lives, before = await _prepared(tmp_path / f"refused-{number}", wish)
        async with lives.living(faults=Faults(orders={number: Fault.REFUSE})) as life:
            ended = await wish.ask(life)
            assert isinstance(ended, Operation)
            plan = await life.store.journal.plan_of(ended.id)
            assert plan is not None
            if any(s.undo is NoUndo.NO_WAY_BACK for s in plan.steps[: number - 1]):
                # Past the point of no return one refusal is only a delay.
                assert ended.state is OperationState.SUCCEEDED, (number, ended)
                continue
            assert ended.state is OperationState.FAILED, (number, ended)
            assert ended.error
            if wish.name not in ("restart", "delete-template"):
                assert footprint(lives, life.cluster) == before, f"refused at step {number}"
            await life.mend()
            footprint(lives, life.cluster)


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.LOSE_ANSWER])
@pytest.mark.parametrize("wish", EACH)
async def test_silence_is_waited_out(wish: Wish, fault: Fault, tmp_path: Path) -> None:
    calm, _ = await _prepared(tmp_path / "calm", wish)
    async with calm.living() as life:
        ended = await wish.ask(life)
        assert isinstance(ended, Operation)
        expected, steps = footprint(calm, life.cluster), ended.steps
    for number in range(1, steps + 1):
        lives, _ = await _prepared(tmp_path / f"silent-{number}", wish)
        async with lives.living(faults=Faults(orders={number: fault})) as life:
            ended = await wish.ask(life)
            assert isinstance(ended, Operation)
            assert ended.state is OperationState.SUCCEEDED, (number, ended)
            assert footprint(lives, life.cluster) == expected, f"{fault} at order {number}"


# Repair does not make a template again whose artefacts are gone: launches from it are refused, and it can be deleted.
MENDABLE = [case for case in EACH if case.id != "delete-template"]


@pytest.mark.parametrize("wish", MENDABLE)
async def test_what_a_broken_host_leaves_is_repaired(wish: Wish, tmp_path: Path) -> None:
    """It refuses although the effect stands, against its promise: undo does not know of it, repair finds it."""
    for number in range(1, await _steps(tmp_path / "calm", wish) + 1):
        lives, _ = await _prepared(tmp_path / f"broken-{number}", wish)
        async with lives.living(faults=Faults(orders={number: Fault.REFUSE_AFTER})) as life:
            await wish.ask(life)
            await life.mend()
            footprint(lives, life.cluster)


async def test_a_host_that_stays_away_fails_the_operation(tmp_path: Path) -> None:
    launch = next(w for w in WISHES if w.name == "launch")
    lives, _ = await _prepared(tmp_path, launch)
    away = Faults(away=((lives.clock.monotonic(), lives.clock.monotonic() + 10_000),))
    async with lives.living(faults=away) as life:
        ended = await launch.ask(life)
    assert isinstance(ended, Operation)
    assert ended.state is OperationState.FAILED
    assert "does not answer" in ended.error
    # It came back: what undo could not reach, repair does.
    async with lives.living() as life:
        await life.mend()
        assert footprint(lives, life.cluster)["instances"] == {}


def test_the_wishes_are_all_verbs() -> None:
    """A new operation must be added to the list, or it is never killed."""
    names = {w.name for w in WISHES}
    assert len(names) == len(WISHES)
    assert {v.value for v in Verb} - {Verb.REPAIR, Verb.SET_UP} <= names
