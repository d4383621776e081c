"""The real program in a place where it may change who it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from innkeeper.drivers.guestlink.hand import GuestLink
from tests.guest.channel import Channel, linked
from tests.guest.conftest import SANITIZED
from tests.guest.identity.place import Place, place


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        yield made


@pytest.fixture(params=["plain", SANITIZED])
async def baked(request: pytest.FixtureRequest, apart: Place, socket_path: str) -> AsyncIterator[Channel]:
    async with Channel.running(apart.argv(request.getfixturevalue(request.param)), socket_path) as running:
        yield running


@pytest.fixture
async def link(baked: Channel) -> AsyncIterator[GuestLink]:
    async with linked(baked.path) as connected:
        yield connected
