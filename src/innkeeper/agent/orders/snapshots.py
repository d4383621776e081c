"""Snapshots: an instance's volumes are frozen where they are, and it goes on with new ones over them.

    room for the notes ──▶ a machine that runs is switched ──▶ the volumes are sealed and the notes written

Once a machine was switched there is no way back, so from then on nothing is refused. An order that comes again, or
comes to a machine that has ended meanwhile, finds what is done and does the rest.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from innkeeper.agent.watching.machines import Machines
from innkeeper.agent.watching.roster import Roster
from innkeeper.agent.watching.stillness import Moment
from innkeeper.agent.watching.watched import Watched
from innkeeper.drivers.qcow2.faults import PoolFault
from innkeeper.drivers.qcow2.layers.frozen import Frozen
from innkeeper.drivers.qcow2.places import Places
from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.blocks.switching import switch
from innkeeper.drivers.qemu.qmp import NoAnswer
from innkeeper.model.actions import TakeSnapshot
from innkeeper.model.instance import Taken
from innkeeper.ports.tasks import until_ended

log = logging.getLogger(__name__)

_ENDING_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caught:
    """How the machine was caught. `switched`: it runs and writes to the new volumes, or did before it ended."""

    switched: bool
    consistent: bool


class Snapshots:
    def __init__(self, places: Places, frozen: Frozen, machines: Machines, roster: Roster) -> None:
        self._places = places
        self._frozen = frozen
        self._machines = machines
        self._roster = roster

    async def take(self, action: TakeSnapshot, generation: int) -> None:
        """Interrupted, it is seen to its end all the same, which is near: half of it is worse than all of it.

        Raises:
            PoolFault, Rejected, NoAnswer: and the machine writes to the volumes that it wrote to before.
            Undecided: nobody knows which ones it writes to.
        """
        work = asyncio.get_running_loop().create_task(self._take(action), name=f"taking {action.snapshot}")
        try:
            await until_ended(work)
        except asyncio.CancelledError:
            if work.cancelled() or work.exception() is not None:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()  # it is done, and must be told so
        work.result()
        self._roster.update(action.instance, generation)

    async def taken(self, action: TakeSnapshot) -> Taken | None:
        """What was told of it; None if it was not taken."""
        return await self._frozen.taken(action.volumes, action.snapshot)

    async def _take(self, action: TakeSnapshot) -> None:
        async with self._machines.held(action.instance) as watched:
            if await self.taken(action) is not None:
                return
            try:
                await self._frozen.make_room(action.volumes, action.chains)
                caught = await self._catch(action, watched)
            except BaseException:
                await self._frozen.give_up(action.volumes)
                raise
            try:
                await self._frozen.freeze(action.volumes, action.snapshot, consistent=caught.consistent)
            except PoolFault as fault:
                if not caught.switched:
                    raise
                log.error("%s is taken and its volumes cannot be sealed: %s", action.snapshot, fault)

    async def _catch(self, action: TakeSnapshot, watched: Watched | None) -> _Caught:
        if watched is None:
            return _Caught(switched=False, consistent=await self._machines.left_whole(action.instance))
        moment = Moment()
        still = watched.stillness.held(moment, ask=watched.guest.said.agent)
        try:
            await switch(Disks(watched.machine.monitor), action.chains, self._places.volume, still)
        except NoAnswer:
            # What QEMU did last does not matter once it has ended: all that was written is in the chain.
            if not await watched.machine.gone_within(_ENDING_S):
                raise
        return _Caught(switched=True, consistent=moment.consistent)
