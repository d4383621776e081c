"""Templates: blueprints, versioned and immutable. A template's row appears only when its artefacts are complete.

And their memory images: the memory of a machine that was booted once from a template, from which clones go on instead
of booting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from innkeeper.model.hardware import Firmware, Hardware
from innkeeper.model.host import HostFacts
from innkeeper.model.ids import HostId, Kind, MemoryImageId, ProjectId, Ref, TemplateId, VolumeId
from innkeeper.model.instance import Size


class Origin(StrEnum):
    BUILT = "built"
    IMPORTED = "imported"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What the artefacts of a finished template are; found out by the host that made them.

    `digest` is SHA-256 over all artefacts; `kernel_args` is None for a template that boots by firmware.
    `agent` and `cloud_init` say what the guest brings, so that waiting for either can be refused at once.
    """

    digest: str
    virtual_size_bytes: int
    stored_bytes: int
    firmware: Firmware
    kernel_args: str | None = None
    os: str = ""
    agent: bool = False
    cloud_init: bool = False

    @property
    def lacks_cloud_init(self) -> bool:
        """Known to come without cloud-init, so that what is said to it would be lost.

        That is known of what was built by a recipe of ours, and of what was published from that: only these boot with a
        kernel that the host hands over. What else was imported is taken to have it.
        """
        return self.firmware is Firmware.DIRECT and not self.cloud_init


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """`project` None means: for everybody. `image` None means: being made.

    Such a template is shown nowhere and launches nothing.
    """

    id: TemplateId
    project: ProjectId | None
    name: str
    version: int
    origin: Origin
    created_at: float
    default_size: Size
    image: Image | None = None
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.TEMPLATE, self.id)

    @property
    def full_name(self) -> str:
        return f"{self.name}:{self.version}"


# --- memory images

BAKER_SLOT = 65_533
"""The user slot of machines that memory images are made from, above all that instances are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """On what memory was taken. With any other of these the same bytes may mean something else."""

    qemu_version: str
    machine_type: str
    cpu_model: str
    accelerator: str
    kernel: str

    @classmethod
    def of(cls, facts: HostFacts) -> Fits:
        return cls(
            qemu_version=facts.qemu_version,
            machine_type=facts.machine_type,
            cpu_model=facts.cpu_model,
            accelerator=facts.accelerator,
            kernel=facts.kernel,
        )

    def differs_in(self, other: Fits) -> str:
        """What is not the same, in words; nothing where all is."""
        named = (
            ("QEMU", self.qemu_version, other.qemu_version),
            ("machine type", self.machine_type, other.machine_type),
            ("CPU model", self.cpu_model, other.cpu_model),
            ("accelerator", self.accelerator, other.accelerator),
            ("host kernel", self.kernel, other.kernel),
        )
        return ", ".join(f"{what} {then}, not {now}" for what, then, now in named if then != now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baked:
    """What its host tells once it is made. `digest` is SHA-256 over memory and device state."""

    digest: str
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryImage:
    """Of one template, on one host, for one project: what is in it may have been seen by who launched it.

    `volumes` are the frozen ones, in the order of the disks, that the machine wrote while it booted: disks of clones
    stand over them. `baked` None means: being made.
    """

    id: MemoryImageId
    project: ProjectId
    template: TemplateId
    host: HostId
    size: Size
    hardware: Hardware
    volumes: tuple[VolumeId, ...]
    fits: Fits
    created_at: float
    baked: Baked | None = None
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.MEMORY, self.id)

    @property
    def name(self) -> str:
        """It is called by its id: nobody gives it a name."""
        return self.id
