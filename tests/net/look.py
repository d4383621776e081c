"""Looks at a test's host: what stands there, and what was left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.kernel import namespaces
from tests.net.protocols import name_server, resolve
from tests.net.world import OUTSIDE, Guest, World, ask, echo, network, port

LAN, WEB, DB = network(), port(1, "web"), port(2, "db")


def inside(world: World) -> str:
    return names.namespace(world.tag, LAN.id)


def ip(namespace: str, *words: str) -> str:
    ran = subprocess.run(["ip", "-n", namespace, *words], check=True, timeout=10, capture_output=True, text=True)
    return ran.stdout


def nft(namespace: str, words: str) -> None:
    subprocess.run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], input=words.encode(), check=True, timeout=10)


def services(world: World) -> list[int]:
    """Every process whose command line names this test's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended while we looked
            if str(world.folder).encode() in words:
                found.append(int(entry.name))
    return sorted(found)


def everything(world: World) -> dict[str, object]:
    """All that a network could leave behind on the host."""
    return {
        "links": ip(world.host.name, "-o", "link"),
        "addresses": ip(world.host.name, "-o", "-4", "addr"),
        "routes": ip(world.host.name, "route"),
        "rules": world.host.rules(),
        "forwarding": world.host.switch("ipv4/conf/wan/forwarding"),
        "namespaces": sorted(name for name in namespaces.names() if name.startswith(f"{world.tag}-")),
        "processes": services(world),
        "files": sorted(str(p) for p in (world.folder / world.tag).rglob("*") if not p.is_dir()),
    }


def standing(world: World) -> dict[str, str]:
    """What stands inside and outside, without what differs each time: numbers, random addresses, carriers."""
    rules = subprocess.run(
        ["ip", "netns", "exec", inside(world), "nft", "list", "ruleset"], capture_output=True, text=True
    )
    host = subprocess.run(
        ["ip", "netns", "exec", world.host.name, "nft", "list", "ruleset"], capture_output=True, text=True
    )
    shown = ip(inside(world), "-o", "link").splitlines()
    return {
        "links": "\n".join(sorted(line.split(": ")[1].split("@")[0] for line in shown)),
        "ports": "\n".join(
            sorted(
                line.split(":")[1] for line in ip(inside(world), "-o", "link", "show", "master", "guests").splitlines()
            )
        ),
        "addresses": "\n".join(
            sorted(" ".join(line.split()[1:4]) for line in ip(inside(world), "-o", "-4", "addr").splitlines())
        ),
        "routes": ip(inside(world), "route").replace(" linkdown", ""),
        "rules": "\n".join(sorted(rules.stdout.splitlines())),
        "host rules": "\n".join(sorted(host.stdout.splitlines())),
        "services": str(len(services(world))),
        "files": "\n".join(sorted(str(p.relative_to(world.folder)) for p in world.folder.rglob("*") if p.is_file())),
    }


def works(world: World, guest: Guest) -> bool:
    with echo(world.outside, OUTSIDE, 7000), name_server(world.outside, OUTSIDE, "203.0.113.80"):
        return (
            resolve(guest, "web.lab.internal", LAN.gateway) == list(WEB.addresses)
            and resolve(guest, "www.example.org", LAN.gateway) == ["203.0.113.80"]
            and ask(guest, OUTSIDE, 7000) == b"hello"
        )


def numbers(world: World) -> list[list[str]]:
    """A number tells an interface from one that was made again under its name."""
    return [line.split(":")[:2] for line in ip(inside(world), "-o", "link").splitlines()]
