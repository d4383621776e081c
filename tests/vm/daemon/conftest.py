"""Daemons on real machines. One for each module: a daemon costs seconds, and a guest's boot more."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.built import built_image
from tests.vm.installation.house import House, installation
from tests.vm.installation.template import put_template

_NEEDED = ("qemu-system-x86_64", "qemu-img", "dnsmasq")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [p for p in _NEEDED if shutil.which(p) is None]
    why = "needs root: users, namespaces and taps" if os.geteuid() != 0 else f"{', '.join(missing)} not installed"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(900))  # a busy machine; each step has a deadline of its own
            if missing or os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def tiny() -> Path:
    return built_image("tiny")


@pytest.fixture(scope="module")
def house(tiny: Path) -> Iterator[House]:
    """With the template `tiny`, and its daemon at work."""
    with installation("house") as made:
        asyncio.run(put_template(made.place, "tiny", tiny))
        made.start()
        yield made


@pytest.fixture
def fresh(tiny: Path) -> Iterator[House]:
    """One for this test alone, its daemon not started yet."""
    with installation("fresh") as made:
        asyncio.run(put_template(made.place, "tiny", tiny))
        yield made
