"""What goes over the wire, in and out. Shapes only: what a value must be is decided by planners, not here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema


def rfc3339(at: float) -> str:
    """`2026-11-23T15:12:29.123Z`: a moment as it goes over the wire, always in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Moment = Annotated[
    float,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class Body(BaseModel):
    """Unknown fields are refused, so that a misspelt wish is not silently ignored; so is what has another type than the
    field: `1.5`, `true` and `"2"` are no whole numbers.
    """

    model_config = ConfigDict(extra="forbid", strict=True)


class LaunchBody(Body):
    """Made from a template or from a snapshot, one of them. What is left out is as there. `{n}` in the name becomes
    1, 2, 3 … where there are several.
    """

    template: Annotated[str | None, Field(description="name, name:version, or id", examples=["debian-12"])] = None
    snapshot: Annotated[str | None, Field(description="INSTANCE/NAME", examples=["web/before"])] = None
    name: str | None = None
    size: Annotated[str | None, Field(description="a named size", examples=["small"])] = None
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None
    network: str = "default"
    start: bool = True
    autostart: Annotated[bool, Field(description="start it again when its host has booted")] = False
    cold: Annotated[bool, Field(description="boot it, even where a memory image stands")] = False
    warms: Annotated[bool, Field(description="a memory image of the template may be made after it")] = True
    ephemeral: Annotated[bool, Field(description="delete it once it stops")] = False
    ttl_s: Annotated[float | None, Field(allow_inf_nan=False, description="delete it after so long")] = None
    user_data: Annotated[str | None, Field(description="for cloud-init")] = None
    user_data_base64: Annotated[str | None, Field(description="the same, where it is not text, such as gzip")] = None
    ssh_keys: list[str] = []
    labels: dict[str, str] = {}
    count: int = 1
    all_or_none: Annotated[bool, Field(description="when one fails, undo all")] = False
    dry_run: Annotated[bool, Field(description="answer with the plans, do nothing")] = False


class PowerBody(Body):
    force: bool = False
    grace_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 60.0


class RenameBody(Body):
    name: str


class SnapshotBody(Body):
    name: Annotated[str | None, Field(description="otherwise the first free of snap0, snap1 …")] = None


class RestoreBody(Body):
    restart: Annotated[bool, Field(description="end the instance if it runs, and start it again")] = False


class BuildBody(Body):
    recipe: str


class ImportBody(Body):
    """`path` is a file on the daemon's host; `format` is never guessed."""

    name: str
    path: str
    format: str
    firmware: str = "bios"


class PublishBody(Body):
    instance: str
    name: str


class SizeOut(BaseModel):
    vcpus: int
    memory_mib: int
    disk_gib: int


class RatesOut(BaseModel):
    """`cpus` counts busy threads of the host: 0.5 is one that is busy half of the time."""

    at: Moment
    cpus: float
    memory_mib: float
    disk_read_bytes_per_s: float
    disk_written_bytes_per_s: float
    net_received_bytes_per_s: float
    net_sent_bytes_per_s: float


class NicOut(BaseModel):
    id: str
    network: str
    mac: str
    addresses: list[str]


class VolumeOut(BaseModel):
    id: str
    name: str
    size_gib: int


class InstanceOut(BaseModel):
    """`status` is what was last observed, `wanted` what it should be. `snapshots` counts its own; `over` is the one
    that it stands on: NAME, or INSTANCE/NAME of another instance's that it was made from. `warm`: it went on from a
    memory image when it was started last, or will; `cold` says why a launch boots, and is empty later.
    """

    id: str
    name: str
    project: str
    host: str
    template: str
    size: SizeOut
    wanted: str
    status: str
    reason: str
    since: Moment | None
    agent: bool
    cloud_init: str
    addresses: list[str]
    nics: list[NicOut]
    volumes: list[VolumeOut]
    snapshots: int
    over: str | None
    warm: bool
    cold: str
    autostart: bool
    ephemeral: bool
    created_at: Moment
    expires_at: Moment | None
    labels: dict[str, str]
    operation: str | None
    generation: int
    rates: RatesOut | None = None


class SnapshotOut(BaseModel):
    """An instance's disks at one moment. `size` is what the instance had then.

    `stored_bytes` is what it takes by itself, written since the snapshot before it. `consistent`: the file systems
    stood still; otherwise they are as after a loss of power. Both are null while it is being taken. `parent` is the
    snapshot below it: NAME, or INSTANCE/NAME of another instance's; null for the first. `current`: its instance stands
    on it.
    """

    id: str
    name: str
    instance: str
    project: str
    host: str
    template: str
    status: Annotated[str, Field(examples=["taking", "ready", "deleting"])]
    created_at: Moment
    size: SizeOut
    stored_bytes: int | None
    consistent: bool | None
    parent: str | None
    current: bool
    operation: str | None
    generation: int


class MemoryImageOut(BaseModel):
    """`status` is `making`, `ready`, or `outdated` where its host has changed since. `clones` are the instances that
    were launched from it and are still there.
    """

    id: str
    host: str
    status: str
    size: SizeOut
    stored_bytes: int | None
    digest: str | None
    clones: int
    created_at: Moment


class TemplateOut(BaseModel):
    id: str
    name: str
    version: int
    project: str | None
    origin: str
    os: str
    firmware: str
    digest: str
    virtual_size_bytes: int
    stored_bytes: int
    agent: bool
    cloud_init: bool
    created_at: Moment
    default_size: SizeOut
    used_by: int
    memory_images: list[MemoryImageOut]
    generation: int


class HostOut(BaseModel):
    id: str
    name: str
    status: str
    vcpus: int
    vcpus_promised: int
    memory_mib: int
    memory_promised_mib: int
    disk_gib: int
    disk_promised_gib: int
    disk_free_gib: int
    instances: int
    accelerator: str
    accelerator_reason: str
    qemu_version: str
    machine_type: str
    kernel: str
    problems: list[str]


class NetworkOut(BaseModel):
    id: str
    name: str
    project: str
    cidr: str
    gateway: str
    domain: str
    nat: bool
    mtu: int
    instances: int


class StepOut(BaseModel):
    number: int
    state: str
    words: str
    undo: str


class OperationOut(BaseModel):
    """`progress` is 0..1 and `doing` says in words what goes on, while it does."""

    id: str
    verb: str
    title: str
    state: str
    principal: str
    subjects: list[str]
    created_at: Moment
    updated_at: Moment
    steps: int
    done: int
    progress: float
    doing: str
    error: str
    hint: str
    cancel_wanted: bool
    parent: str | None
    revision: int
    children: list[str] = []
    plan: list[StepOut] = []


class PlanOut(BaseModel):
    """`instances` are those that it would make. Launched later they may get other ids and addresses."""

    title: str
    instances: list[InstanceOut]
    steps: list[StepOut]
    notes: list[str]


class Plans(BaseModel):
    items: list[PlanOut]


class MetricOut(BaseModel):
    """Averages and maxima of the span that ends at `at`; units as in RatesOut."""

    at: Moment
    cpus_avg: float
    cpus_max: float
    memory_avg_mib: float
    memory_max_mib: float
    disk_read_avg_bytes_per_s: float
    disk_read_max_bytes_per_s: float
    disk_written_avg_bytes_per_s: float
    disk_written_max_bytes_per_s: float
    net_received_avg_bytes_per_s: float
    net_received_max_bytes_per_s: float
    net_sent_avg_bytes_per_s: float
    net_sent_max_bytes_per_s: float


class MetricsOut(BaseModel):
    """`recent` in spans of 10 s, `kept` in spans of 5 minutes."""

    recent: list[RatesOut]
    kept: list[MetricOut]


class GuestOut(BaseModel):
    """What the guest says of itself. Nobody vouches for it."""

    hostname: str | None
    kernel: str | None
    uptime_s: float | None
    load: list[float] | None
    memory_total_kib: int | None
    memory_available_kib: int | None
    root_total_bytes: int | None
    root_used_bytes: int | None
    addresses: list[str]
    cloud_init: str


class ServerOut(BaseModel):
    """`principal` is who the server takes the asker for."""

    version: str
    principal: str
    project: str
    revision: int
    catalogue: list[str]
    sizes: list[str]


class Instances(BaseModel):
    items: list[InstanceOut]
    next: str | None = None


class Snapshots(BaseModel):
    items: list[SnapshotOut]
    next: str | None = None


class Templates(BaseModel):
    items: list[TemplateOut]
    next: str | None = None


class Hosts(BaseModel):
    items: list[HostOut]
    next: str | None = None


class Networks(BaseModel):
    items: list[NetworkOut]
    next: str | None = None


class Operations(BaseModel):
    items: list[OperationOut]
    next: str | None = None
