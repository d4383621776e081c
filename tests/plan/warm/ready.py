"""Clusters in which a template has a memory image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from innkeeper.model.cluster import Cluster
from innkeeper.model.observed import MemoryState
from innkeeper.model.template import Baked, MemoryImage, Template
from innkeeper.plan.warm.making import warm
from tests.plan.clusters import H1, IMAGE, MINE, NOW, a_cluster, a_template, done, draw, planned, with_rows

BAKED = Baked(digest="b" * 64, stored_bytes=90 << 20)


def answering(**changes: Any) -> tuple[Cluster, Template]:
    """Its guests bring a program of ours."""
    template = a_template(image=replace(IMAGE, agent=True, **changes))
    return with_rows(a_cluster(), template), template


def warmed(**changes: Any) -> tuple[Cluster, Template, MemoryImage]:
    cluster, template = answering(**changes)
    cluster = done(cluster, planned(warm(cluster, MINE, template, draw("warm"), NOW)))
    (memory,) = cluster.memories
    cluster = cluster.seen(MemoryState(memory=memory, host=H1, seq=1, baked=BAKED))
    return cluster, template, cluster.memories[memory]
