"""How much that nobody asked for is borne from a guest, before its line is given up.

A guest may send for ever, and each frame costs us time. What we asked for bounds itself: output by credit, grants by
the input that was sent, answers by questions. All the rest is charged here: what an earlier host had under way, kinds
that we do not know, what a stream still says after we closed it, greetings again and again.
"""

from __future__ import annotations

from innkeeper.drivers.guestlink.frames import WireError

# In bytes; but an empty frame is work as well, and the greeting of another program is answered.
FRAME_COSTS = 128
RESTART_COSTS = 4096
PATIENCE = 1 << 16
PATIENCE_UNDER_WAY = 1 << 23  # several times what the sockets and queues between a guest and us hold


class Patience:
    def __init__(self) -> None:
        self._left = PATIENCE_UNDER_WAY

    def spend(self, cost: int) -> None:
        """Raises WireError when nothing is left."""
        self._left -= cost
        if self._left < 0:
            raise WireError("the guest goes on sending what nobody asked for")

    def past_is_over(self) -> None:
        """From now on little can come that is not for us."""
        self._left = min(self._left, PATIENCE)

    def hung_up(self) -> None:
        """A stream was closed that may have much under way."""
        self._left = PATIENCE_UNDER_WAY

    def answered(self) -> None:
        """It does what it is there for."""
        self._left = max(self._left, PATIENCE)
