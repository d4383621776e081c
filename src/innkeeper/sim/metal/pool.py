"""The directory of disks and templates of a simulated host: how full it is, and what depends on what."""

from __future__ import annotations

from dataclasses import dataclass, field

from innkeeper.model.actions import CreateDisk
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import MemoryImageId, TemplateId, VolumeId
from innkeeper.model.instance import Taken
from innkeeper.model.template import Baked, Image
from innkeeper.model.work import Refused
from innkeeper.sim.metal.files import GuestFile

GIB = 1 << 30
MIB = 1 << 20
_EMPTY_OVERLAY_BYTES = 196_624  # what qemu-img writes for an empty copy-on-write disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a template build makes, and how long it takes."""

    image: Image
    build_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """A file that may be imported. `format` is what it really is; `flaw` says why it is refused all the same, or ""."""

    format: str
    virtual_size_bytes: int
    stored_bytes: int
    flaw: str = ""


@dataclass(slots=True, kw_only=True)
class SimDisk:
    """`files` are those that a guest finds in it, by path. `taken` is told of it once it is frozen."""

    made: CreateDisk
    used_bytes: int
    files: dict[str, GuestFile] = field(default_factory=dict)
    begun: bool = False
    taken: Taken | None = None


class Pool:
    """Thin: a disk takes the room that was written, so promises may exceed the size, and writing may find no room."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.disks: dict[VolumeId, SimDisk] = {}
        self.templates: dict[TemplateId, Image] = {}
        self.memories: dict[MemoryImageId, Baked] = {}
        self.staging: dict[str, int] = {}
        self.being_read: set[VolumeId] = set()
        self.backed: dict[TemplateId, int] = {}
        self.above: dict[VolumeId, int] = {}
        self._used_bytes = 0

    @property
    def free_bytes(self) -> int:
        return max(0, self.size_bytes - self._used_bytes)

    def occupy(self, count: int) -> bool:
        """Take room for something that is none of ours; a negative count gives it back."""
        if count > self.free_bytes:
            return False
        self._used_bytes += count
        return True

    def create(self, action: CreateDisk) -> Refused | None:
        disk = self.disks.get(action.volume)
        if disk is not None:
            if disk.made == action:
                return None
            return Refused(reason=f"disk {action.volume} exists already and differs", hint="Delete it first.")
        need_gib = self._least_gib(action)
        if isinstance(need_gib, Refused):
            return need_gib
        if action.size_gib < need_gib:
            below = "its template's" if action.over is None else f"{action.over}'s"
            return Refused(
                reason=f"disk {action.volume} of {action.size_gib} GiB is smaller than {below} {need_gib} GiB"
            )
        if not self.occupy(_EMPTY_OVERLAY_BYTES):
            return Refused(
                reason=f"no room in the pool for disk {action.volume}",
                hint="Delete disks or templates, or add storage.",
            )
        self.backed[action.template] = self.backed.get(action.template, 0) + 1
        self.disks[action.volume] = SimDisk(
            made=action,
            used_bytes=_EMPTY_OVERLAY_BYTES,
        )
        if action.over is not None:
            self.above[action.over] = self.above.get(action.over, 0) + 1
        return None

    def _least_gib(self, action: CreateDisk) -> int | Refused:
        """The size of what it stands over."""
        image = self.templates.get(action.template)
        if image is None:
            return Refused(
                reason=f"template {action.template} is not on this host",
                hint="Build or import it here, or choose another host.",
            )
        if action.over is None:
            return -(-image.virtual_size_bytes // GIB)
        lower = self.disks.get(action.over)
        if lower is None or lower.made.template != action.template:
            return Refused(reason=f"disk {action.over}, which {action.volume} should stand over, is not on this host")
        return lower.made.size_gib

    def below(self, volume: VolumeId) -> tuple[VolumeId, ...]:
        """The disks under one, from the top down."""
        found: list[VolumeId] = []
        standing = self.disks[volume].made.over
        while standing is not None:
            found.append(standing)
            standing = self.disks[standing].made.over
        return tuple(found)

    def begin(self, volume: VolumeId) -> None:
        """A guest reads it from now on, and what is below it is as it will be for ever."""
        disk = self.disks[volume]
        if disk.made.over is not None and not disk.begun:
            disk.files = dict(self.disks[disk.made.over].files)
        disk.begun = True

    def delete(self, volume: VolumeId, user: str | None) -> Refused | None:
        """`user` is who runs on it."""
        if user is not None:
            return Refused(reason=f"disk {volume} is in use by running machine {user}", hint="Stop the machine first.")
        if volume in self.being_read:
            return Refused(
                reason=f"disk {volume} is being copied into a template", hint="Wait, or cancel that operation."
            )
        if count := self.above.get(volume, 0):
            return Refused(reason=f"disk {volume} is below {count} others", hint="Delete what stands over it first.")
        disk = self.disks.pop(volume, None)
        if disk is not None:
            if disk.made.over is not None:
                self.above[disk.made.over] -= 1
            self._used_bytes -= disk.used_bytes
            self.backed[disk.made.template] -= 1
        return None

    def write(self, volume: VolumeId, count: int) -> bool:
        """A guest writes new blocks. False: no room, and nothing was written."""
        if not self.occupy(count):
            return False
        self.disks[volume].used_bytes += count
        return True

    # --- templates

    def stage(self, name: str, stored_bytes: int) -> bool:
        """A half-made template grows to so many bytes. False: no room, and it stays as it was."""
        if not self.occupy(stored_bytes - self.staging.get(name, 0)):
            return False
        self.staging[name] = stored_bytes
        return True

    def unstage(self, name: str) -> None:
        self._used_bytes -= self.staging.pop(name, 0)

    def publish(self, name: str, template: TemplateId, image: Image) -> None:
        """The staged template appears, whole, under its name. All its bytes were staged."""
        del self.staging[name]
        self.templates[template] = image

    def keep_memory(self, name: str, memory: MemoryImageId, baked: Baked) -> None:
        """As `publish`, of a memory image."""
        del self.staging[name]
        self.memories[memory] = baked

    def delete_memory(self, memory: MemoryImageId) -> None:
        baked = self.memories.pop(memory, None)
        if baked is not None:
            self._used_bytes -= baked.stored_bytes

    def delete_template(self, template: TemplateId) -> Refused | None:
        if count := self.backed.get(template, 0):
            return Refused(reason=f"{count} disks depend on template {template}", hint="Delete those instances first.")
        image = self.templates.pop(template, None)
        if image is not None:
            self._used_bytes -= image.stored_bytes
        self.backed.pop(template, None)
        return None


def tiny_image(digest: str = "5" * 64) -> Image:
    return Image(
        digest=digest,
        virtual_size_bytes=64 * MIB,
        stored_bytes=16 * MIB,
        firmware=Firmware.DIRECT,
        kernel_args="console=ttyS0 root=/dev/vda",
        os="tiny",
        agent=True,
        cloud_init=False,
    )


def debian_image(digest: str = "d" * 64) -> Image:
    return Image(
        digest=digest,
        virtual_size_bytes=2 * GIB,
        stored_bytes=700 * MIB,
        firmware=Firmware.DIRECT,
        kernel_args="console=ttyS0 root=/dev/vda",
        os="Debian GNU/Linux 12 (bookworm)",
        agent=True,
        cloud_init=True,
    )
