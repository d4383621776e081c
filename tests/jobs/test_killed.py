"""kill -9 at every write and around every order: the next life ends in the same state as an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from innkeeper.model.work import Operation
from innkeeper.sim.faults import Fault, Faults, Killed
from tests.jobs.life import Lives, footprint
from tests.jobs.wishes import EACH_AND_PARENT, PARENT, Wish

DEATHS = (Fault.KILL_BEFORE, Fault.KILL_UNRECORDED, Fault.KILL_AFTER)


class Count:
    """Counts points from when it is armed, and strikes at the chosen one."""

    def __init__(self, at: int = 0) -> None:
        self.points = 0
        self.armed = False
        self._at = at

    def __call__(self, _: int) -> None:
        self.points += self.armed
        if self.armed and self.points == self._at:
            raise Killed(f"killed at point {self._at}")


async def _undisturbed(folder: Path, wish: Wish) -> tuple[dict[str, object], int, int]:
    """The end, and how many commit points and steps there were on the way."""
    lives = Lives(folder)
    async with lives.living() as life:
        await wish.before(life, lives)
    count = Count()
    async with lives.living(on_commit=count) as life:
        count.armed = True
        ended = await wish.ask(life, "once")
        assert isinstance(ended, Operation), ended
        assert ended.state.value == "succeeded", ended
        count.armed = False
        assert await life.repairs() == ()
        children = await life.store.journal.children(ended.id)
        orders = sum(child.steps for child in children) if children else ended.steps
        return footprint(lives, life.cluster), count.points, orders


async def _killed(lives: Lives, wish: Wish, count: Count, faults: Faults | None) -> None:
    async with lives.living(on_commit=count, faults=faults) as life:
        count.armed = True
        await wish.ask(life, "once")
        assert faults is None, "nobody was killed"
        # Writes that meet are committed together, so this life had fewer of them: then it dies when all is written.
        raise Killed("at its end")


async def _killed_then_alive(folder: Path, wish: Wish, count: Count, faults: Faults | None) -> dict[str, object]:
    lives = Lives(folder)
    async with lives.living() as life:
        await wish.before(life, lives)
    with pytest.raises(Killed):
        await _killed(lives, wish, count, faults)
    async with lives.living() as life:
        await life.settled()
        # The caller heard no answer, so he asks again under the same key, as a good client does.
        again = await wish.ask(life, "once")
        assert isinstance(again, Operation), again
        assert again.state.value == "succeeded", again
        assert await life.repairs() == ()
        return footprint(lives, life.cluster)


@pytest.mark.parametrize("wish", EACH_AND_PARENT)
async def test_killed_at_every_write(wish: Wish, tmp_path: Path) -> None:
    expected, points, _ = await _undisturbed(tmp_path / "calm", wish)
    assert points >= 4, "accepting and ending are writes, each with a point before and after"
    for point in range(1, points + 1):
        found = await _killed_then_alive(tmp_path / f"killed-{point}", wish, Count(at=point), None)
        assert found == expected, f"killed at write {point} of {points}"


@pytest.mark.slow
async def test_killed_at_every_write_of_more_than_are_planned_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch of several is accepted in one all the same. Whoever asks again finds all of it, and each of it once."""
    monkeypatch.setattr("innkeeper.control.submit._TOGETHER", 1)
    await test_killed_at_every_write(PARENT, tmp_path)


@pytest.mark.parametrize("fault", DEATHS)
@pytest.mark.parametrize("wish", EACH_AND_PARENT)
async def test_killed_around_every_order(wish: Wish, fault: Fault, tmp_path: Path) -> None:
    expected, _, orders = await _undisturbed(tmp_path / "calm", wish)
    for number in range(1, orders + 1):
        faults = Faults(orders={number: fault})
        found = await _killed_then_alive(tmp_path / f"killed-{number}", wish, Count(), faults)
        assert found == expected, f"killed ({fault}) at order {number} of {orders}"
