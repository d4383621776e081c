"""What an installation has on the machine, found without asking it, held against what it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper.drivers.linuxnet.hand import LinuxNet
from innkeeper.drivers.qemu.hand import strays
from innkeeper.main.place import Place
from innkeeper.main.solo import net_settings
from tests.vm.installation.house import House

_DOWN = ("stopped", "crashed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """`processes` are the machines' ids, one for each process; `services` and `relays` count dnsmasq.

    `disks` are those that are written, `frozen` those that others stand over.
    """

    processes: tuple[str, ...]
    disks: frozenset[str]
    frozen: frozenset[str]
    memories: frozenset[str]
    seeds: frozenset[str]
    folders: frozenset[str]
    cards: frozenset[str]
    networks: int
    services: int
    relays: int
    half_made: tuple[str, ...]


def traces(place: Place) -> Traces:
    cards, networks = asyncio.run(_cards(place))
    volumes = place.data / "pool" / "volumes"
    return Traces(
        processes=tuple(sorted(s.instance for s in strays(place.data / "machines", ()))),
        disks=frozenset(p.stem for p in volumes.glob("*.qcow2") if not p.with_suffix(".frozen").exists()),
        frozen=frozenset(p.stem for p in volumes.glob("*.frozen")),
        memories=_stems(place.data / "pool" / "memories" / "images"),
        seeds=_stems(place.data / "seeds"),
        folders=_stems(place.data / "machines"),
        cards=cards,
        networks=networks,
        services=_services(place.volatile / "networks"),
        relays=_services(place.volatile / "relay"),
        half_made=(*_stems(place.data / "pool" / "staging"), *_stems(place.data / "pool" / "memories" / "staging")),
    )


def held_against(rows: list[dict[str, Any]], images: list[dict[str, Any]], found: Traces) -> None:
    """What is there is what the rows say, no more and no less. Nothing here has snapshots that are not its own."""
    ids = {row["id"] for row in rows}
    up = sorted(row["id"] for row in rows if row["status"] not in _DOWN)
    assert list(found.processes) == up
    assert found.disks == {volume["id"] for row in rows for volume in row["volumes"]}
    assert len(found.frozen) == len(images) + sum(row["snapshots"] for row in rows)
    assert found.memories == {image["id"] for image in images}
    assert found.seeds == ids
    assert found.folders <= ids
    assert found.cards == {nic["id"] for row in rows for nic in row["nics"]}
    assert found.services == found.networks <= 1
    assert found.relays <= found.networks
    assert found.half_made == ()


def assert_tidy(house: House) -> None:
    """Nothing is held, nothing under way, nothing left over."""
    rows = house.instances()
    assert [row["operation"] for row in rows] == [None] * len(rows)
    unended = [
        o for o in house.get("/operations", limit=100)["items"] if o["state"] in ("pending", "running", "undoing")
    ]
    assert unended == []
    images = [image for template in house.get("/templates")["items"] for image in template["memory_images"]]
    held_against(rows, images, traces(house.place))
    _records_are_of(rows, house.place)


def _records_are_of(rows: list[dict[str, Any]], place: Place) -> None:
    """The agent remembers only what is there; what is gone, apart and bounded."""
    live = {p.stem for p in (place.data / "agent" / "records").glob("*.json")}
    known = {f"instance-{row['id']}" for row in rows} | {f"volume-{v['id']}" for row in rows for v in row["volumes"]}
    ours = {name for name in live if not name.startswith(("template-", "memory-"))}
    assert {name for name in ours if not _is_frozen(name, place)} <= known


def _is_frozen(record: str, place: Place) -> bool:
    return (place.data / "pool" / "volumes" / f"{record.removeprefix('volume-')}.frozen").exists()


def machine_record(place: Place, instance: str) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads((place.data / "machines" / instance / "machine.json").read_text())
    return found


def _stems(folder: Path) -> frozenset[str]:
    return frozenset(p.stem for p in folder.iterdir()) if folder.is_dir() else frozenset()


async def _cards(place: Place) -> tuple[frozenset[str], int]:
    """Of all networks: the cards that have a tap, and how many networks there are."""
    net = LinuxNet(net_settings(place))
    try:
        present = await net.present()
        found = [nic for network in present for nic in await net.counters(network)]
    finally:
        await net.close()
    return frozenset(found), len(present)


def _services(folder: Path) -> int:
    """Processes of dnsmasq that read files in this folder."""
    mark, found = f"{folder}/".encode(), 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        found += b"dnsmasq" in words.split(b"\0")[0] and mark in words
    return found
