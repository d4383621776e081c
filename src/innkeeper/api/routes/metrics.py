"""Metrics for Prometheus, read when asked for, so that nothing is counted twice and nothing that is gone stays."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from innkeeper.api.asked import Asked, granted
from innkeeper.api.shown import host_out
from innkeeper.control.monitor import Monitor
from innkeeper.control.site import Site
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Principal
from innkeeper.model.observed import Phase
from innkeeper.ports.store import Pictures

_UP = (Phase.STARTING, Phase.RUNNING, Phase.PANICKED, Phase.PAUSED, Phase.NO_SPACE)
_LABELS = ["project", "instance"]
_COUNTERS = {
    "cpu_s": ("innkeeper_instance_cpu_seconds", "CPU time of QEMU"),
    "disk_read_bytes": ("innkeeper_instance_disk_read_bytes", "Bytes read from disks"),
    "disk_written_bytes": ("innkeeper_instance_disk_written_bytes", "Bytes written to disks"),
    "net_received_bytes": ("innkeeper_instance_net_received_bytes", "Bytes received by its cards"),
    "net_sent_bytes": ("innkeeper_instance_net_sent_bytes", "Bytes sent by its cards"),
}


def routes(asked: Asked, pictures: Pictures, site: Site, monitor: Monitor) -> APIRouter:
    router = APIRouter(tags=["site"])
    registry = CollectorRegistry()
    registry.register(_Families(pictures, monitor))
    WhoAsks = Annotated[Principal, Depends(asked.who)]

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(who: WhoAsks) -> Response:
        """Of every host and every instance of every project: for administrators."""
        granted(site.hosts(who))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


class _Families(Collector):
    def __init__(self, pictures: Pictures, monitor: Monitor) -> None:
        self._pictures = pictures
        self._monitor = monitor

    def collect(self) -> Iterable[Metric]:
        cluster = self._pictures.cluster()
        yield from _of_hosts(cluster)
        yield from self._of_instances(cluster)

    def _of_instances(self, cluster: Cluster) -> Iterable[Metric]:
        up = GaugeMetricFamily("innkeeper_instance_up", "1 while its machine runs", labels=_LABELS)
        memory = GaugeMetricFamily("innkeeper_instance_memory_mib", "Proportional set size of QEMU", labels=_LABELS)
        counters = {field: CounterMetricFamily(*words, labels=_LABELS) for field, words in _COUNTERS.items()}
        for instance in cluster.instances.values():
            project = cluster.projects.get(instance.project)
            names = [project.name if project else instance.project, instance.name]
            sample = self._monitor.sample(instance.id)
            running = cluster.phase(instance.id) in _UP
            up.add_metric(names, float(running))
            if sample is not None and running:
                memory.add_metric(names, sample.memory_mib)
                for field, family in counters.items():
                    family.add_metric(names, getattr(sample, field))
        yield from (up, memory, *counters.values())


def _of_hosts(cluster: Cluster) -> Iterable[Metric]:
    families = {
        "instances": GaugeMetricFamily("innkeeper_host_instances", "Instances placed", labels=["host"]),
        "vcpus": GaugeMetricFamily("innkeeper_host_vcpus", "Virtual CPUs that may be promised", labels=["host"]),
        "vcpus_promised": GaugeMetricFamily("innkeeper_host_vcpus_promised", "Promised", labels=["host"]),
        "memory_mib": GaugeMetricFamily("innkeeper_host_memory_mib", "Memory that may be promised", labels=["host"]),
        "memory_promised_mib": GaugeMetricFamily("innkeeper_host_memory_promised_mib", "Promised", labels=["host"]),
        "disk_free_gib": GaugeMetricFamily("innkeeper_host_disk_free_gib", "Room in the pool", labels=["host"]),
    }
    for host in cluster.hosts.values():
        seen = host_out(cluster, host)
        for field, family in families.items():
            family.add_metric([host.name], getattr(seen, field))
    yield from families.values()
