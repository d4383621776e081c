"""What people are told about a machine: how events change what is seen, and how an end is explained."""

from __future__ import annotations

from typing import Any

import pytest

from innkeeper.drivers.qemu.probe.version import QemuUnusable, newest_q35
from innkeeper.drivers.qemu.qmp import translate
from innkeeper.drivers.qemu.seen import (
    ChannelChanged,
    EndFacts,
    Reset,
    Resumed,
    Run,
    Seen,
    ShutDown,
    StateMoved,
    explain,
    follow,
)
from innkeeper.model.hardware import AGENT_CHANNEL
from innkeeper.model.observed import Ended, Phase
from tests.golden.compare import same_as_golden

CHANNELS = {"port-agent": AGENT_CHANNEL}
FULL = {
    "device": "",
    "node-name": "vol-1",
    "operation": "write",
    "action": "stop",
    "nospace": True,
    "reason": "No space",
}
OPENED = ("VSERPORT_CHANGE", {"id": "port-agent", "open": True})
CLOSED = ("VSERPORT_CHANGE", {"id": "port-agent", "open": False})

STORIES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "boots and answers": [OPENED],
    "is paused and goes on": [OPENED, ("STOP", {}), ("RESUME", {})],
    "meets a full pool and goes on": [OPENED, ("BLOCK_IO_ERROR", FULL), ("STOP", {}), ("RESUME", {})],
    "is stopped by a broken disk": [("BLOCK_IO_ERROR", FULL | {"nospace": False, "reason": "Input/output error"})],
    "is told of a broken disk": [("BLOCK_IO_ERROR", FULL | {"nospace": False, "action": "report", "reason": "bad"})],
    "panics, is paused, goes on, is reset": [
        OPENED,
        ("GUEST_PANICKED", {"action": "run"}),
        ("STOP", {}),
        ("RESUME", {}),
        ("RESET", {"guest": False, "reason": "host-qmp-system-reset"}),
    ],
    "restarts its agent": [OPENED, CLOSED, OPENED],
    "shuts itself down": [OPENED, ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})],
    "is saved, and told to end": [
        OPENED,
        ("STOP", {}),
        ("MIGRATION", {"status": "setup"}),
        ("MIGRATION", {"status": "active"}),
        ("MIGRATION", {"status": "completed"}),
        ("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"}),
    ],
    "says what does not concern us": [("NIC_RX_FILTER_CHANGED", {}), ("VSERPORT_CHANGE", {"id": "x", "open": True})],
}

ENDS = {
    "guest powered off, heard": EndFacts(code=0, shut_down=ShutDown(True, "guest-shutdown")),
    "guest powered off, not heard": EndFacts(code=0),
    "asked, guest powered off": EndFacts(code=0, shut_down=ShutDown(True, "guest-shutdown"), asked="it was stopped"),
    "asked, then killed": EndFacts(signal=9, asked="it was stopped by force"),
    "asked, crashed on the way": EndFacts(signal=11, asked="it was stopped"),
    "asked, nobody saw": EndFacts(asked="it was stopped"),
    "crashed": EndFacts(signal=11, log="qemu: something went wrong"),
    "aborted": EndFacts(signal=6),
    "killed from outside": EndFacts(signal=9, out_of_memory=False),
    "killed, perhaps for memory": EndFacts(signal=9, out_of_memory=None),
    "killed for memory": EndFacts(signal=9, out_of_memory=True),
    "killed for memory, nobody saw": EndFacts(out_of_memory=True),
    "killed by its confinement": EndFacts(signal=31),
    "real-time signal": EndFacts(signal=40),
    "terminated, heard": EndFacts(code=0, shut_down=ShutDown(False, "host-signal")),
    "terminated, not heard": EndFacts(code=0, log="qemu: terminating on signal 15 from pid 1 (init)"),
    "told to quit by nobody of us": EndFacts(code=0, shut_down=ShutDown(False, "host-qmp-quit")),
    "bad arguments": EndFacts(code=1, log="qemu: unable to find CPU model 'x'"),
    "nobody saw": EndFacts(log="the last that was said"),
    "host booted": EndFacts(host_booted=True, code=0),
}


def test_stories() -> None:
    lines = []
    for title, events in STORIES.items():
        seen = Seen()
        lines.append(f"# {title}")
        for name, data in events:
            event = translate({"event": name, "data": data}, CHANNELS)
            seen = follow(seen, event) if event is not None else seen
            told = f"  ({seen.trouble})" if seen.trouble else ""
            lines.append(f"{name:24} {seen.phase.value}, {seen.run.value}{told}")
    same_as_golden("qemu/stories.txt", "\n".join(lines) + "\n")


LOADED: list[tuple[str, dict[str, Any]]] = [
    ("MIGRATION", {"status": "setup"}),
    ("MIGRATION", {"status": "active"}),
    ("MIGRATION", {"status": "completed"}),
]


def test_what_is_loaded_is_starting_until_it_goes_on() -> None:
    seen = Seen(run=Run.LOADING)
    for name, data in LOADED:
        assert (seen.phase, seen.moves) == (Phase.STARTING, 0)
        event = translate({"event": name, "data": data}, CHANNELS)
        seen = follow(seen, event) if event is not None else seen
    assert (seen.phase, seen.moves, seen.moved_well) == (Phase.STARTING, 1, True)
    seen = follow(seen, Resumed())
    assert (seen.phase, seen.run) == (Phase.STARTING, Run.RUNNING)
    assert follow(seen, ChannelChanged(AGENT_CHANNEL, True)).phase is Phase.RUNNING
    assert follow(seen, Reset(True)).moves == 1


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_move_that_was_given_up_is_one_too(status: str) -> None:
    event = translate({"event": "MIGRATION", "data": {"status": status}}, CHANNELS)
    assert event == StateMoved(False)
    seen = follow(Seen(moves=1, moved_well=True), StateMoved(False))
    assert (seen.moves, seen.moved_well) == (2, False)


def test_ends() -> None:
    lines = []
    for title, facts in ENDS.items():
        end = explain(facts)
        lines.append(f"{title}\n    {end.ended.value}: {end.reason}")
    same_as_golden("qemu/ends.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("facts", [f for f in ENDS.values() if f.asked])
def test_what_was_asked_for_is_never_a_crash(facts: EndFacts) -> None:
    assert explain(facts).ended is Ended.ASKED


def test_a_machine_that_cannot_be_asked_is_not_called_running() -> None:
    assert Seen(answered=True, unreachable="it hangs").phase is Phase.UNKNOWN
    assert Seen(run=Run.BROKEN).phase is Phase.PAUSED


def test_the_newest_board_is_found_by_number_not_by_name() -> None:
    names = ["pc-q35-7.2", "pc-q35-10.0", "pc-q35-9.2.1", "pc-i440fx-11.0", "pc-q35-noble", "q35"]
    assert newest_q35(names) == "pc-q35-10.0"
    with pytest.raises(QemuUnusable):
        newest_q35(["q35", "microvm"])
