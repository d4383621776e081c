"""Words for block devices, on the command line and over the monitor alike. Pure.

A disk is a chain of nodes, each named after the volume or template that it is, so that what is on top can be asked for
and told. All files come as descriptors in numbered sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from innkeeper.model.ids import VolumeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One file of a disk: the descriptor it was opened with, and what is in it (`qcow2` or `raw`).

    `name` is of its node, and unique in its machine; a topmost one is named after its volume.
    """

    fd: int
    format: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """A disk's files: the writable one, then those below, downwards. `direct`: the page cache can be gone round."""

    top: Layer
    below: tuple[Layer, ...] = ()
    direct: bool = False


def disk_node(volume: VolumeId, facts: DiskFacts) -> dict[str, Any]:
    """A volume with all that stands below it."""
    chain: dict[str, Any] | None = None
    for layer in reversed(facts.below):
        chain = _below(layer, chain)
    return _top(volume, facts.top, chain, direct=facts.direct)


def overlay_node(volume: VolumeId, fd_set: int, *, direct: bool) -> dict[str, Any]:
    """A volume that is to be laid over one that the machine has already."""
    return _top(volume, Layer(fd=fd_set, format="qcow2"), None, direct=direct)


def raw_node(fd: int, *, read_only: bool) -> dict[str, Any]:
    return {"driver": "raw", "read-only": read_only, "file": _file(fd, read_only=read_only)}


def overlaying(pairs: Sequence[tuple[VolumeId, VolumeId]]) -> list[dict[str, Any]]:
    """The actions of one transaction that lays the first of each pair over the second."""
    return [{"type": "blockdev-snapshot", "data": {"node": below, "overlay": volume}} for volume, below in pairs]


def _top(volume: VolumeId, layer: Layer, below: dict[str, Any] | None, *, direct: bool) -> dict[str, Any]:
    file = _file(layer.fd, read_only=False, direct=direct) | {"discard": "unmap"}
    return _format(layer, below) | {
        "node-name": volume,
        "read-only": False,
        "discard": "unmap",
        "detect-zeroes": "unmap",
        "cache": {"direct": direct},
        "file": file,
    }


def _below(layer: Layer, below: dict[str, Any] | None) -> dict[str, Any]:
    file = _file(layer.fd, read_only=True)
    # Shared with other machines, so the page cache is to keep it. Said outright, or it follows the layer above.
    cache = {"direct": False}
    return _format(layer, below) | {"node-name": layer.name, "read-only": True, "cache": cache, "file": file}


def _format(layer: Layer, below: dict[str, Any] | None) -> dict[str, Any]:
    if layer.format == "qcow2":
        return {"driver": "qcow2", "backing": below}
    if layer.format == "raw" and below is None:
        return {"driver": "raw"}
    raise ValueError(f"a disk layer of format {layer.format!r} cannot be used{' over another' if below else ''}")


def _file(fd: int, *, read_only: bool, direct: bool = False) -> dict[str, Any]:
    return {
        "driver": "file",
        "filename": f"/dev/fdset/{fd}",
        "read-only": read_only,
        "locking": "on",
        # Not native or io_uring: a write that grows a sparse file makes the first block in the submission, with the
        # machine's big lock held, and the second opens much of the kernel to a QEMU that a guest has taken over.
        "aio": "threads",
        "cache": {"direct": direct},
    }
