"""A daemon whose store can never write again ends, loudly, so that whoever keeps it running starts it anew."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from tests.vm.installation.house import House
from tests.vm.installation.process import START_S
from tests.vm.installation.traces import assert_tidy


def _written_by_another(house: House) -> None:
    """One more revision than the daemon knows of: as when a disk kept what it reported as failed."""
    with closing(sqlite3.connect(house.place.data / "innkeeper.db", timeout=30)) as file, file:
        columns = [row[1] for row in file.execute("PRAGMA table_info(events)")]
        others = ", ".join(name for name in columns if name != "revision")
        file.execute(
            f"INSERT INTO events (revision, {others}) SELECT revision + 1, {others} FROM events "
            "ORDER BY revision DESC LIMIT 1"
        )


def test_it_ends_and_a_new_one_goes_on(fresh: House) -> None:
    fresh.start()
    fresh.launch("web")
    pid = fresh.pid("web")
    _written_by_another(fresh)
    # The first finds its revision taken; the second looks why.
    refused = [fresh.inn("launch", "tiny", f"other{n}", timeout_s=START_S) for n in (1, 2)]
    assert all(run.returncode != 0 for run in refused), refused
    until = time.monotonic() + START_S
    while fresh.daemon.poll() is None:
        assert time.monotonic() < until, fresh.said()
        time.sleep(0.1)
    assert fresh.daemon.returncode == 1
    last = fresh.said().splitlines()[-2:]
    assert "it stands at revision" in last[0]
    assert last[0].startswith("inn: ")
    assert "instances run on" in last[1]
    fresh.start()
    assert fresh.pid("web") == pid
    fresh.until("web", "agent")
    assert fresh.said_in("web", "echo", "here") == "here"
    fresh.remove("web")
    assert_tidy(fresh)
