"""The host's own boot, and its clock.

A boot is acted out: everything that a boot takes away is taken away (processes, namespaces, /run), and the machines'
records say another boot's number. The clock is another one for the daemon alone, by a library put before libc.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from innkeeper.cli.times import epoch
from innkeeper.main.remove import without_networks
from tests.vm.installation.house import House, end_processes
from tests.vm.installation.traces import assert_tidy, machine_record, traces

_CLOCK = """\
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void)
{
    const char *path = getenv("CLOCK_OFFSET");
    FILE *file = path ? fopen(path, "re") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1)
            seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now)
        *now = exact.tv_sec;
    return exact.tv_sec;
}
"""
_DAY_S = 86400


def _boot(house: House) -> None:
    end_processes(house)
    until = time.monotonic() + 60
    while traces(house.place).processes and time.monotonic() < until:
        time.sleep(0.05)
    asyncio.run(without_networks(house.place))
    for folder in (house.place.data / "machines").iterdir():
        record = dict(machine_record(house.place, folder.name))
        (folder / "machine.json").write_text(json.dumps(record | {"boot_id": "00000000-0000-0000-0000-000000000000"}))


def test_after_a_boot_autostarted_ones_return_and_others_show_stopped(fresh: House) -> None:
    house = fresh
    house.start()
    house.launch("returns", autostart=True)
    house.launch("stays")
    house.launch("off", autostart=True)
    house.power("off", "stop", force=True)
    house.said_in("returns", "sh", "-c", "echo kept > /root/word && sync")
    kept = house.show("returns")
    _boot(house)
    house.start()
    stays = house.seen("stays", "stopped")
    assert "started anew" in stays["reason"]
    returned = house.until("returns", "agent")
    assert (returned["nics"], returned["volumes"]) == (kept["nics"], kept["volumes"])
    assert house.said_in("returns", "cat", "/root/word") == "kept"
    assert house.show("off")["status"] == "stopped"
    until = time.monotonic() + 120
    while house.show("stays")["wanted"] != "stopped" or house.show("returns")["operation"]:
        assert time.monotonic() < until, house.instances()
        time.sleep(0.1)
    assert_tidy(house)
    # Once more, with the daemon's death in the middle of the return.
    _boot(house)
    house.start()
    house.kill()
    house.start()
    house.until("returns", "agent")
    house.power("stays", "start")
    house.until("stays", "agent")
    house.remove("returns", "stays", "off")
    assert_tidy(house)


def test_autostarted_ones_return_after_a_shutdown_in_order(fresh: House) -> None:
    """Init sends its signal to QEMU and to the daemon at once: that is no crash, whoever hears it first."""
    house = fresh
    house.start()
    house.launch("returns", autostart=True)
    os.kill(house.pid("returns"), signal.SIGTERM)
    house.seen("returns", "crashed")
    house.end()
    _boot(house)
    house.start()
    house.until("returns", "agent")
    house.remove("returns")
    assert_tidy(house)


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A library that shifts the clock by the seconds in a file beside it."""
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(_CLOCK)
    made = subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no C compiler that makes libraries here: {made.stderr!r}")
    return library


def test_jumps_of_the_clock_disturb_nothing(fresh: House, clock: Path) -> None:
    offset = clock.with_suffix(".offset")
    env = {"LD_PRELOAD": str(clock), "CLOCK_OFFSET": str(offset)}
    house = fresh
    house.start(**env)
    house.launch("lives")
    began = epoch(house.show("lives")["created_at"])
    assert abs(began - time.time()) < _DAY_S
    for days in (400, -400):
        offset.write_text(str(days * _DAY_S))
        house.do(house.post("/instances", template="tiny", name="other", ttl_s=7200, start=False))
        made = epoch(house.show("other")["created_at"]) - time.time()
        assert abs(made / _DAY_S - days) < 1  # it is the daemon's clock that has jumped
        _still_obeys(house)
        house.remove("other")
    # A new life with an earlier clock must not number its reports below those of the life before.
    house.kill()
    house.start(**env)
    _still_obeys(house)
    assert house.said_in("lives", "echo", "here") == "here"
    house.power("lives", "stop", grace_s=60)
    assert house.show("lives")["status"] == "stopped"
    os.truncate(offset, 0)
    house.power("lives", "start")
    house.until("lives", "agent")
    house.remove("lives")
    assert_tidy(house)


def _still_obeys(house: House) -> None:
    house.power("lives", "pause")
    assert house.show("lives")["status"] == "paused"
    house.power("lives", "resume")
    assert house.show("lives")["status"] == "running"
