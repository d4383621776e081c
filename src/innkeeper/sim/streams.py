"""Lines into simulated guests: a console that one can type on, and a guest that knows a handful of commands.

The commands (sim/commands.py) do what they say, on what they are given: `cat` returns its input, `sleep` takes its
time, `poweroff` ends the machine. Any other is refused as not found, rather than made up.
"""

from __future__ import annotations

import asyncio
from collections import deque

from innkeeper.model.hardware import NetworkCard
from innkeeper.model.observed import Phase
from innkeeper.model.work import Refused
from innkeeper.ports.streams import (
    CloudInit,
    ExecRequest,
    Exited,
    Failed,
    GuestNic,
    GuestStatus,
    SessionEvent,
    Stderr,
    Stdout,
    StreamClosed,
)
from innkeeper.sim import commands
from innkeeper.sim.metal.guests import Machine
from innkeeper.sim.metal.pool import GIB
from innkeeper.sim.state import SimState

_UNREAD_MAX = 64 * 1024
_CHUNK = 16 * 1024


class SimConsole:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed = False
        if machine.line.text:
            self._heard.put_nowait(bytes(machine.line.text))
        machine.line.listeners.append(self._hear)

    def _hear(self, data: bytes) -> None:
        self._heard.put_nowait(data)
        self._closed = self._closed or not data

    async def read(self) -> bytes:
        if self._closed and self._heard.empty():
            return b""
        return await self._heard.get()

    async def write(self, data: bytes) -> None:
        if self._closed:
            raise StreamClosed(f"the console of {self._machine.action.name} has ended")
        if self._machine.phase is not Phase.RUNNING:
            return  # nobody in the guest reads the line; what is typed is lost, as on a real one
        self._machine.line.put(data.replace(b"\r", b"\n").replace(b"\n", b"\r\n"))
        if b"\r" in data or b"\n" in data:
            self._machine.line.say(f"{self._machine.action.name} login: ")

    async def close(self) -> None:
        if not self._closed:
            self._machine.line.listeners.remove(self._hear)
            self._hear(b"")


