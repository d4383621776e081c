"""The daemon returns when its machine does: a unit for systemd, put in place by `./run --at-boot`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from innkeeper.cli.line import DATA
from innkeeper.main.place import Place

UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")  # sd_booted(3): there only where systemd runs the machine
_PATIENCE_S = 90.0


class CannotReturn(Exception):
    """Nobody here would start the daemon at boot; the text says why."""


def unit_name(place: Place) -> str:
    """One and the same, whatever INN_DATA said when it was asked."""
    return "innkeeper.service" if str(place.data) == DATA else f"innkeeper-{place.tag}.service"


def unit(inn: Path, place: Place) -> str:
    """Instances and network services outlive the daemon, so only its own process is ended, and one that the kernel
    ends for want of memory does not take the daemon with it."""
    return f"""\
[Unit]
Description=Innkeeper, a private cloud of VM instances ({place.data})
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={_word(inn)} serve --data {_word(place.data)}
KillMode=process
OOMPolicy=continue
OOMScoreAdjust=-900
TasksMax=infinity
LimitNOFILE=65536
Restart=on-failure
RestartSec=2

[Install]
WantedBy=multi-user.target
"""


def return_at_boot(inn: Path, place: Place, *, start: bool) -> str:
    """Writes and enables the unit; with `start` it starts the daemon now, too. Returns the unit's name.

    May be repeated.

    Raises:
        CannotReturn: systemd does not run this machine, or refuses.
    """
    if not RUNNING.is_dir():
        raise CannotReturn(
            "this machine is not run by systemd: have its own init start "
            f"`{inn} serve --data {place.data} --log-file {place.data / 'daemon.log'}` as root at boot"
        )
    name = unit_name(place)
    draft = UNITS / f".{name}.draft"
    draft.write_text(unit(inn, place))
    draft.replace(UNITS / name)
    for words in (("daemon-reload",), ("enable", *(("--now",) if start else ()), name)):
        _systemctl(*words)
    return name


def return_no_more(place: Place) -> None:
    """Ends the daemon that systemd runs, and takes the unit away. Nothing where there is none.

    Raises:
        CannotReturn: systemd refuses.
    """
    path = UNITS / unit_name(place)
    if not path.exists():
        return
    if RUNNING.is_dir():
        _systemctl("disable", "--now", path.name)
    path.unlink()
    if RUNNING.is_dir():
        _systemctl("daemon-reload")


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=_PATIENCE_S)
    if done.returncode != 0:
        raise CannotReturn(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.returncode}")


def _word(path: Path) -> str:
    """systemd.service(5), command lines: quoted, with its own signs doubled."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'
