"""Following: Ctrl-C cancels and undoes, a second one leaves it; a daemon that ends is told, and what to do then."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.cli.running import INN, PATIENCE_S, Inn, started
from tests.contract.daemon import Daemon, Wanted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of the test's own, whose templates take an hour to build."""
    with Daemon(Wanted(folder=tmp_path)) as daemon:
        daemon.build_takes("debian-12", 3600 * 50)
        yield daemon


def running(daemon: Daemon) -> str:
    """The operation under way, once there is one."""
    with daemon.client() as api:
        while True:
            found = [o for o in api.get("/v1/operations").json()["items"] if o["state"] in ("pending", "running")]
            if found:
                return str(found[0]["id"])
            time.sleep(0.02)


def test_ctrl_c_cancels_and_undoes(slow: Daemon) -> None:
    with started(slow.socket, "template", "build", "debian-12") as process:
        operation = running(slow)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr is not None
        said = process.stderr.read()
    assert "cancelling: build template debian-12:2 (Ctrl-C again leaves it to itself)" in said
    assert said.endswith("inn: build template debian-12:2: cancelled\n")
    with slow.client() as api:
        assert api.get(f"/v1/operations/{operation}").json()["state"] == "cancelled"
        assert {t["version"] for t in api.get("/v1/templates").json()["items"]} == {1}
    assert not slow.state.pool.staging


def test_ctrl_c_before_the_answer_cancels_too(slow: Daemon) -> None:
    """The daemon holds its answer back; it is asked again under the same key, and what it did is undone."""
    with started(slow.socket, "launch", "tiny", "web") as process:
        # As soon as the request is taken; whether the answer was read by then is chance, and must not matter.
        with slow.client() as api:
            while not any(o["title"].startswith("launch web") for o in api.get("/v1/operations").json()["items"]):
                assert process.poll() is None
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_S)
    with slow.client() as api:
        states = [o["state"] for o in api.get("/v1/operations").json()["items"] if "launch web" in o["title"]]
        names = [i["name"] for i in api.get("/v1/instances").json()["items"]]
    assert len(states) == 1
    assert (code, states, names) in (
        (130, ["cancelled"], []),
        (130, ["succeeded"], ["web"]),  # it had ended when Ctrl-C came
        (0, ["succeeded"], ["web"]),
        (-signal.SIGINT, ["succeeded"], ["web"]),  # Python was leaving already, and hears no signals any more
    )


def test_a_second_ctrl_c_leaves_it_to_itself(slow: Daemon) -> None:
    """A guest that takes no notice: stopping it cannot be cancelled at once."""
    with started(slow.socket, "template", "build", "debian-12") as process:
        operation = running(slow)
        slow.hold()  # the daemon does nothing for a while
        try:
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            while "cancelling" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
        finally:
            slow.go_on()
    with slow.client() as api:
        api.post(f"/v1/operations/{operation}/cancel")


def test_a_daemon_that_ends_meanwhile_is_told(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with Daemon(Wanted(folder=tmp_path)) as daemon:
            daemon.build_takes("debian-12", 3600 * 50)
            process = stack.enter_context(started(daemon.socket, "template", "build", "debian-12"))
            operation = running(daemon)
        assert process.wait(PATIENCE_S) == 3
        assert process.stderr is not None
        said = process.stderr.read()
    hint = f"The work goes on when a daemon runs again: inn serve; then: inn operation wait {operation}"
    assert hint in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_demo_ends_cleanly(tmp_path: Path) -> None:
    command = [*INN, "demo", "--data", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stderr is not None
        said = ""
        while "Ctrl-C ends it" not in said:
            assert daemon.poll() is None, daemon.stderr.read()
            said += daemon.stdout.readline()
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(PATIENCE_S) == 0
        assert daemon.stderr.read() == ""
    assert f"export INN_SOCKET={tmp_path}/data/api.sock" in said
    assert "Templates: debian-12, tiny." in said


def test_the_demo_wants_a_fresh_folder(inn: Inn, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    went = inn("demo", "--data", str(tmp_path))
    assert went.code == 2
    assert "is not empty" in went.err
    went = inn("demo", "--data", "/proc/no")
    assert went.code == 1
    assert "The demo did not start" in went.err


def test_many_operations_are_followed_to_their_ends(inn: Inn, daemon: Daemon) -> None:
    inn.well("launch", "tiny", "herd", "--count", "30")
    names = [f"herd-{n}" for n in range(1, 31)]
    inn.well("stop", *names, "--force")
    inn.well("delete", *names)
    assert "herd-" not in inn.well("list")
