"""Shells, consoles and commands as a person meets them: in a terminal, with a size, with Ctrl-C and Ctrl-]."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from innkeeper.sim.machines import panic
from tests.contract.api.asking import done, launch
from tests.contract.cli.running import INN, PATIENCE_S, environment, in_terminal, ran, started, terminal
from tests.contract.daemon import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def web(daemon: Daemon) -> str:
    with daemon.client() as api:
        launch(api, "web")
    return "web"


# --- shells


def test_a_shell_has_a_terminal_whose_size_follows_ours(daemon: Daemon, web: str) -> None:
    with terminal(daemon.socket, "shell", web, rows=30, cols=90) as person:
        before = person.settings()
        person.until(b"root@web:~# ")
        assert person.settings() != before  # every key is passed on
        person.type(b"stty size\r")
        person.until(b"30 90")
        person.resize(43, 120)
        person.type(b"stty size\r")
        while b"43 120" not in person.until(b"~# "):
            person.type(b"stty size\r")  # the new size was still on its way
        person.type(b"\x03")  # Ctrl-C is the guest's affair
        person.type(b"exit 7\r")
        said, code = person.rest()
    assert code == 7, said


def test_what_is_typed_ahead_is_not_lost(daemon: Daemon, web: str) -> None:
    with terminal(daemon.socket, "shell", web, rows=31, cols=91) as person:
        person.type(b"stty size\nexit 5\n")  # before the command has begun
        said, code = person.rest()
    assert b"31 91" in said
    assert code == 5


def test_the_terminal_is_as_before_when_a_shell_has_ended(daemon: Daemon, web: str) -> None:
    script = f"stty -a; {' '.join(INN)} shell {web}; echo left; stty -a; exit 3"
    with in_terminal(["/bin/sh", "-c", script], environment(daemon.socket)) as person:
        person.until(b"speed ")
        before = person.until(b"~# ").partition(b"root@")[0]
        person.type(b"exit\r")
        person.until(b"left\r\nspeed ")
        after, code = person.rest()
    assert after == before
    assert code == 3


# --- consoles


def test_a_console_is_left_by_its_key(daemon: Daemon, web: str) -> None:
    with terminal(daemon.socket, "console", web) as person:
        person.until(b"Ctrl-] ends it")
        person.until(b"login: ")
        person.type(b"root\r")
        person.until(b"root\r\n")
        person.type(b"\x1d")
        assert person.rest()[1] == 0


def test_a_console_ends_with_its_machine(daemon: Daemon, api: httpx.Client) -> None:
    launch(api, "brief")
    with terminal(daemon.socket, "console", "brief") as person:
        person.until(b"login: ")
        done(api, api.post("/v1/instances/brief/stop", json={"force": True}))
        person.until(b"QEMU was stopped")
        assert person.rest()[1] == 0


# --- commands


def test_a_command_reads_what_we_are_given(daemon: Daemon, web: str) -> None:
    data = bytes(range(256)) * 3000
    said = ran(daemon.socket, "exec", web, "--", "cat", given=data)
    assert (said.returncode, said.stdout, said.stderr) == (0, data, b"")


def test_the_outputs_of_a_command_stay_apart(daemon: Daemon, web: str) -> None:
    said = ran(daemon.socket, "exec", web, "--", "cat", "/nix")
    assert (said.returncode, said.stdout) == (1, b"")
    assert said.stderr == b"cat: /nix: No such file or directory\n"


@contextlib.contextmanager
def under_way(daemon: Daemon, name: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs in an instance, and says back what it is told."""
    with started(daemon.socket, "exec", name, "--", "cat") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("x")
        process.stdin.flush()
        assert process.stdout.read(1) == "x"
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_our_signals_are_the_commands(daemon: Daemon, web: str, number: signal.Signals) -> None:
    with under_way(daemon, web) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number


def test_a_command_that_cannot_hear_holds_nobody(daemon: Daemon, api: httpx.Client) -> None:
    launch(api, "deaf")
    with under_way(daemon, "deaf") as process:
        done(api, api.post("/v1/instances/deaf/pause"))
        process.terminate()
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert "did not end" in process.stderr.read()


def test_a_command_ends_when_its_guests_kernel_gives_up(daemon: Daemon, api: httpx.Client) -> None:
    launch(api, "dead")
    with under_way(daemon, "dead") as process:
        daemon.do(lambda: panic(daemon.state, "dead"))
        assert process.wait(PATIENCE_S) == 255
        assert process.stderr is not None
        assert "panicked" in process.stderr.read()


def test_a_command_in_a_terminal(daemon: Daemon, web: str) -> None:
    with terminal(daemon.socket, "exec", "-t", web, "--", "stty", "size", rows=11, cols=77) as person:
        person.until(b"11 77")
        assert person.rest()[1] == 0


def test_a_command_whose_machine_ends(daemon: Daemon, api: httpx.Client) -> None:
    launch(api, "doomed")
    with under_way(daemon, "doomed") as process:
        daemon.do(lambda: daemon.state.crash("doomed"))
        assert process.wait(PATIENCE_S) == 255
        assert process.stderr is not None
        assert "the machine has ended" in process.stderr.read()


# --- progress


def test_a_person_sees_progress(daemon: Daemon) -> None:
    daemon.build_takes("tiny", 60)  # a bit more than a second of ours
    with terminal(daemon.socket, "template", "build", "tiny") as person:
        person.until(b"build template tiny")
        assert person.rest()[1] == 0


def test_top_begins_anew_until_it_is_ended(daemon: Daemon, web: str) -> None:
    with terminal(daemon.socket, "top") as person:
        person.until(b"running")
        person.until(b"web")
        person.type(b"\x03")
        assert person.rest()[1] == 0
