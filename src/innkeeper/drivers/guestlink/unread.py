"""What a command said and nobody has read yet.

Credit bounds its bytes, not its pieces: a window of output may come one byte at a time, and an object for each would
take a hundred times the window. So small pieces lie together, with a number for each, and large ones as they came.
"""

from __future__ import annotations

from collections import deque

from innkeeper.drivers.guestlink.frames import PAYLOAD_MAX
from innkeeper.ports.streams import Stderr, Stdout

_LARGE = 1024


class Unread:
    """A queue. Small neighbours of one kind come out together, as long as one frame could have carried them."""

    def __init__(self) -> None:
        self._small = bytearray()
        self._pieces: deque[Stdout | Stderr | int] = (
            deque()
        )  # a number: so many small bytes, of standard error negative

    def __len__(self) -> int:
        return len(self._pieces)

    def put(self, output: Stdout | Stderr) -> None:
        if len(output.data) >= _LARGE:
            self._pieces.append(output)
            return
        self._small += output.data
        length = len(output.data) if isinstance(output, Stdout) else -len(output.data)
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, int) and last * length > 0 and abs(last + length) <= PAYLOAD_MAX:
            self._pieces[-1] = last + length
        else:
            self._pieces.append(length)

    def take(self) -> Stdout | Stderr:
        """Raises IndexError when there is nothing."""
        piece = self._pieces.popleft()
        if not isinstance(piece, int):
            return piece
        data = bytes(self._small[: abs(piece)])
        del self._small[: abs(piece)]
        return Stdout(data) if piece > 0 else Stderr(data)

    def clear(self) -> None:
        self._small.clear()
        self._pieces.clear()
