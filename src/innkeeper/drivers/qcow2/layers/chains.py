"""A disk with all that stands below it, seen to be what we made before anything opens it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.faults import ImageRefused
from innkeeper.drivers.qcow2.header import Header
from innkeeper.drivers.qcow2.inspect import check_overlay
from innkeeper.drivers.qcow2.places import in_words
from innkeeper.drivers.qcow2.render import backing_name, volume_name
from innkeeper.model.actions import Chain
from innkeeper.model.ids import TemplateId


def check_chain(chain: Chain, template: TemplateId, fds: Sequence[int], root: Path) -> list[Header]:
    """The headers of a chain's volumes, opened from the top down.

    The chain and the template are said by the caller. The headers are compared, never asked: a QEMU that was taken over
    may have written the name of another tenant's disk into its own, and into each that it ever wrote to.

    Raises:
        ImageRefused: one is not what we wrote.
    """
    volumes = (chain.volume, *chain.below)
    names = (*(volume_name(v) for v in chain.below), backing_name(template))
    headers = []
    for volume, name, fd in zip(volumes, names, fds, strict=True):
        with in_words(f"reading volume {volume}", root):
            head = os.pread(fd, 1 << qcow2.CLUSTER_BITS, 0)
        try:
            headers.append(check_overlay(head, name))
        except ImageRefused as refused:
            raise ImageRefused(f"volume {volume}: {refused.reason}", refused.hint) from refused
    return headers
