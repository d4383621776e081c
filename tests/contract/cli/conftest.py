"""`inn`, speaking to the daemon of the file."""

from __future__ import annotations

import pytest

from tests.contract.cli.running import Inn
from tests.contract.daemon import Daemon


@pytest.fixture
def inn(daemon: Daemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Inn:
    monkeypatch.setenv("INN_SOCKET", str(daemon.socket))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("INN_PROJECT", raising=False)
    return Inn(capfd)
