"""Firewalls of others that drop what we forward, and the narrow rules that we put into them. Pure.

In netfilter a packet must be accepted by every base chain that it meets; our accept does not override a drop elsewhere.
Docker and ufw (by iptables-nft) give `ip filter FORWARD` the policy drop, firewalld ends its chain with a reject, ufw
drops on input. So the accept must stand in *their* chain, as each of them documents: in DOCKER-USER where Docker made
one, otherwise ahead in the base chain. It names only our interfaces and is removed with our last network. Being narrow
in what passes (answers only, no network to another) is our own table's work: a drop there holds whatever is accepted
here. For the same reason these rules are plain interface matches: iptables-nft refuses to list a chain that holds an
expression it has no word for.

They vanish when the other reloads; that changes the ruleset's generation, so the next pass puts them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from innkeeper.drivers.linuxnet import names

DOCKER_USER = "DOCKER-USER"
_FAMILIES = ("ip", "inet")
_HOOKS = ("forward", "input")
_HARMLESS = {"counter", "accept", "match", "return", "limit", "log", "comment"}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    family: str
    table: str
    name: str
    hook: str
    policy: str = "accept"

    @property
    def words(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def mark(tag: str) -> str:
    """The comment by which our rules in others' chains are known."""
    return f"innkeeper {tag}"


def base_chains(listed: Sequence[Json]) -> list[Chain]:
    """Others' chains that see forwarded or incoming packets, out of `list chains`."""
    found = []
    for chain in (item["chain"] for item in listed if "chain" in item):
        if chain["family"] in _FAMILIES and chain.get("hook") in _HOOKS and not names.is_table(chain["table"]):
            found.append(
                Chain(
                    family=chain["family"],
                    table=chain["table"],
                    name=chain["name"],
                    hook=chain["hook"],
                    policy=chain.get("policy", "accept"),
                )
            )
    return found


def stops(tag: str, chain: Chain, listed: Sequence[Json]) -> bool:
    """Whether something in this chain might drop our packets. A jump counts: following it would not make us surer."""
    rules = [rule for rule in _rules(listed) if rule.get("comment") != mark(tag)]
    return chain.policy == "drop" or any(not _HARMLESS.issuperset(_words(rule)) for rule in rules)


def place(chain: Chain, listed: Sequence[Json]) -> Chain:
    """Where the chain's owner wants rules of others: Docker has a chain for them."""
    for rule in _rules(listed):
        for expression in rule.get("expr", ()):
            if isinstance(expression.get("jump"), dict) and expression["jump"].get("target") == DOCKER_USER:
                return Chain(family=chain.family, table=chain.table, name=DOCKER_USER, hook=chain.hook)
    return chain


def correction(tag: str, where: Chain, listed: Sequence[Json], wanted: bool) -> str:
    """nft commands after which `where` holds our rules once, or not at all. Empty if it is so."""
    verdicts = {"forward": ("iifname", "oifname"), "input": ("iifname",)}[where.hook] if wanted else ()
    ours = _handles(tag, listed)
    if len(ours) == len(verdicts):
        return ""
    remove = "".join(f"delete rule {where.words} handle {handle}\n" for handle in ours)
    add = "".join(
        f'insert rule {where.words} {side} "{tag}-*" accept comment "{mark(tag)}"\n' for side in reversed(verdicts)
    )
    return remove + add


def removal(tag: str, listed: Sequence[Json]) -> str:
    """nft commands that remove every rule of ours from others' chains, out of `list ruleset`."""
    return "".join(
        f"delete rule {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}\n"
        for rule in _rules(listed)
        if rule.get("comment") == mark(tag) and not names.is_table(rule["table"])
    )


def _rules(listed: Sequence[Json]) -> list[Json]:
    return [item["rule"] for item in listed if "rule" in item]


def _handles(tag: str, listed: Sequence[Json]) -> list[int]:
    return [rule["handle"] for rule in _rules(listed) if rule.get("comment") == mark(tag)]


def _words(rule: Json) -> set[str]:
    return {word for expression in rule.get("expr", ()) for word in expression}
