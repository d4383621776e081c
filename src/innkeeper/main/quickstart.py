"""What `./run` does once everything is installed: a daemon, a template, an instance, and its first words.

Repeatable: what stands already is used. The daemon is started apart from us and goes on when we end.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from innkeeper.cli.app import told
from innkeeper.cli.channel import until_answering
from innkeeper.cli.follow import follow
from innkeeper.cli.grammar.call import spoken
from innkeeper.cli.grammar.pages import HelpPage
from innkeeper.cli.line import DATA, CannotGoOn, Line, in_words
from innkeeper.drivers.linuxnet.settings import NetFailed
from innkeeper.main import remove as removal
from innkeeper.main.boot import CannotReturn, return_at_boot
from innkeeper.main.place import DATA_FOLDER, CannotServe, Place
from innkeeper.ports.store import StoreFailed

_UP_S = 60.0


def quickstart(
    *,
    data: Annotated[
        Path, Parameter(help="data directory; otherwise INN_DATA, or /var/lib/innkeeper", metavar="PATH")
    ] = DATA_FOLDER,
    template: Annotated[
        str, Parameter(help="catalogue entry: debian-12, as without it, or tiny", metavar="NAME")
    ] = "debian-12",
    name: Annotated[str, Parameter(help="name of the instance; otherwise hello", metavar="NAME")] = "hello",
    at_boot: Annotated[
        bool, Parameter(negative="", help="have systemd start the daemon when this machine boots")
    ] = False,
    remove: Annotated[
        bool, Parameter(negative="", help="take daemon and networks away instead, once there are no instances")
    ] = False,
) -> None:
    """Start the daemon, prepare a template, launch an instance, wait until it answers, and run uname -a in it."""
    line = Line(str(data.absolute() / "api.sock"))
    if remove:
        _remove(line, Place(data.absolute()))
        return
    stands = _stands(line)
    if stands:
        print("The daemon runs already.")
    if at_boot:
        _return_at_boot(line, data.absolute(), start=not stands)
    elif not stands:
        _daemon(line, data.absolute())
    _template(line, template)
    _instance(line, template, name)
    until_answering(line, name, lambda words: print(words, end="", flush=True))
    inn = _command(data)
    print(f"\n$ {inn} exec {name} -- uname -a", flush=True)
    subprocess.run([*inn.split(), "exec", name, "--", "uname", "-a"], check=True)
    _go_on(inn, template, name)


def _remove(line: Line, place: Place) -> None:
    if os.geteuid() != 0:
        raise CannotGoOn("daemon and networks are root's", "Run it so: sudo ./run --remove")
    with in_words((CannotReturn, CannotServe, NetFailed, StoreFailed, OSError), "Try again: what is gone stays gone"):
        removal.remove(line, place)
    print("Daemon and networks are gone.")
    if place.data.is_dir():
        print(f"Templates, logs and the database stay; to be rid of them: rm -r {place.data}")


def _stands(line: Line) -> bool:
    with contextlib.suppress(CannotGoOn):
        line.get("/v1")
        return True
    if os.geteuid() != 0:
        raise CannotGoOn("the daemon must run as root", "Run it so: sudo ./run")
    return False


def _return_at_boot(line: Line, data: Path, *, start: bool) -> None:
    with in_words((CannotReturn, OSError), "Without --at-boot the daemon runs until this machine is switched off"):
        name = return_at_boot(Path(sys.executable).with_name("inn"), Place(data), start=start)
    print(f"The daemon returns at boot ({name}).")
    if not _answers(line, lambda: False):
        raise CannotGoOn("the daemon does not answer", f"Its log: journalctl -u {name}")


def _daemon(line: Line, data: Path) -> None:
    """Apart from us, until this machine is switched off."""
    data.mkdir(parents=True, exist_ok=True, mode=0o711)
    log_path = data / "daemon.log"
    print(f"Starting the daemon (log: {log_path}) …", flush=True)
    with log_path.open("ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "innkeeper.cli", "serve", "--data", str(data), "--log-file", str(log_path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if not _answers(line, lambda: daemon.poll() is not None):
        what = "does not answer" if daemon.poll() is None else "ended at once"
        tail = log_path.read_text(errors="replace").strip().splitlines()[-3:]
        raise CannotGoOn(f"the daemon {what}: " + " | ".join(tail), f"Its log: {log_path}")


def _answers(line: Line, ended: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _UP_S
    while time.monotonic() < deadline and not ended():
        with contextlib.suppress(CannotGoOn):
            if all(host["status"] == "ready" for host in line.get("/v1/hosts")["items"]):
                return True
        time.sleep(0.2)
    return False


def _template(line: Line, template: str) -> None:
    if any(t["name"] == template for t in line.get("/v1/templates")["items"]):
        print(f"Template {template} stands already.")
        return
    print(f"Building template {template}; this takes a few minutes, once …", flush=True)
    follow(line, line.post("/v1/templates/build", {"recipe": template}))


def _instance(line: Line, template: str, name: str) -> None:
    found = [i for i in line.get("/v1/instances")["items"] if i["name"] == name]
    if not found:
        print(f"Launching {name} from {template} …", flush=True)
        _followed(line, "/v1/instances", {"template": template, "name": name})
    elif found[0]["status"] in ("stopped", "crashed"):
        print(f"Starting {name} …", flush=True)
        _followed(line, f"/v1/instances/{name}/start", None)
    elif found[0]["status"] in ("paused", "no-space"):
        print(f"Resuming {name} …", flush=True)
        _followed(line, f"/v1/instances/{name}/resume", None)
    else:
        print(f"Instance {name} is {found[0]['status']} already.")


def _followed(line: Line, path: str, body: dict[str, Any] | None) -> None:
    follow(line, line.post(path, body))


def _command(data: Path) -> str:
    inn = os.path.relpath(Path(sys.executable).with_name("inn"))
    return inn if str(data) == DATA else f"env INN_DATA={data} {inn}"


def _go_on(inn: str, template: str, name: str) -> None:
    hints = {
        f"{inn} shell {name}": "a shell in it",
        f"{inn} list": "all instances",
        f"{inn} launch {template} web --memory 1GiB": "another one",
        f"{inn} delete {name} --force": "be rid of it",
        f"{inn} --help": "everything else",
    }
    left = max(map(len, hints)) + 2
    print("\nA machine of your own. Go on with:")
    for call, words in hints.items():
        print(f"  {call:{left}}{words}")
    print("The daemon runs until this machine is switched off; ./run --at-boot has it return.")


def main() -> None:
    app = App(
        name="./run",
        help="Take a fresh machine to a running instance. Safe to repeat: what stands already is used.",
        usage="Usage: ./run [OPTIONS]",
        version_flags=(),
        help_format="plaintext",
        help_formatter=HelpPage(),
        default_parameter=Parameter(negative=(), show_default=False),
        group_parameters=Group("Options", sort_key=1),
        group_commands=Group("Help", sort_key=2),
    )
    app.default(quickstart)
    told(lambda: spoken(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
