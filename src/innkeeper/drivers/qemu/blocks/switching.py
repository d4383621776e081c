"""A running machine goes on writing to new volumes, each over one that it wrote to.

    add          QEMU opens the empty overlays, one by one; the guest notices nothing
    hold still   the guest's file systems, where it can do that
    transaction  all disks at one moment: QEMU waits for what is being written, flushes it, and from then on writes
                 above. What is below is only read from then on, and QEMU gives up its lock for writing
    let go

Until the transaction everything can be taken back, and is. After it there is no way back: what the guest writes is in
the new volumes, and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path

from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.qmp import NoAnswer, Rejected
from innkeeper.model.actions import Chain
from innkeeper.model.ids import VolumeId

# A QEMU that did not answer in time was asked all the same, and what it did is seen as soon as it answers again.
_ASKED_AGAIN = 4


class Undecided(NoAnswer):
    """QEMU was told to switch and does not answer any more: nobody knows which volumes it writes to."""


async def switch(
    disks: Disks, chains: Sequence[Chain], file_of: Callable[[VolumeId], Path], still: AbstractAsyncContextManager[None]
) -> None:
    """The machine writes to the tops of these chains, from a moment on that lies within `still`.

    Whatever of a chain it writes to now, what lies above that is laid over it. Where nothing is missing, nothing is
    held still either.

    Raises:
        Rejected: QEMU declined, or writes to none of a chain. Nothing has changed.
        NoAnswer: it cannot be asked. Nothing has changed, unless it is Undecided.
    """
    tops = await disks.tops()
    missing = [pair for chain in chains for pair in _missing(chain, tops)]
    if not missing:
        return
    try:
        for volume, _ in missing:
            await disks.add(volume, file_of(volume))
        async with still:
            await _lay_over(disks, missing, frozenset(chain.volume for chain in chains))
    except Undecided:
        raise
    except BaseException:
        for volume, _ in missing:
            with contextlib.suppress(NoAnswer, Rejected):
                await disks.drop(volume)
        raise


def _missing(chain: Chain, tops: frozenset[str]) -> list[tuple[VolumeId, VolumeId]]:
    """Each volume with the one that it is to be laid over, from the bottom up."""
    layers = (chain.volume, *chain.below)
    for depth, volume in enumerate(layers):
        if volume in tops:
            return list(pairwise(layers[: depth + 1]))[::-1]
    words = f"the machine writes to {', '.join(sorted(tops))}, and to none of {', '.join(layers)}"
    raise Rejected(f"{words}: look at its disks")


async def _lay_over(disks: Disks, missing: Sequence[tuple[VolumeId, VolumeId]], wanted: frozenset[VolumeId]) -> None:
    try:
        await disks.lay_over(missing)
    except NoAnswer as silent:
        for _ in range(_ASKED_AGAIN):
            with contextlib.suppress(NoAnswer):
                # It obeys in order: what it answers now comes after what it was told before.
                if wanted <= await disks.tops():
                    return
                raise Rejected(f"the disks were not switched: {silent}") from silent
        raise Undecided(f"{silent}, and it is not known which volumes it writes to") from silent
