"""Templates: blueprints, versioned and immutable. A template's row appears only when its artefacts are complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import Kind, ProjectId, Ref, TemplateId
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
