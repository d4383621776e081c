"""What `./run` does once everything is installed: a daemon, a template, an instance, and its first words.

Repeatable: what stands already is used. The daemon is started apart from us and goes on when we end.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from innkeeper.cli.app import told
from innkeeper.cli.channel import until_answering
from innkeeper.cli.follow import follow
from innkeeper.cli.grammar.call import spoken
from innkeeper.cli.line import DATA, CannotGoOn, Line
from innkeeper.main.place import DATA_FOLDER

_UP_S = 60.0


def quickstart(
    *,
    data: Annotated[Path, Parameter(help="data directory (INN_DATA)")] = DATA_FOLDER,
    template: Annotated[str, Parameter(help="catalogue entry: debian-12 or tiny")] = "debian-12",
    name: Annotated[str, Parameter(help="name of the instance")] = "hello",
) -> None:
    """Start the daemon, prepare a template, launch an instance, wait until it answers, and run uname -a in it."""
    line = Line(str(data.absolute() / "api.sock"))
    _daemon(line, data.absolute())
    _template(line, template)
    _instance(line, template, name)
    until_answering(line, name, lambda words: print(words, end="", flush=True))
    inn = _command(data)
    print(f"\n$ {inn} exec {name} -- uname -a", flush=True)
    subprocess.run([*inn.split(), "exec", name, "--", "uname", "-a"], check=True)
    _go_on(inn, name)


def _daemon(line: Line, data: Path) -> None:
    with contextlib.suppress(CannotGoOn):
        line.get("/v1")
        print("The daemon runs already.")
        return
    if os.geteuid() != 0:
        raise CannotGoOn("the daemon must run as root", "Run it so: sudo ./run")
    data.mkdir(parents=True, exist_ok=True, mode=0o711)
    log_path = data / "daemon.log"
    print(f"Starting the daemon (log: {log_path}) …", flush=True)
    with log_path.open("ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "innkeeper.cli", "serve", "--data", str(data)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _UP_S
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            tail = log_path.read_text(errors="replace").strip().splitlines()[-3:]
            raise CannotGoOn("the daemon ended at once: " + " | ".join(tail), f"Its log: {log_path}")
        with contextlib.suppress(CannotGoOn):
            if all(host["status"] == "ready" for host in line.get("/v1/hosts")["items"]):
                return
        time.sleep(0.2)
    raise CannotGoOn(f"the daemon does not answer after {_UP_S:g} s", f"Its log: {log_path}")


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


def _go_on(inn: str, name: str) -> None:
    print(f"""
A machine of your own. Go on with:
  {inn} shell {name}                    a shell in it
  {inn} list                            all instances
  {inn} launch debian-12 web --memory 1GiB
  {inn} delete {name} --force           be rid of it
  {inn} --help                          everything else""")


def main() -> None:
    app = App(name="run", help="Take a fresh machine to a running instance.")
    app.default(quickstart)
    told(lambda: spoken(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
