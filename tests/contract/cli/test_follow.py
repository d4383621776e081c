"""Following: Ctrl-C cancels and undoes, a second one leaves it; a daemon that ends is told, and what to do then."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.control.submit import Asking, Decide
from innkeeper.model.plans import Refusal
from innkeeper.model.work import Operation
from tests.contract.api.asking import done
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


class Withheld:
    """The daemon keeps its next answer back, until the same is asked again: that one is then answered at once.

    With `ended` it is answered once the work has ended, so that there is nothing left to cancel.
    """

    def __init__(self, daemon: Daemon, *, ended: bool = False) -> None:
        self.taken, self._again = threading.Event(), asyncio.Event()
        self.keys: list[str | None] = []
        self._ended = ended
        self._daemon = daemon
        self._submit = daemon.house.submitter.submit
        object.__setattr__(daemon.house.submitter, "submit", self)

    async def __call__(self, decide: Decide, asking: Asking) -> Operation | Refusal:
        self.keys.append(asking.key)
        answer = await self._submit(decide, asking)
        if len(self.keys) > 1:
            if self._ended and isinstance(answer, Operation):
                answer = await self._daemon.store.journal.wait_ended(answer.id, PATIENCE_S) or answer
            self._again.set()
        else:
            self.taken.set()
            await self._again.wait()
        return answer


def interrupted(daemon: Daemon, withheld: Withheld, *words: str) -> tuple[int, str]:
    """Ctrl-C while the answer is withheld: the exit code, and what was said."""
    with started(daemon.socket, *words) as process:
        assert withheld.taken.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_S)
        assert process.stderr is not None
        said = process.stderr.read()
    assert len(withheld.keys) == 2
    assert withheld.keys[0] == withheld.keys[1] is not None
    return code, said


def test_ctrl_c_before_the_answer_cancels_too(slow: Daemon) -> None:
    """It is asked again under the same key, and what it did is undone."""
    code, said = interrupted(slow, Withheld(slow), "template", "build", "debian-12")
    assert code == 130
    assert said.endswith("inn: build template debian-12:2: cancelled\n")
    with slow.client() as api:
        found = [o for o in api.get("/v1/operations").json()["items"] if "debian-12:2" in o["title"]]
        assert [o["state"] for o in found] == ["cancelled"]
        assert {t["version"] for t in api.get("/v1/templates").json()["items"]} == {1}
    assert not slow.state.pool.staging


@pytest.mark.parametrize(
    "words, title",
    [
        (("rename", "web", "shop"), "rename web to shop"),
        (("delete", "web", "--force"), "delete web"),
        (("stop", "web", "--force"), "stop web"),
        (("template", "delete", "debian-12"), "delete template debian-12:1"),
    ],
    ids=["rename", "delete", "stop", "delete-template"],
)
def test_ctrl_c_before_the_answer_to_anything_finds_what_it_did(
    slow: Daemon, words: tuple[str, ...], title: str
) -> None:
    """Too late to cancel it, and that is told."""
    with slow.client() as api:
        done(api, api.post("/v1/instances", json={"template": "tiny", "name": "web"}))
        code, said = interrupted(slow, Withheld(slow, ended=True), *words)
        assert code == 130
        assert said.startswith(f"\ncancelling: {title} (Ctrl-C again leaves it to itself)\n")
        assert f"too late to cancel: {title} has succeeded" in said
        found = [o for o in api.get("/v1/operations").json()["items"] if o["title"] == title]
        assert [o["state"] for o in found] == ["succeeded"]


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
