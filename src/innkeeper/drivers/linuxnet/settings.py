"""What this driver is given, what it hands back, and how it fails."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Interface names have fifteen characters, so an installation is known by six: enough for several on one machine.
TAG = re.compile(r"ik[0-9a-z]{4}")

# When memory runs out, dnsmasq and the process with libnftables are like any other program. Guests need them, but only
# the daemon is spared, which they would inherit.
OOM_SCORE = 0


class NetFailed(Exception):
    """The host's part of a network is not as wanted. Says what, of which, and what to do next; may be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSettings:
    """`tag` is `ik` and four characters drawn from the data directory: every name of ours in the kernel begins with it.

    `state_dir` holds what dnsmasq reads. It is of no use after a reboot, and every folder above it must let dnsmasq's
    own user through. `root_netns` names the network namespace that is "the host"; None is the one this process lives
    in. The /30 ranges between networks and the host come from `transit_cidr`: benchmarking addresses (RFC 2544), which
    nobody routes; those of carrier-grade NAT are dropped by some VPNs.
    """

    tag: str
    state_dir: Path
    root_netns: str | None = None
    transit_cidr: str = "198.18.0.0/16"
    resolv_conf: Path = Path("/etc/resolv.conf")

    def __post_init__(self) -> None:
        if not TAG.fullmatch(self.tag):
            raise ValueError(f"{self.tag!r} is no tag of an installation: it takes `ik` and four of 0-9 and a-z")


@dataclass(frozen=True, slots=True, kw_only=True)
class NicCounters:
    """Of one network card, as its guest sees them. They begin anew with the tap, that is with the host's boot."""

    received_bytes: int
    sent_bytes: int
    received_packets: int
    sent_packets: int
    received_dropped: int
    sent_dropped: int
