"""A real host as a world: QEMU, namespaces, disks, and our own process put together as `inn serve` does.

Each test gets a data directory of its own under /tmp, and so its own names in the kernel. What takes long is made once
for all of them: the image, and the proof of how machines run here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from innkeeper.agent.local import LocalHost
from innkeeper.drivers.linuxnet.hand import LinuxNet
from innkeeper.drivers.qemu.hand import kill_stray, strays
from innkeeper.main.place import Place
from innkeeper.main.solo import local_host, net_settings
from innkeeper.model.ids import InstanceId, NetworkId, ProjectId, SecretRef, TemplateId
from innkeeper.model.network import Network
from innkeeper.model.observed import HostState, MachineState
from innkeeper.model.template import Image
from innkeeper.ports.streams import ExecRequest, Exited, Failed
from tests.contract.host.world import Stage
from tests.vm.built import built_image
from tests.vm.installation.template import put_image

NETWORK = Network(
    id=NetworkId("net-0123456789ab"),
    project=ProjectId("p-0123456789ab"),
    name="default",
    cidr="10.213.7.0/24",
    gateway="10.213.7.1",
    domain="inn.internal",
)
TEMPLATE = TemplateId("t-0123456789ab")
SAMPLE_EVERY_S = 0.5
DEADLINE_S = 90.0  # a guest needs 4 s on a quiet machine, and shares two cores with others here
GRACE_S = 3.0
_PROOF = Path(tempfile.gettempdir()) / f"innkeeper-tests-kvm-{os.uname().release}.json"


def unable() -> str | None:
    """Why there can be no such world here; None if there can."""
    if os.geteuid() != 0:
        return "needs root: users, namespaces and taps"
    missing = [p for p in ("qemu-system-x86_64", "dnsmasq") if shutil.which(p) is None]
    return f"{', '.join(missing)} not installed" if missing else None


@dataclass
class LocalWorld:
    """`restart_agent` leaves the old host as kill -9 would: nothing is said to anybody, machines run on."""

    place: Place
    _stage: Stage | None = None
    _living: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _host: LocalHost | None = None

    @property
    def host(self) -> LocalHost:
        assert self._host is not None
        return self._host

    @property
    def stage(self) -> Stage:
        assert self._stage is not None
        return self._stage

    async def live(self) -> None:
        net = LinuxNet(net_settings(self.place))
        self._living.push_async_callback(net.close)
        host = local_host(self.place, _no_secrets, net, sample_every_s=SAMPLE_EVERY_S)
        self._host = await self._living.enter_async_context(host)

    async def die(self) -> None:
        self._host = None
        await self._living.aclose()

    async def look_around(self, image: Image) -> None:
        """The stage is what the host says of itself first."""
        async with asyncio.timeout(DEADLINE_S):
            reports = self.host.reports()
            while not isinstance(report := await anext(reports), HostState):
                pass
        self._stage = Stage(
            facts=report.facts,
            template=TEMPLATE,
            image=image,
            network=NETWORK,
            recipe="tiny",
            deadline_s=DEADLINE_S,
            grace_s=GRACE_S,
        )

    async def restart_agent(self) -> None:
        await self.die()
        await self.live()

    async def kill_qemu(self, machine: MachineState) -> None:
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGKILL)

    async def deafen(self, instance: InstanceId) -> None:
        """The guest agent and the power button's daemon stay there, and listen to nobody."""
        await self._run(instance, "until kill -STOP $(pidof qemu-ga) $(pidof acpid) && pidof acpid; do sleep 0.2; done")

    async def panic(self, instance: InstanceId) -> None:
        """Once its kernel has somebody to tell."""
        await self._run(instance, "until [ -d /sys/module/pvpanic ]; do sleep 0.2; done")
        request = ExecRequest(argv=("sh", "-c", "echo c >/proc/sysrq-trigger"), env={})
        await self.host.exec(instance, request)

    async def _run(self, instance: InstanceId, script: str) -> None:
        request = ExecRequest(argv=("sh", "-c", script), env={})
        session = await self.host.exec(instance, request)
        async with asyncio.timeout(DEADLINE_S):
            while not isinstance(event := await session.read(), Exited | Failed):
                pass
        assert event == Exited(code=0, signal=None)


@functools.cache
def _tiny() -> Path:
    return built_image("tiny")


async def _no_secrets(ref: SecretRef) -> bytes:
    raise KeyError(ref.id)


@contextlib.asynccontextmanager
async def local_world(_: Path) -> AsyncIterator[LocalWorld]:
    # Not below pytest's own folder: only root may enter that, and dnsmasq and QEMU are somebody else.
    data = Path(tempfile.mkdtemp(prefix="innkeeper-contract-"))
    data.chmod(0o711)
    place = Place(data)
    place.make()
    if _PROOF.exists():
        shutil.copy(_PROOF, data / "kvm.json")
    world = LocalWorld(place)
    try:
        image = await put_image(data / "pool", TEMPLATE, "tiny", _tiny())
        await world.live()
        if not _PROOF.exists() and (data / "kvm.json").exists():
            shutil.copy(data / "kvm.json", _PROOF)
        await world.look_around(image)
        yield world
        await world.die()
    finally:
        await _remove_all(place)


async def _remove_all(place: Place) -> None:
    """Also after a test that failed halfway."""
    for stray in strays(place.data / "machines", ()):
        kill_stray(stray)
    net = LinuxNet(net_settings(place))
    for network in await net.present():
        await net.remove(network)
    await net.close()
    shutil.rmtree(place.volatile, ignore_errors=True)
    shutil.rmtree(place.data)
