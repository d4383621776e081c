"""No file names a package registry, or a path of the machine it was written on.

Where packages come from is the business of the machine: its apt, pip and npm are set up for it, often with a mirror. An
address of ours would go past that. The names below are put together from parts, so that this file keeps its own rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.house.repository import complain, files, read

HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("ftp", "debian", "org"),
        ("security", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("security", "ubuntu", "com"),
        ("ports", "ubuntu", "com"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("repo", "maven", "apache", "org"),
        ("deb", "nodesource", "com"),
        ("packages", "cloud", "google", "com"),
    )
]
# One file may name Debian's public mirror: on a host that is not Debian's there is no other to build templates from.
MAY_NAME_A_MIRROR = {"src/innkeeper/drivers/images/render.py"}

PLACES = ["/" + "work", "/opt/" + "pypi", "/opt/" + "wheels", "/root/" + ".pyenv"]

HOST = re.compile(r"(?<![\w-])(" + "|".join(re.escape(host) for host in HOSTS) + r")(?![\w-])", re.IGNORECASE)
PLACE = re.compile(r"(?<![\w./}-])(" + "|".join(re.escape(place) for place in PLACES) + r")(?=/|[^\w-]|$)")


def named(pattern: re.Pattern[str], name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for match in pattern.finditer(line):
            yield f"{name}:{number} {match[1]}"


def everywhere(pattern: re.Pattern[str]) -> Iterator[str]:
    for name in files():
        yield from named(pattern, name, read(name) or "")


def test_no_registry_is_named() -> None:
    found = [place for place in everywhere(HOST) if place.split(":", 1)[0] not in MAY_NAME_A_MIRROR]
    complain(found, "Leave the address out: apt, pip and npm know where this machine gets its packages.")


def test_no_path_of_this_machine_is_named() -> None:
    complain(
        everywhere(PLACE), "Nobody else has this path. Derive it from the checkout, a setting, or a temporary folder."
    )


@pytest.mark.parametrize("text", [f"https://{HOSTS[0]}/simple", f"see {HOSTS[2].upper()}.", f"cdn.{HOSTS[1]}"])
def test_addresses_are_found(text: str) -> None:
    assert list(named(HOST, "a.md", text))


@pytest.mark.parametrize("text", [f"my{HOSTS[0]}", f"{HOSTS[0]}anisation", "debian.example.org", "a.crate.io"])
def test_other_names_are_left_alone(text: str) -> None:
    assert not list(named(HOST, "a.md", text))


@pytest.mark.parametrize("text", [f"cd {PLACES[0]}/main", f"'{PLACES[0]}'", PLACES[0], f"a={PLACES[1]}/simple"])
def test_places_are_found(text: str) -> None:
    assert list(named(PLACE, "a.md", text))


@pytest.mark.parametrize(
    "text", [f"frame{PLACES[0][1:]}/x", f"{PLACES[0]}er/1", f"a{PLACES[0]}/b", f"{{x}}{PLACES[0]}"]
)
def test_other_places_are_left_alone(text: str) -> None:
    assert not list(named(PLACE, "a.md", text))
