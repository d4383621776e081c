"""Lines into instances, as the house sees them: a command's session, a console, and what a guest says of itself.

Nothing here is durable: a session ends with either side of its line. Everything that comes out of a guest (output,
words, facts) is the guest's own claim; words and facts arrive here without control characters, output comes as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias


class StreamClosed(Exception):
    """The session or console has ended, so nothing can be sent to it; the text says how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pty:
    """The terminal that the command is to believe it has."""

    rows: int
    cols: int
    term: str = "xterm-256color"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """A command to run in a guest.

    An empty `argv` asks for the user's login shell. No `user` means the one the guest's program runs as, root; no
    `cwd` means the user's home, or / where that is missing. `env` adds to HOME, USER, LOGNAME, SHELL, PATH and, with
    a terminal, TERM."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    user: str | None = None
    pty: Pty | None = None


@dataclass(frozen=True, slots=True)
class Stdout:
    data: bytes


@dataclass(frozen=True, slots=True)
class Stderr:
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The command ended, with a code or by a signal; the other is None. All that it wrote came before."""

    code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The command did not start, or its line was lost and it cannot be known how it ended."""

    reason: str


SessionEvent: TypeAlias = Stdout | Stderr | Exited | Failed


class Session(Protocol):
    """One command in a guest. Every method may be cancelled; one reader and one writer at a time each."""

    async def read(self) -> SessionEvent:
        """What comes next. Ends with one Exited or Failed, which every later call returns again.

        Room for output is granted as it is read: who does not read stops the command, and nobody else. Cancelled, it
        loses nothing.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send to the command's input; waits while the command does not take it. Cancelled, a part may have been sent.

        Raises:
            StreamClosed: the session has ended. A command that only closed its input is no error: the data is lost.
        """
        ...

    async def eof(self) -> None:
        """No more input follows; on a terminal, the character for it. May be repeated, also after the end."""
        ...

    async def resize(self, rows: int, cols: int) -> None:
        """Give the terminal a new size. Without a terminal, or after the end, nothing happens."""
        ...

    async def signal(self, number: int) -> None:
        """Signal the command's process group, on a terminal also the one in front. After the end nothing happens."""
        ...

    async def close(self) -> None:
        """Hang up, and kill what is left of the process group 2 s later. May be repeated; read then tells Failed."""
        ...


class Console(Protocol):
    """The serial console of an instance."""

    async def read(self) -> bytes:
        """What comes next: first what was said lately, then live. Empty when the console has ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Type something.

        Raises:
            StreamClosed: the console has ended.
        """
        ...

    async def close(self) -> None:
        """Look away; the console itself goes on. May be repeated."""
        ...


class CloudInit(StrEnum):
    """How far cloud-init is in this boot; NONE also where it is not installed."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestNic:
    """A network interface as the guest has it. Addresses are of either family, with prefix length."""

    name: str
    mac: str | None
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestStatus:
    """What the guest says of itself. None where it did not say."""

    boot_id: str | None
    hostname: str | None
    kernel: str | None
    uptime_s: float | None
    load: tuple[float, float, float] | None
    memory_total_kib: int | None
    memory_available_kib: int | None
    root_total_bytes: int | None
    root_used_bytes: int | None
    nics: tuple[GuestNic, ...]
    cloud_init: CloudInit
    cloud_init_error: str | None
