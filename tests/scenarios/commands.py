"""What can be said in a scenario: a line for each command.

First what users wish, then what befalls the machine, its guests and our process. ` &` after a wish: go on while it is
under way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from innkeeper.control.launching import LaunchOrder
from innkeeper.control.waiting import Until
from innkeeper.model.actions import CreateDisk
from innkeeper.model.ids import InstanceId, Kind, VolumeId
from innkeeper.model.observed import Ended
from innkeeper.model.plans import Refusal
from innkeeper.model.work import Operation
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.sim.commands import disk_of, write_file
from innkeeper.sim.machines import panic
from innkeeper.sim.metal.guests import Guest
from innkeeper.sim.metal.pool import GIB
from tests.scenarios.world import YOU, World

Answer = Operation | Refusal
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SOON_S = 1.0
_GUESTS = {
    "deaf": Guest(ignores_shutdown=True),
    "stillborn": Guest(dies_at_start="could not open disk image"),
    "sound": Guest(),
}


def seconds(span: str) -> float:
    return float(span[:-1]) * _SECONDS[span[-1]]


def launch(w: World, template: str, name: str, *options: str) -> Awaitable[Answer]:
    """Options as `--ephemeral` and `--ttl=1h`."""
    given = (option.removeprefix("--").partition("=") for option in options)
    more: dict[str, Any] = {"ttl_s" if k == "ttl" else k: seconds(v) if v else True for k, _, v in given}
    snapshot = template if "/" in template else None
    wish = LaunchWish(template="" if snapshot else template, snapshot=snapshot, name=name, **more)
    return w.life.launching.launch(YOU, LaunchOrder(wish=wish), w.asking())


def note(w: World, name: str, *words: str) -> None:
    """Words are written into a file of the guest, in place of those of before."""
    said = write_file(w.state, w.state.running(name), "/root/note", " ".join(words).encode())
    assert said.code == 0, said


def read(w: World, name: str) -> None:
    disk = disk_of(w.state, w.state.running(name))
    found = None if disk is None else disk.files.get("/root/note")
    w.line(f"{name} reads: {found.data.decode() if found else 'nothing'}")


def snapshots(w: World, name: str) -> None:
    """An instance's snapshots and what lies on the host."""
    instance = w.cluster.instances[InstanceId(w.cluster.named(Kind.INSTANCE, w.asking().project, name) or "")]
    for s in w.cluster.snapshots_by_age(instance.id):
        how = "unfinished" if s.taken is None else "consistent" if s.taken.consistent else "as after a loss of power"
        w.line(f"{s.name}: {how}")
    depth = len(w.cluster.below(instance.hardware.disks()[0].volume))
    w.line(f"{name} stands over {depth}, the pool has {len(w.state.pool.disks)} disks")


async def cancel(w: World, *title: str) -> Answer:
    """The operation of this title that is under way."""
    (found,) = [
        o for o in await w.store.journal.operations(None, 100) if o.title == " ".join(title) and not o.state.ended
    ]
    return await w.life.operations.cancel(YOU, w.asking().project, found.id)


def show(w: World) -> None:
    """Every instance as it is and as it is wanted, and every template."""
    for i in sorted(w.cluster.instances.values(), key=lambda i: i.name):
        w.line(f"{i.name}: {w.cluster.phase(i.id).value}, wanted {i.wanted.value}")
    for t in sorted(w.cluster.templates.values(), key=lambda t: t.full_name):
        w.line(f"template {t.full_name}: {'unfinished' if t.image is None else 'ready'}")


async def restart_daemon(w: World) -> None:
    await w.end()
    await w.begin()


async def reboot(w: World) -> None:
    await w.end()
    w.state.reboot()
    await w.begin()


async def reboot_and_die(w: World) -> None:
    """Our process dies as soon as it has noted what the host's boot has ended, before it did anything about it."""
    await w.end()
    w.state.reboot()
    await w.enter()
    async for _ in w.store.journal.events(w.cluster.revision):
        if all(machine.ended is Ended.HOST_BOOT for machine in w.cluster.machines.values()):
            break
    await w.end()


