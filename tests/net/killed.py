"""Run as a program: converges or removes a network and kills itself without warning at a given call into the driver.

    killed.py TAG HOST FOLDER CALLS VERB

VERB is `first`, `change` or `remove`. With CALLS 0 it runs to its end and prints how many calls there were.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from innkeeper.drivers.linuxnet.hand import LinuxNet, NetSettings
from tests.net.world import network, port, wanted

LAN = network()
FIRST = wanted(LAN, port(1, "web"), port(2, "db"))
SECOND = wanted(LAN, port(1, "web"), port(3, "cache", "10.9.0.11"))

# Where the world is changed: sockets, ioctls, mounts, files, processes.
PLACES = ("linuxnet/kernel/", "linuxnet/dnsmasq.py", "linuxnet/host/forwarding.py")


class Death:
    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "return") and any(place in frame.f_code.co_filename for place in PLACES):
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


async def main(tag: str, host: str, folder: str, calls: str, verb: str) -> None:
    place = Path(folder)
    net = LinuxNet(
        NetSettings(tag=tag, state_dir=place / tag, root_netns=host, resolv_conf=place / "resolv.conf"),
    )
    death = Death(int(calls))
    threading.setprofile(death)
    if verb == "remove":
        await net.remove(LAN.id)
    else:
        await net.converge(FIRST if verb == "first" else SECOND)
    await net.close()
    sys.stdout.write(f"{death.calls}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
