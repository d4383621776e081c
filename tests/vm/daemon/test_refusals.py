"""When a daemon must not serve, it says why and leaves everything alone; and two of them do not meet."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

from tests.vm.installation.house import House, installation
from tests.vm.installation.process import START_S
from tests.vm.installation.template import put_template
from tests.vm.installation.traces import assert_tidy, traces

_OLD = """\
#!{python}
import json
answers = {{
    "query-version": {{"qemu": {{"major": 5, "minor": 2, "micro": 0}}, "package": ""}},
    "query-machines": [{{"name": "pc-q35-5.2"}}],
    "query-command-line-options": [{{"option": "sandbox", "parameters": []}}],
}}
print(json.dumps({{"QMP": {{"version": answers["query-version"], "capabilities": []}}}}))
for name in {questions}:
    print(json.dumps({{"return": answers.get(name, {{}}), "id": name}}))
"""


def _refusal(house: House, *options: str, **env: str) -> str:
    """What a daemon says that does not serve."""
    before = house.log.stat().st_size if house.log.exists() else 0
    daemon = house.begin(*options, **env)
    assert daemon.wait(START_S) not in (0, None)
    said = house.log.read_text(errors="replace")[before:]
    assert "Traceback" not in said, said
    return said


def _path_with(tmp_path: Path, name: str, text: str | None) -> str:
    """A PATH with everything but QEMU, or with another one."""
    folder = tmp_path / name
    folder.mkdir()
    for directory in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in Path(directory).iterdir():
            link = folder / program.name
            if not program.name.startswith("qemu-system") and not link.exists():
                link.symlink_to(program)
    if text is not None:
        (folder / "qemu-system-x86_64").write_text(text)
        (folder / "qemu-system-x86_64").chmod(0o755)
    return str(folder)


def test_without_qemu_it_does_not_serve(fresh: House, tmp_path: Path) -> None:
    said = _refusal(fresh, PATH=_path_with(tmp_path, "none", None))
    assert "qemu-system-x86_64" in said
    assert "nstall qemu-system-x86" in said
    assert traces(fresh.place).networks == 0


def test_with_an_old_qemu_it_does_not_serve(fresh: House, tmp_path: Path) -> None:
    questions = ("qmp_capabilities", "query-version", "query-machines", "query-command-line-options", "quit")
    old = _OLD.format(python=sys.executable, questions=questions)
    said = _refusal(fresh, PATH=_path_with(tmp_path, "old", old))
    assert "5.2.0" in said
    assert "7.2 or later" in said


def test_a_second_daemon_on_a_data_directory_does_not_serve(house: House) -> None:
    first = house.daemon
    house.launch("mine")
    try:
        said = _refusal(house)
        assert f"another daemon (pid {first.pid})" in said
        assert "--data" in said
    finally:
        house._daemon = first
    assert house.said_in("mine", "echo", "here") == "here"
    house.remove("mine")
    assert_tidy(house)


def test_a_port_of_another_program_is_told_and_what_to_do(fresh: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as others:
        port = others.getsockname()[1]
        said = _refusal(fresh, "--listen", str(port))
        assert f"port {port} of 127.0.0.1 is in use by another program" in said
        assert "choose another with --listen" in said
        assert f"ss -ltnp 'sport = :{port}'" in said
        assert "Address already in use" not in said
    fresh.begin("--listen", str(port))
    fresh.until_it_answers()


# Everything is loaded first: another user may not be able to read our interpreter's files.
_AS_NOBODY = """\
import os, sys
from pathlib import Path
from innkeeper.cli.line import CannotGoOn
from innkeeper.main.serve import serve
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    serve(data=Path(sys.argv[1]))
except CannotGoOn as refused:
    sys.exit(refused.reason)
"""


def test_one_who_is_not_root_is_told_so(fresh: House) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(fresh.place.data / "own")],
        env=fresh.environment(),
        capture_output=True,
        timeout=START_S,
        check=False,
    )
    assert ran.returncode == 1
    assert b"root" in ran.stderr
    assert b"Traceback" not in ran.stderr


def test_two_installations_do_not_meet(house: House, tiny: Path) -> None:
    """Same names, same kernel, same machine: deleting all of one leaves the other as it was."""
    with installation("other") as other:
        asyncio.run(put_template(other.place, "tiny", tiny))
        other.start()
        assert other.place.tag != house.place.tag
        for each in (house, other):
            each.launch("web")
        here, there = house.show("web"), other.show("web")
        assert here["id"] != there["id"]
        networks = [json.loads(json.dumps(each.get("/networks")["items"][0])) for each in (house, other)]
        assert networks[0]["cidr"] != networks[1]["cidr"]
        other.remove("web")
        other.end()
        assert_tidy(house)
        assert house.said_in("web", "echo", "here") == "here"
        assert traces(other.place).processes == ()
    assert house.said_in("web", "echo", "still here") == "still here"
    house.kill()
    house.start()
    assert house.until("web", "agent")["id"] == here["id"]
    house.remove("web")
    assert_tidy(house)
