"""Completion in real shells: commands, options, choices, and the names of what there is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from innkeeper.cli.grammar.call import build
from tests.contract.api.asking import done
from tests.contract.cli.running import INN, Inn, environment
from tests.contract.daemon import Daemon

pytestmark = pytest.mark.slow

# Asks bash for what it would offer for the last word, as the tab key does.
_TAB = r"""
source "$1"; shift
COMP_WORDS=(inn "$@"); COMP_CWORD=$#; COMP_LINE="inn $*"; COMP_POINT=${#COMP_LINE}
_inn
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def shells(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `inn` on it, and what completes it."""
    folder = tmp_path_factory.mktemp("shells")
    (folder / "inn").write_text(f'#!/bin/sh\nexec {" ".join(INN)} "$@"\n')
    (folder / "inn").chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        (folder / shell).write_text(build().generate_completion(shell=shell))
    with daemon.client() as api:
        for name in ("web", "worker", "db"):
            wish = {"template": "tiny", "name": name, "start": False}
            assert api.post("/v1/instances", json=wish).status_code == 202
        for name in ("before", "between", "after"):
            assert done(api, api.post("/v1/instances/web/snapshots", json={"name": name}))
    return folder


def offered(shells: Path, daemon: Daemon, *words: str) -> list[str]:
    env = environment(daemon.socket)
    env["PATH"] = f"{shells}{os.pathsep}{env['PATH']}"
    command = ["bash", "-c", _TAB, "bash", str(shells / "bash"), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=20)
    return sorted(done.stdout.split())


@pytest.mark.parametrize(
    "words, wanted",
    [
        (("la",), ["launch"]),
        (("re",), ["rename", "restart", "resume", "rewind"]),
        (("template", "b"), ["build"]),
        (("launch", "--mem"), ["--memory"]),
        (("wait", "--for", "cl"), ["cloud-init"]),
        (("list", "-f", ""), ["csv", "json", "table", "yaml"]),
        (("stop", "w"), ["web", "worker"]),
        (("stop", "web", "wo"), ["worker"]),
        (("exec", "d"), ["db"]),
        (("launch", "t"), ["tiny"]),
        (("template", "delete", "deb"), ["debian-12"]),
        (("snapshot", "list", "d"), ["db"]),
        (("snapshot", "restore", "web", "be"), ["before", "between"]),
        (("snapshot", "delete", "web", "before", "a"), ["after"]),
        (("snapshot", "show", "db", ""), []),
        (("snapshot", "show", "nosuch", ""), []),
        (("rewind", "web", "a"), ["after"]),
        (("launch", "web/b"), ["web/before", "web/between"]),
        (("launch", "nosuch/"), []),
    ],
    ids=" ".join,
)
def test_bash_offers(shells: Path, daemon: Daemon, words: tuple[str, ...], wanted: list[str]) -> None:
    assert offered(shells, daemon, *words) == wanted


def test_operations_are_offered(shells: Path, daemon: Daemon) -> None:
    found = offered(shells, daemon, "operation", "show", "op-")
    assert found
    assert all(word.startswith("op-") for word in found)


def test_without_a_daemon_nothing_is_offered_and_nothing_said(shells: Path, tmp_path: Path) -> None:
    env = environment(tmp_path / "none.sock")
    done = subprocess.run([str(shells / "inn"), "__complete", "stop", ""], env=env, capture_output=True, check=False)
    assert b"no daemon" not in done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_is_printed_is_a_script(shells: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    flag = "-n" if shell != "fish" else "--no-execute"
    subprocess.run([shell, flag, str(shells / shell)], check=True, capture_output=True)


def test_the_command_prints_it(shells: Path, inn: Inn) -> None:
    assert inn.well("completion", "bash") == (shells / "bash").read_text()


def test_every_command_is_known_to_every_shell(shells: Path, inn: Inn) -> None:
    commands = [line.split(",")[0].split()[0] for line in inn.well("--help").splitlines() if line.startswith("  ")]
    for shell in ("bash", "zsh", "fish"):
        script = (shells / shell).read_text()
        assert [c for c in commands if c[0] != "-" and c not in script] == []
