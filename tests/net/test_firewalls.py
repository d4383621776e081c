"""Others' firewalls on the host: Docker, ufw, firewalld and an administrator's own, as they stand in nftables."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.net.protocols import name_server, resolve
from tests.net.world import OUTSIDE, Guest, World, ask, echo, network, port, wanted

pytestmark = pytest.mark.net

LAN, WEB = network(), port(1, "web")

DOCKER = """
table ip filter {
    chain DOCKER-USER { counter return
    }
    chain FORWARD { type filter hook forward priority filter; policy drop;
        counter jump DOCKER-USER
        iifname "docker0" accept
    }
}
"""
UFW = """
table ip filter {
    chain ufw-before-input { iifname "lo" counter accept
        ct state { established, related } counter accept
    }
    chain ufw-user-forward {
    }
    chain INPUT { type filter hook input priority filter; policy drop; counter jump ufw-before-input
    }
    chain FORWARD { type filter hook forward priority filter; policy drop; counter jump ufw-user-forward
    }
}
"""
FIREWALLD = """
table inet firewalld {
    chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname "lo" accept
        reject with icmpx type admin-prohibited
    }
    chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname "lo" accept
        reject with icmpx type admin-prohibited
    }
}
"""
OWN = """
table inet filter {
    chain forward { type filter hook forward priority filter; policy drop;
    }
}
"""
HARMLESS = """
table inet filter {
    chain forward { type filter hook forward priority filter; policy accept; counter
    }
    chain input { type filter hook input priority filter; policy accept; iifname "lo" accept
    }
}
"""
DROPPING = {"docker": DOCKER, "ufw": UFW, "firewalld": FIREWALLD, "own": OWN}


def foreign(world: World) -> list[str]:
    """Rules of others' chains, without handles and counters."""
    found = []
    for item in world.host.rules():
        rule = item.get("rule")
        if isinstance(rule, dict) and rule["table"] != world.tag:
            words = [e for e in rule["expr"] if "counter" not in e]
            found.append(f"{rule['chain']}: {json.dumps(words)} {rule.get('comment', '')}")
    return found


def works(world: World, guest: Guest) -> bool:
    with echo(world.outside, OUTSIDE, 7000), name_server(world.outside, OUTSIDE, "203.0.113.80"):
        answered = ask(guest, OUTSIDE, 7000, wait_s=2) == b"hello"
        return answered and resolve(guest, "www.example.org", LAN.gateway, 2) == ["203.0.113.80"]


@pytest.mark.parametrize("who", DROPPING)
@pytest.mark.parametrize("first", [True, False], ids=["firewall first", "network first"])
async def test_guests_pass_a_firewall_that_drops(world: World, who: str, first: bool) -> None:
    net = world.net()
    if not first:
        await net.converge(wanted(LAN, WEB))
    world.host.nft(DROPPING[who])
    before = foreign(world)
    await net.converge(wanted(LAN, WEB))
    guest = await world.guest(net, LAN, WEB)
    guest.settle()
    assert works(world, guest)
    with_ours = foreign(world)
    await net.converge(wanted(LAN, WEB))
    assert foreign(world) == with_ours
    # It loads its rules anew: ours are gone, and guests are cut off until the next pass.
    tables = [f"delete table {item['table']['family']} {item['table']['name']}" for item in tables_of(world)]  # type: ignore[index]
    world.host.nft("\n".join(tables) + DROPPING[who])
    assert not works(world, guest)
    await net.converge(wanted(LAN, WEB))
    assert works(world, guest)
    await net.remove(LAN.id)
    assert foreign(world) == before


def tables_of(world: World) -> list[dict[str, object]]:
    return [item for item in world.host.rules() if "table" in item and item["table"]["name"] != world.tag]  # type: ignore[index]


async def test_docker_has_a_chain_for_us(world: World) -> None:
    world.host.nft(DOCKER)
    await world.net().converge(wanted(LAN, WEB))
    ours = [rule for rule in foreign(world) if f"innkeeper {world.tag}" in rule]
    assert [rule.split(":")[0] for rule in ours] == ["DOCKER-USER", "DOCKER-USER"]


async def test_what_drops_nothing_is_left_alone(world: World) -> None:
    world.host.nft(HARMLESS)
    before = foreign(world)
    await world.net().converge(wanted(LAN, WEB))
    assert foreign(world) == before


async def test_strangers_do_not_pass_by_our_rule(world: World) -> None:
    """The rule in another's chain lets everything of our interfaces through; ours still holds the uninvited back."""
    world.host.nft(DOCKER)
    net = world.net()
    await net.converge(wanted(LAN, WEB))
    guest = await world.guest(net, LAN, WEB)
    guest.settle()
    uplink = next(link for link in world.host.rtnl.links() if link.name.startswith(f"{world.tag}-"))
    address = world.host.rtnl.addresses(uplink.index)[0].interface.ip + 1
    world.outside.default_route("192.0.2.1", "wan")
    route = ["ip", "-n", world.host.name, "route", "add", LAN.cidr, "via", str(address)]
    subprocess.run(route, check=True, timeout=10)
    with echo(guest, "0.0.0.0", 7000) as asked:
        assert ask(world.outside, WEB.addresses[0], 7000, wait_s=1) is None
    assert asked == []
