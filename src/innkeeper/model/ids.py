"""Identities: a type of its own for each noun, so that a volume's id never passes for an instance's.

An id is a kind's prefix and twelve hexadecimal digits (`i-3f09c2d41b7a`). It is drawn once, at plan time, and never
reused. Ids are drawn from a `Draw`: a seed that the caller got from the system's randomness and that makes planning
repeatable.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

ProjectId = NewType("ProjectId", str)
InstanceId = NewType("InstanceId", str)
TemplateId = NewType("TemplateId", str)
VolumeId = NewType("VolumeId", str)
NetworkId = NewType("NetworkId", str)
NicId = NewType("NicId", str)
HostId = NewType("HostId", str)
OperationId = NewType("OperationId", str)
SecretId = NewType("SecretId", str)
SnapshotId = NewType("SnapshotId", str)
MemoryImageId = NewType("MemoryImageId", str)


_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def is_id(text: str) -> bool:
    """Whether a text has the form of an id. Ids become names of files, so none must be able to lead elsewhere."""
    return _ID.fullmatch(text) is not None


class Kind(StrEnum):
    """The nouns that have rows; the value is the word used in paths, events and messages."""

    PROJECT = "project"
    HOST = "host"
    TEMPLATE = "template"
    NETWORK = "network"
    INSTANCE = "instance"
    VOLUME = "volume"
    NIC = "nic"
    SNAPSHOT = "snapshot"
    MEMORY = "memory"


PREFIXES: dict[Kind, str] = {
    Kind.PROJECT: "p",
    Kind.HOST: "h",
    Kind.TEMPLATE: "t",
    Kind.NETWORK: "net",
    Kind.INSTANCE: "i",
    Kind.VOLUME: "vol",
    Kind.NIC: "nic",
    Kind.SNAPSHOT: "snap",
    Kind.MEMORY: "mem",
}


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """One object, whatever its kind. Claims, events and reports point with it."""

    kind: Kind
    id: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.id}"


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Points to a sealed secret. The only form in which a secret appears in plans, orders, events and logs."""

    id: SecretId


@dataclass(frozen=True, slots=True)
class Draw:
    """Randomness as a value: the same seed draws the same ids, addresses and MACs, so a plan can be made again."""

    seed: bytes

    def _digest(self, *words: object) -> bytes:
        return hashlib.blake2b("/".join(map(str, words)).encode(), key=self.seed[:64], digest_size=16).digest()

    def id(self, prefix: str, number: int = 0) -> str:
        return f"{prefix}-{self._digest('id', prefix, number).hex()[:12]}"

    def number(self, what: str, below: int) -> int:
        """A number in [0, below), the same for the same `what`."""
        return int.from_bytes(self._digest("number", what), "big") % below

    def branch(self, word: object) -> Draw:
        """A draw of its own for one of several objects planned together."""
        return Draw(self._digest("branch", word))
