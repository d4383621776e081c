"""What `./run` does once everything is installed: a daemon, a template, an instance, and its first words.

Repeatable: what stands already is used. The daemon is started apart from us and goes on when we end.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
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
from innkeeper.main import daemon
from innkeeper.main import remove as removal
from innkeeper.main.boot import CannotReturn, return_at_boot
from innkeeper.main.place import DATA_FOLDER, CannotServe, Place
from innkeeper.ports.store import StoreFailed

_WORDS_S = 60.0
_MUTE = ("panicked", "unknown")  # nothing in it answers, and waiting changes nothing


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
        with in_words((OSError,), "The daemon was not started"):
            daemon.start(line, data.absolute())
    _template(line, template)
    inn = _command(data)
    _instance(line, inn, template, name)
    until_answering(line, name, lambda words: print(words, end="", flush=True))
    _first_words(line, inn, name)
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
    if daemon.stands(line):
        return True
    if os.geteuid() != 0:
        raise CannotGoOn("the daemon must run as root", "Run it so: sudo ./run")
    return False


def _return_at_boot(line: Line, data: Path, *, start: bool) -> None:
    with in_words((CannotReturn, OSError), "Without --at-boot the daemon runs until this machine is switched off"):
        name = return_at_boot(Path(sys.executable).with_name("inn"), Place(data), start=start)
    print(f"The daemon returns at boot ({name}).")
    if not daemon.answers(line, lambda: False):
        raise CannotGoOn("the daemon does not answer", f"Its log: journalctl -u {name}")


def _template(line: Line, template: str) -> None:
    if any(t["name"] == template for t in line.get("/v1/templates")["items"]):
        print(f"Template {template} stands already.")
        return
    print(f"Building template {template}; this takes a few minutes, once …", flush=True)
    follow(line, line.post("/v1/templates/build", {"recipe": template}))


def _instance(line: Line, inn: str, template: str, name: str) -> None:
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
    elif found[0]["status"] in _MUTE:
        why = f"{name} is {found[0]['status']}: {found[0]['reason']}".removesuffix(": ")
        raise CannotGoOn(why, f"See: {inn} logs {name}; begin anew with it: {inn} restart {name} --force")
    else:
        print(f"Instance {name} is {found[0]['status']} already.")


def _followed(line: Line, path: str, body: dict[str, Any] | None) -> None:
    follow(line, line.post(path, body))


def _first_words(line: Line, inn: str, name: str) -> None:
    """What goes wrong is told by `inn exec` itself, but for silence."""
    print(f"\n$ {inn} exec {name} -- uname -a", flush=True)
    words = [sys.executable, "-m", "innkeeper.cli", "exec", name, "--", "uname", "-a"]
    hint = f"See: {inn} show {name}, {inn} logs {name}; begin anew with it: {inn} restart {name} --force"
    try:
        done = subprocess.run(words, env={**os.environ, "INN_SOCKET": line.path}, timeout=_WORDS_S, check=False)
    except subprocess.TimeoutExpired as silence:
        raise CannotGoOn(f"{name} has not answered within {_WORDS_S:g} s", hint) from silence
    if done.returncode != 0:
        raise CannotGoOn(f"{name} did not carry out its first command (exit code {done.returncode})", hint)


def _command(data: Path) -> str:
    inn = os.path.relpath(Path(sys.executable).with_name("inn"))
    return inn if str(data) == DATA else f"env INN_DATA={shlex.quote(str(data))} {inn}"


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
