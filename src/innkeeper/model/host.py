"""Hosts, projects, and who is asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from innkeeper.model.ids import HostId, Kind, ProjectId, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a host is and offers, as it reported. `accelerator` is `kvm` or `tcg`; `accelerator_reason` says how
    that was proven.

    `boot_id` changes with each boot of the machine; `problems` are sentences for the operator.
    """

    vcpus: int
    memory_mib: int
    disk_gib: int
    accelerator: str
    accelerator_reason: str
    qemu_version: str
    machine_type: str
    cpu_model: str
    kernel: str
    boot_id: str
    disk_free_gib: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """`cpu_overcommit` is how many vCPUs are promised per hardware thread; memory is never promised twice.

    16 was OpenStack Nova's ratio for a decade: most vCPUs idle most of the time, and memory is what runs out first.
    """

    id: HostId
    name: str
    facts: HostFacts | None = None
    cpu_overcommit: float = 16.0
    memory_reserved_mib: int = 512
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.HOST, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    id: ProjectId
    name: str
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.PROJECT, self.id)


class Role(StrEnum):
    ADMINISTRATOR = "administrator"
    MEMBER = "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is asking, as an edge established it. An administrator may act in every project."""

    name: str
    role: Role
    projects: tuple[ProjectId, ...] = ()
