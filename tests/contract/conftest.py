"""One daemon for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.contract.daemon import Daemon, Wanted


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(Wanted(folder=tmp_path_factory.mktemp("daemon"))) as made:
        yield made


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Iterator[httpx.Client]:
    """As root, over the UNIX socket. Made once: httpx prepares for TLS with each client, longer than a test takes."""
    with daemon.client() as client:
        yield client
