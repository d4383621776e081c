"""Guests to talk to: the program as it goes into templates, the same built to notice its mistakes, and the fake."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from innkeeper.drivers.guestlink.fake import FakeGuest
from innkeeper.drivers.guestlink.hand import GuestLink
from tests.guest.channel import Channel, build, linked

# Three times slower to build and to run.
SANITIZED = pytest.param("sanitized", marks=pytest.mark.slow)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("plain"), sanitized=False)


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("sanitized"), sanitized=True)


@pytest.fixture
def socket_path() -> Iterator[str]:
    # Not tmp_path: a test's name can make that longer than a socket's path may be.
    with tempfile.TemporaryDirectory(prefix="ikguest-") as folder:
        yield str(Path(folder) / "channel")


@pytest.fixture(params=["plain", SANITIZED])
async def channel(request: pytest.FixtureRequest, socket_path: str) -> AsyncIterator[Channel]:
    async with Channel.running(request.getfixturevalue(request.param), socket_path) as running:
        yield running


@pytest.fixture
async def link(channel: Channel) -> AsyncIterator[GuestLink]:
    """To the real program."""
    async with linked(channel.path) as connected:
        yield connected


@pytest.fixture(params=["fake", "plain", SANITIZED])
async def any_path(request: pytest.FixtureRequest, socket_path: str) -> AsyncIterator[str]:
    """The channel of any guest, for what all must keep."""
    if request.param == "fake":
        async with FakeGuest().listening(socket_path):
            yield socket_path
    else:
        async with Channel.running(request.getfixturevalue(request.param), socket_path):
            yield socket_path


@pytest.fixture
async def any_link(any_path: str) -> AsyncIterator[GuestLink]:
    async with linked(any_path) as connected:
        yield connected
