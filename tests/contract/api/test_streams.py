"""Commands and consoles over WebSocket: input, both outputs, exit codes, signals, size, and words that mean nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from tests.contract.api.asking import done, launch
from tests.contract.daemon import Daemon

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module")
def web(daemon: Daemon) -> str:
    with daemon.client() as api:
        launch(api, "web")
    return "web"


@contextmanager
def stream(daemon: Daemon, path: str) -> Iterator[ClientConnection]:
    with unix_connect(str(daemon.socket), uri=f"ws://innkeeper/v1/instances/{path}", compression=None) as socket:
        yield socket


@contextmanager
def command(daemon: Daemon, *argv: str, name: str = "web", **more: Any) -> Iterator[ClientConnection]:
    with stream(daemon, f"{name}/exec") as socket:
        socket.send(json.dumps({"argv": list(argv), **more}))
        yield socket


def rest(socket: ClientConnection) -> tuple[bytes, bytes, dict[str, Any]]:
    """Standard output, standard error, and the last word."""
    outputs = {1: b"", 2: b""}
    for message in socket:
        if isinstance(message, str):
            return outputs[1], outputs[2], json.loads(message)
        outputs[message[0]] += message[1:]
    raise AssertionError("no last word")


def test_a_command_says_something_and_ends(daemon: Daemon, web: str) -> None:
    with command(daemon, "echo", "a", "b c") as socket:
        assert rest(socket) == (b"a b c\n", b"", {"exit": 0})


def test_an_exit_code_is_passed_on(daemon: Daemon, web: str) -> None:
    with command(daemon, "false") as socket:
        assert rest(socket) == (b"", b"", {"exit": 1})


def test_errors_come_apart(daemon: Daemon, web: str) -> None:
    with command(daemon, "cat", "/nix") as socket:
        assert rest(socket) == (b"", b"cat: /nix: No such file or directory\n", {"exit": 1})


def test_input_goes_in_and_ends(daemon: Daemon, web: str) -> None:
    data = bytes(range(256)) * 1000
    with command(daemon, "cat") as socket:
        for at in range(0, len(data), 32_768):
            socket.send(data[at : at + 32_768])
        socket.send('{"eof":true}')
        assert rest(socket) == (data, b"", {"exit": 0})


def test_a_signal_ends_it(daemon: Daemon, web: str) -> None:
    with command(daemon, "sleep", "100000") as socket:
        socket.send('{"signal":15}')
        assert rest(socket) == (b"", b"", {"signal": 15})


def test_a_shell_has_a_terminal_whose_size_follows(daemon: Daemon, web: str) -> None:
    with command(daemon, pty={"rows": 24, "cols": 80, "term": "xterm"}) as socket:
        socket.send(b"stty size\r")
        socket.send('{"resize":[40,132]}')
        socket.send(b"stty size\rexit 7\r")
        out, _, last = rest(socket)
    assert b"24 80" in out
    assert b"40 132" in out
    assert last == {"exit": 7}


def test_a_command_that_is_not_there(daemon: Daemon, web: str) -> None:
    with command(daemon, "nosuch") as socket:
        assert "not found" in rest(socket)[2]["error"]


def test_the_line_ends_with_its_machine(daemon: Daemon, api: httpx.Client) -> None:
    launch(api, "brief")
    with command(daemon, "sleep", "100000", name="brief") as socket:
        done(api, api.post("/v1/instances/brief/stop", json={"force": True}))
        assert "machine has ended" in rest(socket)[2]["error"]
    with command(daemon, "true", name="brief") as socket:
        last = rest(socket)[2]
    assert "brief" in last["error"]
    assert last["hint"]


@pytest.mark.parametrize(
    "said",
    [
        "x",
        "[]",
        '{"argv":"ls"}',
        '{"argv":[1]}',
        '{"pty":{"rows":0,"cols":80}}',
        '{"pty":{"rows":1e9,"cols":80}}',
        b"\x00",
    ],
)
def test_a_request_that_makes_no_sense_is_told_so(daemon: Daemon, web: str, said: str | bytes) -> None:
    with stream(daemon, f"{web}/exec") as socket:
        socket.send(said)
        assert "cannot be understood" in rest(socket)[2]["error"]


@pytest.mark.parametrize("word", ["x", "[]", '{"resize":[0,0]}', '{"resize":5}', '{"signal":0}', '{"signal":"TERM"}'])
def test_a_word_that_makes_no_sense_ends_the_stream_with_words(daemon: Daemon, web: str, word: str) -> None:
    with command(daemon, "cat") as socket:
        socket.send(word)
        assert "cannot be understood" in rest(socket)[2]["error"]


def test_a_client_that_hangs_up_ends_its_command(daemon: Daemon, web: str) -> None:
    with command(daemon, "cat") as socket:
        socket.send(b"x")
        assert socket.recv() == b"\x01x"
    with command(daemon, "true") as socket:
        assert rest(socket)[2] == {"exit": 0}


def test_a_stream_into_nothing_is_refused_with_words(daemon: Daemon) -> None:
    with stream(daemon, "nowhere/exec") as socket:
        socket.send('{"argv":["ls"]}')
        assert rest(socket)[2]["error"] == "there is no instance named nowhere"
    with stream(daemon, "nowhere/console") as socket:
        assert rest(socket)[2]["error"] == "there is no instance named nowhere"


def test_a_stranger_is_refused_before_the_stream_begins(daemon: Daemon, web: str) -> None:
    with pytest.raises(InvalidStatus) as refused, stream(daemon, f"{web}/exec?project=nowhere"):
        pass
    assert refused.value.response.status_code == 404
    assert json.loads(bytes(refused.value.response.body))["detail"] == "there is no project named nowhere"


# --- the console


def test_a_console_tells_what_was_said_and_goes_on_live(daemon: Daemon, web: str) -> None:
    with stream(daemon, f"{web}/console") as first, stream(daemon, f"{web}/console") as second:
        for socket in (first, second):
            assert b"login:" in socket.recv()
        first.send(b"root\r")
        for socket in (first, second):
            assert b"root" in socket.recv()


def test_a_console_ends_with_its_machine(daemon: Daemon, api: httpx.Client) -> None:
    launch(api, "looked-at")
    with stream(daemon, "looked-at/console") as socket:
        socket.recv()
        done(api, api.post("/v1/instances/looked-at/stop", json={"force": True}))
        said = b"".join(m for m in socket if isinstance(m, bytes))
        assert b"QEMU was stopped" in said
