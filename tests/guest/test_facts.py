"""What a guest says of itself is read, and not believed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from innkeeper.drivers.guestlink.facts import read_facts
from innkeeper.drivers.guestlink.render import SOURCES, compile_argv
from innkeeper.ports.streams import CloudInit, GuestNic
from tests.guest import channel

SAID = b"""\
boot_id=0b5b4f0e-7a6a-4c4f-9d35-1d3a0b6a7c11
hostname=web
uptime_s=12.34
load=0.10 0.20 0.30
memory_total_kib=1000
root_used_bytes=5.5
cloud_init=error
cloud_init_error=no such\x1b[31m user
mac=eth0.7 52:54:00:00:00:01
address=eth0.7 10.0.0.5/24
address=eth0.7 fe80::1/64
address=eth0.7 not-an-address/24
address=tun0 10.9.0.1/32
mac=eth1 nonsense
unknown=whatever
no equals sign
"""


def test_facts() -> None:
    status = read_facts(SAID)
    assert (status.hostname, status.uptime_s, status.load) == ("web", 12.34, (0.1, 0.2, 0.3))
    assert (status.memory_total_kib, status.memory_available_kib, status.root_used_bytes) == (1000, None, None)
    assert (status.cloud_init, status.cloud_init_error) == (CloudInit.ERROR, "no such [31m user")
    assert status.nics == (
        GuestNic(name="eth0.7", mac="52:54:00:00:00:01", addresses=("10.0.0.5/24", "fe80::1/64")),
        GuestNic(name="tun0", mac=None, addresses=("10.9.0.1/32",)),
    )


def test_numbers_are_digits_only() -> None:
    for text in ("1_000", "inf", "nan", "-5", "1e9", "٣", "9" * 30, ""):
        status = read_facts(f"uptime_s={text}\nmemory_total_kib={text}\n".encode())
        assert (status.uptime_s, status.memory_total_kib) == (None, None)


@given(some.binary(max_size=500))
def test_nothing_breaks_the_reader(payload: bytes) -> None:
    status = read_facts(payload)
    assert status.cloud_init in set(CloudInit)


def test_every_source_is_compiled() -> None:
    assert sorted(str(path.relative_to(channel.SOURCES)) for path in channel.SOURCES.rglob("*.c")) == list(SOURCES)
    argv = compile_argv("/src", "/out/innkeeper-guest", "gcc")
    assert argv[0] == "gcc"
    assert argv[argv.index("-o") :] == ["-o", "/out/innkeeper-guest", *(f"/src/{name}" for name in SOURCES)]
    assert "-static" in argv