class SimSession:
    """One command in a guest, or a shell that runs them line by line."""

    def __init__(self, state: SimState, machine: Machine, request: ExecRequest) -> None:
        self._state = state
        self._machine = machine
        self._pty = request.pty
        self._events: deque[SessionEvent] = deque()
        self._moved = asyncio.Event()
        self._unread = 0
        self._end: Exited | Failed | None = None
        self._line = b""
        self._reads_input = False
        self._file: str | None = None
        self._written = bytearray()
        self._is_shell = not request.argv
        if request.user not in (None, "root"):
            self.fail(f"the guest has no user {request.user}")
        elif self._is_shell:
            self._out(_prompt(self._machine))
        else:
            self._run(request.argv)

    # --- the caller's side

    async def read(self) -> SessionEvent:
        while not self._events:
            if self._end is not None:
                return self._end
            self._moved.clear()
            await self._moved.wait()
        event = self._events.popleft()
        if isinstance(event, Stdout | Stderr):
            self._unread -= len(event.data)
            self._moved.set()
        return event

    async def write(self, data: bytes) -> None:
        if self._end is not None:
            raise StreamClosed(f"the command in {self._machine.action.name} has ended")
        while self._unread > _UNREAD_MAX and self._end is None:
            self._moved.clear()
            await self._moved.wait()
        if self._is_shell:
            self._type(data)
        elif self._file is not None:
            self._written += data
        elif self._reads_input:
            self._out(data)

    async def eof(self) -> None:
        if self._end is None and self._file is not None:
            self._say(commands.write_file(self._state, self._machine, self._file, bytes(self._written)))
        elif self._end is None and self._file is None and (self._is_shell or self._reads_input):
            self._finish(_exited(0))

    async def resize(self, rows: int, cols: int) -> None:
        if self._pty is not None and self._end is None:
            self._pty = type(self._pty)(rows=rows, cols=cols, term=self._pty.term)

    async def signal(self, number: int) -> None:
        if self._machine.phase is not Phase.RUNNING:
            return  # nobody hears it
        self._finish(Exited(code=None, signal=number))

    async def close(self) -> None:
        self.fail("the session was closed")

    @property
    def ended(self) -> bool:
        return self._end is not None

    def fail(self, reason: str) -> None:
        """The line or the machine is gone."""
        self._finish(Failed(reason))

    # --- the guest's side

    def _finish(self, end: Exited | Failed) -> None:
        if self._end is None:
            self._end = end
            self._moved.set()

    def _out(self, data: bytes) -> None:
        self._events.append(Stdout(data))
        self._unread += len(data)
        self._moved.set()

    def _type(self, data: bytes) -> None:
        if self._pty is not None and b"\x03" in data:  # Ctrl-C: the line so far is given up
            self._line, data = b"", data.rpartition(b"\x03")[2]
            self._out(b"^C\r\n" + _prompt(self._machine))
        if self._pty is not None:
            self._out(data.replace(b"\r", b"\r\n"))
        self._line += data.replace(b"\r", b"\n")
        while b"\n" in self._line and self._end is None:
            line, _, self._line = self._line.partition(b"\n")
            self._obey(line.decode(errors="replace").split())

    def _obey(self, argv: list[str]) -> None:
        """One line of the shell."""
        if argv and argv[0] == "exit":
            self._finish(_exited(int(argv[1]) if len(argv) > 1 and argv[1].isdigit() else 0))
            return
        if argv:
            said = commands.answer(self._state, self._machine, self._pty, tuple(argv))
            text = f"sh: {argv[0]}: not found\n".encode() if said is None else said.out + said.err.encode()
            self._out(text.replace(b"\n", b"\r\n") if self._pty else text)
            if said is not None and not said.ends:
                return  # until Ctrl-C
        if self._end is None:
            self._out(_prompt(self._machine))

    def _run(self, argv: tuple[str, ...]) -> None:
        self._file = commands.output_file(argv)
        match argv:
            case ("cat",):
                self._reads_input = True
            case ("sleep", seconds) if seconds.replace(".", "", 1).isdigit():
                self._state.clock.later(float(seconds), lambda: self._finish(_exited(0)))
            case _ if self._file is not None:
                self._reads_input = True
            case _:
                said = commands.answer(self._state, self._machine, self._pty, argv)
                if said is None:
                    self.fail(f"{argv[0]}: not found in the simulated guest")
                else:
                    self._say(said)

    def _say(self, said: commands.Said) -> None:
        """All that a command says, and its end, if it has one."""
        for begin in range(0, len(said.out), _CHUNK):
            self._out(said.out[begin : begin + _CHUNK])
        if said.err:
            self._events.append(Stderr(said.err.encode()))
            self._unread += len(said.err.encode())
        if said.ends:
            self._finish(_exited(said.code))


def _exited(code: int) -> Exited:
    return Exited(code=code, signal=None)


def status(state: SimState, machine: Machine) -> GuestStatus:
    """What a guest says of itself."""
    at = state.clock.monotonic()
    hardware = machine.action.hardware
    disk = state.pool.disks[hardware.disks()[0].volume] if hardware.disks() else None
    return GuestStatus(
        boot_id=f"{machine.action.instance}-{machine.pid}",
        hostname=machine.action.name,
        kernel=state.size.kernel,
        uptime_s=at - machine.began_at,
        load=machine.loads(at),
        memory_total_kib=hardware.memory_mib * 1024,
        memory_available_kib=int((hardware.memory_mib - machine.memory_mib(at)) * 1024),
        root_total_bytes=disk.made.size_gib * GIB if disk else None,
        root_used_bytes=disk.used_bytes + state.pool.templates[disk.made.template].stored_bytes if disk else None,
        nics=tuple(_nic(state, machine, number, card) for number, card in enumerate(hardware.cards())),
        cloud_init=CloudInit(machine.cloud_init or "none"),
        cloud_init_error=None,
    )


def _nic(state: SimState, machine: Machine, number: int, card: NetworkCard) -> GuestNic:
    """Its addresses as long as the host keeps its port: a guest without one has nobody to get them from."""
    port = state.networks.port(machine.action.instance, card)
    addresses: tuple[str, ...] = ()
    if not isinstance(port, Refused):
        prefix = state.networks.applied[card.network].network.cidr.partition("/")[2]
        addresses = tuple(f"{address}/{prefix}" for address in port.addresses)
    return GuestNic(name=f"eth{number}", mac=card.mac, addresses=addresses)


def _prompt(machine: Machine) -> bytes:
    return f"root@{machine.action.name}:~# ".encode()
