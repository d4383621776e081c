"""Whose machine is a process that bears our mark? It can write what it likes there, so that alone proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.drivers.qemu.directory import MachineDirectory
from innkeeper.drivers.qemu.hand import adopt, strays
from innkeeper.drivers.qemu.process import Stray
from innkeeper.model.ids import InstanceId
from innkeeper.ports.launcher import Users
from tests.contract.machines.processes import Processes, files_opened, processes, write_record
from tests.vm.machines import unable

pytestmark = pytest.mark.skipif(unable() is not None, reason=str(unable()))

OWN, OTHER = InstanceId("i-3f09c2d41b7a"), InstanceId("i-0123456789ab")
UID, OTHER_UID = Users(0).of_slot(6), Users(0).of_slot(7)
NOBODY = 65534


@pytest.fixture
def world() -> Iterator[Processes]:
    with processes() as made:
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two machines were started here, each as its user; nobody wrote down as which process."""
    root = tmp_path / "machines"
    for instance, uid in ((OWN, UID), (OTHER, OTHER_UID)):
        (root / instance).mkdir(parents=True)
        MachineDirectory(root / instance).note_user(uid)
    return root


def pids(found: list[Stray]) -> set[tuple[str, int]]:
    return {(stray.instance, stray.pid) for stray in found}


async def adopted(path: Path) -> int | None:
    """The pid of the machine that is found there."""
    machine = await adopt(path, "web", timeout_s=0.2)
    if machine is None:
        return None
    await machine.close()
    return machine.record.pid


async def test_a_mark_and_the_right_user_make_a_machine(root: Path, world: Processes) -> None:
    pid = world.run(f"{root}/{OWN}/machine.json", UID)
    assert pids(strays(root, ())) == {(OWN, pid)}
    assert strays(root, {pid}) == []
    assert await adopted(root / OWN) == pid
    assert await adopted(root / OTHER) is None


@pytest.mark.parametrize(
    "mark",
    [
        "{root}/../machine.json",
        "{root}/machine.json",
        "{root}//machine.json",
        "{root}/./machine.json",
        "{root}/{own}",
        "{root}/{own}/",
        "{root}/{own}/exit.json",
        "{root}/{own}/machine.json/",
        "{root}/{own}//machine.json",
        "{root}/{own}/sub/machine.json",
        "{root}/{own}/../machine.json",
        "{root}/{own}/../{own}/machine.json",
        "{root}/{own}\n/machine.json",
        "{root}/I-3F09C2D41B7A/machine.json",
        "{root}/.{own}/machine.json",
        "{root}/-/machine.json",
        "{root}/" + "a" * 64 + "/machine.json",
        "{root}-other/{own}/machine.json",
        "/{own}/machine.json",
        "",
    ],
)
async def test_a_mark_that_names_no_record_is_none(root: Path, world: Processes, mark: str) -> None:
    world.run(mark.format(root=root, own=OWN), UID)
    assert strays(root, ()) == []
    assert await adopted(root / OWN) is None


async def test_another_machines_user_cannot_claim_to_be_this_one(root: Path, world: Processes) -> None:
    liar = world.run(f"{root}/{OWN}/machine.json", OTHER_UID)
    assert await adopted(root / OWN) is None
    honest = world.run(f"{root}/{OWN}/machine.json", UID)
    assert await adopted(root / OWN) == honest
    # Both are told of: what runs as one of our users and is no machine is ended by whoever looks.
    assert pids(strays(root, ())) == {(OWN, liar), (OWN, honest)}


@pytest.mark.parametrize("uid", [0, NOBODY])
async def test_users_that_are_not_ours_are_left_alone(root: Path, world: Processes, uid: int) -> None:
    world.run(f"{root}/{OWN}/machine.json", uid)
    assert strays(root, ()) == []
    assert await adopted(root / OWN) is None


async def test_a_strangers_environment_is_not_even_read(root: Path, world: Processes) -> None:
    """Its bytes are in his own memory, and he may let us wait for them."""
    stranger, other, own = (world.run(f"{root}/{OWN}/machine.json", uid) for uid in (NOBODY, OTHER_UID, UID))
    with files_opened() as opened:
        assert pids(strays(root, ())) == {(OWN, other), (OWN, own)}
    assert f"/proc/{own}/environ" in opened
    assert f"/proc/{stranger}/environ" not in opened
    with files_opened() as opened:
        assert await adopted(root / OWN) == own
    assert f"/proc/{own}/environ" in opened
    assert f"/proc/{other}/environ" not in opened


async def test_an_instance_that_was_never_started_has_no_machine(root: Path, world: Processes) -> None:
    world.run(f"{root}/i-ffffffffffff/machine.json", UID)
    (root / "i-ffffffffffff").mkdir()
    assert await adopted(root / "i-ffffffffffff") is None


async def test_what_was_written_down_holds_whatever_the_process_says(root: Path, world: Processes) -> None:
    pid = world.run(f"{root}/{OTHER}/machine.json", UID)
    silent = world.run("", OTHER_UID)
    write_record(root / OWN, pid, OWN)
    write_record(root / OTHER, silent, OTHER)
    assert pids(strays(root, ())) == {(OWN, pid), (OTHER, silent)}
    assert await adopted(root / OWN) == pid
    assert await adopted(root / OTHER) == silent


async def test_a_folder_that_was_renamed_tells_of_another_machine(root: Path, world: Processes) -> None:
    pid = world.run(f"{root}/{OWN}/machine.json", UID)
    write_record(root / OTHER, pid, OWN)
    assert pids(strays(root, ())) == {(OWN, pid)}


async def test_a_record_of_an_older_or_newer_daemon_is_read(root: Path, world: Processes) -> None:
    pid = world.run("", UID)
    write_record(root / OWN, pid, OWN)
    record = root / OWN / "machine.json"
    record.write_text(record.read_text().replace("{", '{"cgroups": [], "from the future": 1, ', 1))
    assert await adopted(root / OWN) == pid


async def test_an_endless_environment_is_not_read_to_its_end(root: Path, world: Processes) -> None:
    """A process may move the bounds of what the kernel shows as its environment."""
    world.run(f"{root}/{OWN}/machine.json", UID, before={"A": "x" * 100_000})
    assert strays(root, ()) == []