async def begin_and_await(w: World, name: str, until: str) -> Refusal | None:
    """Asked at once, before our process has done anything."""
    await w.enter()
    answer = await w.life.waiting.wait(YOU, w.asking().project, name, Until(until), 60)
    if isinstance(answer, Refusal):
        return answer
    w.line(f"{name} has come to {until}")
    return None


def write(w: World, name: str, mib: str) -> None:
    machine = w.state.running(name)
    w.state.write(name, machine.action.hardware.disks()[0].volume, int(mib) << 20)


def stranger(w: World, volume: str) -> None:
    """A disk that no row knows lies in the pool."""
    template = next(iter(w.state.pool.templates))
    refused = w.state.pool.create(CreateDisk(volume=VolumeId(volume), template=template, size_gib=1, uid_slot=1))
    assert refused is None, refused


COMMANDS: dict[str, Callable[..., Any]] = {
    "launch": launch,
    "start": lambda w, name: w.life.instances.start(YOU, name, w.asking()),
    "stop": lambda w, name, *force: w.life.instances.stop(YOU, name, w.asking(), force=bool(force)),
    "resume": lambda w, name: w.life.instances.resume(YOU, name, w.asking()),
    "rename": lambda w, name, new: w.life.instances.rename(YOU, name, new, w.asking()),
    "delete": lambda w, name, *force: w.life.instances.delete(YOU, name, w.asking(), force=bool(force)),
    "snapshot": lambda w, name, word: w.life.snapshots.take(YOU, name, word, w.asking()),
    "restore": lambda w, name, word: w.life.snapshots.restore(YOU, name, word, w.asking(), restart=False),
    "rewind": lambda w, name, word: w.life.snapshots.restore(YOU, name, word, w.asking(), restart=True),
    "delete snapshot": lambda w, name, word: w.life.snapshots.delete(YOU, name, word, w.asking()),
    "cancel": cancel,
    "build": lambda w, recipe: w.life.templates.build(YOU, recipe, w.asking()),
    "publish": lambda w, name, template: w.life.templates.publish(YOU, name, template, w.asking()),
    "delete template": lambda w, name: w.life.templates.delete(YOU, name, w.asking()),
    "show": show,
    "note": note,
    "read": read,
    "snapshots": snapshots,
    "wait": lambda w, span: w.state.clock.sleep(seconds(span)),
    "reboot": reboot,
    "reboot and die": reboot_and_die,
    "begin and await": begin_and_await,
    "restart daemon": restart_daemon,
    "crash": lambda w, name: w.state.crash(name),
    "panic": lambda w, name: panic(w.state, name),
    "poweroff": lambda w, name: w.state.shut_down(name),
    "write": write,
    "fill disk": lambda w: w.state.pool.occupy(w.state.pool.free_bytes),  # with files that are not ours
    "clear disk": lambda w: w.state.pool.occupy(-GIB),
    "stranger": stranger,
    "guest": lambda w, name, kind: w.state.script(name, _GUESTS[kind]),  # from its next start on
}
AT_ONCE = ("show", "note", "read", "snapshots", "wait", "guest", "reboot and die")


async def say(w: World, said: str) -> None:
    """Say one line, and let the world answer. A refusal is answered at once."""
    w.transcript.say(said)
    words = said.removesuffix(" &").split()
    length = next(n for n in (3, 2, 1) if " ".join(words[:n]) in COMMANDS)
    command, rest = " ".join(words[:length]), words[length:]
    answer = COMMANDS[command](w, *rest)
    if isinstance(answer, Awaitable):
        answer = await answer
    if isinstance(answer, Refusal):
        w.line(f"no: {answer}")
    if isinstance(answer, Refusal) or said.endswith(" &"):
        await w.state.clock.sleep(_SOON_S)
    elif command not in AT_ONCE:
        await w.calm()
