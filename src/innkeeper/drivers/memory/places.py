"""Where memory images lie, and the record beside each.

    ROOT/memories/images/<memory id>/memory       0444, with holes: the guest's memory
                                     state        0444: all else that QEMU holds of the machine
                                     about.json   0444: sizes, digests, and what our user tells of it
    ROOT/memories/staging/                        half-made ones; nothing in it outlives a start of ours

The folders are 0700. QEMU never sees these files: it gets their content in sealed memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from innkeeper.drivers.memory.faults import MemoryFailed, damaged, in_words
from innkeeper.model.ids import MemoryImageId, is_id
from innkeeper.ports.folders import sync_folder

MEMORY = "memory"
STATE = "state"
ABOUT = "about.json"
FORM = 1
# A few lines by our user; the rest is ours.
_ABOUT_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Digests are SHA-256 of content (`pages.py`). `about` is our user's own text."""

    memory: str
    memory_bytes: int
    state_bytes: int
    memory_digest: str
    state_digest: str
    about: str
    form: int = FORM

    @property
    def digest(self) -> str:
        """Of all of it: no other image has the same."""
        return f"sha256:{hashlib.sha256(_canonical(self)).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Places:
    root: Path

    @property
    def images(self) -> Path:
        return self.root / "memories" / "images"

    @property
    def staging(self) -> Path:
        return self.root / "memories" / "staging"

    def image(self, memory: MemoryImageId) -> Path:
        return self.images / checked(memory)

    def make(self) -> None:
        """The folders stand, closed to others. May be repeated."""
        with in_words("preparing the folders of memory images", self.root):
            for folder in (self.root / "memories", self.images, self.staging):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            sync_folder(self.root / "memories")
            sync_folder(self.root)


def checked(name: str) -> str:
    """An id becomes a file name, so it must not be able to lead elsewhere."""
    if not is_id(name):
        raise MemoryFailed(f"{name!r} is not an id")
    return name


def write_record(path: Path, record: Record) -> None:
    """A new file, durable but for its name."""
    text = json.dumps(asdict(record) | {"digest": record.digest}).encode()
    if len(text) > _ABOUT_MOST_BYTES:
        raise MemoryFailed(f"what is to be told of memory image {record.memory} is too long: {len(text)} bytes")
    with path.open("xb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_record(path: Path) -> Record:
    """
    Raises:
        DamagedImage: it is not as it was written.
    """
    with path.open("rb") as file:
        text = file.read(_ABOUT_MOST_BYTES + 1)
    try:
        found = json.loads(text)
        digest, form = found.pop("digest"), found["form"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise damaged(path, "it is no record of a memory image") from error
    if form != FORM:
        raise MemoryFailed(
            f"{path} was written by another release (form {form}, this one knows {FORM})",
            "Delete this memory image and have a new one made",
        )
    try:
        record = Record(**found)
    except TypeError as error:
        raise damaged(path, "it is no record of a memory image") from error
    if record.digest != digest:
        raise damaged(path, "it was altered since it was written")
    return record


def _canonical(record: Record) -> bytes:
    return json.dumps(asdict(record), sort_keys=True).encode()
