"""Failures of the host's hands as refusals: the one place that knows how each driver fails."""

from __future__ import annotations

from innkeeper.drivers.guestlink.compile import CompileFailed
from innkeeper.drivers.images.faults import BuildFailed
from innkeeper.drivers.linuxnet.settings import NetFailed
from innkeeper.drivers.memory.faults import MemoryFault
from innkeeper.drivers.metadata.hand import SeedFailed
from innkeeper.drivers.qcow2.faults import PoolFault
from innkeeper.drivers.qemu.hand import NotEnding
from innkeeper.drivers.qemu.memory.saving import SaveFailed
from innkeeper.drivers.qemu.qmp import NoAnswer, Rejected
from innkeeper.drivers.qemu.start import StartFailed
from innkeeper.model.work import Refused
from innkeeper.ports.launcher import LauncherGone

_KNOWN = (BuildFailed, NetFailed, SeedFailed, NotEnding, NoAnswer, Rejected, StartFailed, SaveFailed, LauncherGone)


class CannotObey(Exception):
    """The order makes no sense on this host as it is; nothing was done. `stale`: a newer one was obeyed."""

    def __init__(self, reason: str, hint: str = "", *, stale: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.stale = stale


def refusal_of(failure: Exception) -> Refused | None:
    """None for a failure that no driver announces: a fault of ours, which must be seen as one."""
    match failure:
        case CannotObey():
            return Refused(reason=failure.reason, hint=failure.hint, stale=failure.stale)
        case PoolFault() | MemoryFault() | CompileFailed():
            return Refused(reason=failure.reason, hint=failure.hint)
        case OSError():
            where = failure.filename or "this host"
            return Refused(reason=f"{failure.strerror or failure}: {where}", hint="See: inn host show")
        case _ if isinstance(failure, _KNOWN):
            return Refused(reason=str(failure))
        case _:
            return None
