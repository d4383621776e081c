"""Files in and out as careful people want it: nothing else is replaced, seen by others, half-made or left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import termios
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.api.asking import launch
from tests.contract.cli.running import INN, PATIENCE_S, Inn, environment, in_terminal, ran, started
from tests.contract.daemon import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

DATA = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def box(daemon: Daemon) -> str:
    """An instance with some files: /root/file (0640), a link to it, and a pipe."""
    with daemon.client() as api:
        launch(api, "box")
    pushed = ran(daemon.socket, "exec", "box", "--", "dd", "of=/root/file", given=DATA)
    assert pushed.returncode == 0, pushed
    for command in (
        ("chmod", "640", "/root/file"),
        ("ln", "-s", "/root/file", "/tmp/link"),
        ("mkfifo", "/tmp/pipe"),
    ):
        assert ran(daemon.socket, "exec", "box", "--", *command).returncode == 0
    return "box"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the test's own folder."""
    monkeypatch.chdir(tmp_path)


def said_in(inn: Inn, *command: str) -> str:
    return inn.well("exec", "box", "--", *command).strip()


def made_in_guest(daemon: Daemon) -> set[str]:
    """All that was made on all disks, by path."""
    return daemon.do(lambda: {path for disk in daemon.state.pool.disks.values() for path in disk.files})


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- pull: what is at the target


def test_a_pipe_is_written_into(box: str, inn: Inn, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard = list[bytes]()
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()), daemon=True)
    reader.start()
    inn.well("pull", "box:/root/file", str(pipe))
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    reader.join(PATIENCE_S)
    assert heard == [DATA]
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_written_into(box: str, inn: Inn, tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    inn.well("pull", "box:/root/file", str(device))
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["null"]


@pytest.mark.parametrize("words", ["-", "out"])
def test_standard_output(daemon: Daemon, box: str, tmp_path: Path, words: str) -> None:
    """Also by a link of the same kind as /dev/stdout, in a place where nothing is lost if it goes wrong."""
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    target = words if words == "-" else str(tmp_path / words)
    said = ran(daemon.socket, "pull", "box:/root/file", target)
    assert (said.returncode, said.stdout, said.stderr) == (0, DATA, b"")
    assert (tmp_path / "out").is_symlink()
    assert len(list(tmp_path.iterdir())) == 1


def test_standard_output_that_is_a_file_stays_that_file(daemon: Daemon, box: str, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    with (tmp_path / "file").open("wb") as file:
        before = os.fstat(file.fileno()).st_ino
        command = [*INN, "pull", "box:/root/file", str(tmp_path / "out")]
        subprocess.run(command, env=environment(daemon.socket), stdout=file, check=True)
    assert (tmp_path / "file").read_bytes() == DATA
    assert (tmp_path / "file").stat().st_ino == before


def test_nobody_reads_standard_output_to_its_end(daemon: Daemon, box: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [*INN, "pull", "box:/root/file", "-"]
    done = subprocess.run(command, env=environment(daemon.socket), stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_links_are_followed_here(box: str, inn: Inn, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder/old")
    (tmp_path / "dangling").symlink_to("folder/new")
    (tmp_path / "round").symlink_to("round")
    for name in ("link", "dangling"):
        inn.well("pull", "box:/tmp/link", str(tmp_path / name))
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "folder/old").read_bytes() == (tmp_path / "folder/new").read_bytes() == DATA
    went = inn("pull", "box:/root/file", str(tmp_path / "round"))
    assert went.code == 1
    assert "round cannot be written: Too many levels of symbolic links" in went.err
    assert len(list(tmp_path.rglob("*"))) == 6


def test_modes_and_owners_here(box: str, inn: Inn, tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_bytes(b"")
    old.chmod(0o604)
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(old, owner, -1)
    inn.well("pull", "box:/root/file", str(new))
    inn.well("pull", "box:/root/file", str(old))
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert (stat.S_IMODE(old.stat().st_mode), old.stat().st_uid) == (0o604, owner)


def test_nobody_else_reads_what_is_on_its_way(daemon: Daemon, box: str, tmp_path: Path) -> None:
    with started(daemon.socket, "pull", "box:/tmp/pipe", str(tmp_path / "x")):
        until(lambda: list(tmp_path.iterdir()))
        (part,) = tmp_path.iterdir()
        assert stat.S_IMODE(part.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_pull_that_is_told_to_end_leaves_nothing(
    daemon: Daemon, box: str, tmp_path: Path, number: signal.Signals
) -> None:
    with started(daemon.socket, "pull", "box:/tmp/pipe", str(tmp_path / "x")) as process:
        until(lambda: list(tmp_path.iterdir()))
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_pull_in_the_background_can_be_told_to_end(daemon: Daemon, box: str, tmp_path: Path) -> None:
    """There Ctrl-C is ignored, as shells have it."""
    command = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *INN, "pull", "box:/tmp/pipe", str(tmp_path / "x")]
    with subprocess.Popen(command, env=environment(daemon.socket), stderr=subprocess.PIPE) as process:
        until(lambda: list(tmp_path.iterdir()))
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=PATIENCE_S)[1] == b""
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("target", ["-", "pipe"])
def test_a_pull_ends_though_nobody_reads(
    daemon: Daemon, box: str, tmp_path: Path, number: signal.Signals, target: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY)
    words = ["pull", "box:/root/file", target if target == "-" else str(pipe)]
    command = [*INN, *words]
    with subprocess.Popen(command, env=environment(daemon.socket), stdout=writer, stderr=subprocess.PIPE) as process:
        until(lambda: array("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0] >= 65536)  # it is full
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE_S)[1] == b""
    assert process.returncode == 128 + number
    os.close(writer)
    os.close(reader)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pull_ends_though_nobody_comes_to_read(
    daemon: Daemon, box: str, tmp_path: Path, number: signal.Signals
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with started(daemon.socket, "pull", "box:/root/file", str(tmp_path / "pipe")) as process:
        until(lambda: "wait_for_partner" in Path(f"/proc/{process.pid}/wchan").read_text())
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == ""


# --- pull: what is no file


@pytest.mark.parametrize(
    "words, code, said",
    [
        (("box:/",), 1, "box:/ is a folder|tar c"),
        (("box:/etc/",), 1, "box:/etc/ is a folder"),
        (("box:..",), 1, "box:.. is a folder"),
        (("box:",), 2, "'box:' names no file in an instance"),
        (("box:/etc", "there"), 1, "box:/etc is a folder"),
        (("box:/etc", "-"), 1, "box:/etc is a folder"),
        (("box:/nix",), 1, "box:/nix cannot be read|No such file"),
        (("box:/root/file/",), 1, "box:/root/file/ cannot be read|No such file"),
        (("box:/root/file", "--nope"), 2, "there is no option --nope|./--nope"),
        (("box:/root/file", "no/such/folder"), 1, "no/such/folder cannot be written: No such file"),
    ],
)
@pytest.mark.usefixtures("box", "here")
def test_what_cannot_be_pulled(inn: Inn, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    went = inn("pull", *words)
    assert (went.code, went.out) == (code, "")
    for part in said.split("|"):
        assert part in went.err
    assert "Traceback" not in went.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("box", "here")
def test_a_file_named_as_a_stream(inn: Inn, tmp_path: Path) -> None:
    inn.well("pull", "box:/root/file", "./-")
    assert (tmp_path / "-").read_bytes() == DATA
    inn.well("push", "./-", "box:/tmp")
    assert said_in(inn, "stat", "-c", "%a", "/tmp/-") == "640"


# --- push


def test_links_are_followed_there(box: str, inn: Inn, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    said_in(inn, "ln", "-s", "/etc", "/root/etc")
    said_in(inn, "ln", "-s", "etc/new", "/root/dangling")
    said_in(inn, "ln", "-s", "new", "/etc/again")
    for target, end in (("/root/dangling", "/etc/new"), ("/root/etc/again", "/etc/new"), ("/root/etc", "/etc/x")):
        inn.well("push", str(tmp_path / "x"), f"box:{target}")
        assert said_in(inn, "stat", "-c", "%F", target) == "symbolic link"
        assert said_in(inn, "cat", end) == "x"
        said_in(inn, "rm", "-f", end)


def test_a_device_there_is_written_into(daemon: Daemon, box: str, inn: Inn, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    before = made_in_guest(daemon)
    inn.well("push", str(tmp_path / "x"), "box:/dev/null")
    assert said_in(inn, "stat", "-c", "%F", "/dev/null") == "character special file"
    assert made_in_guest(daemon) == before


def test_standard_input_is_pushed(daemon: Daemon, box: str, inn: Inn) -> None:
    said = ran(daemon.socket, "push", "-", "box:/tmp/given", given=DATA)
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")
    assert said_in(inn, "stat", "-c", "%a", "/tmp/given") == "644"
    assert ran(daemon.socket, "pull", "box:/tmp/given", "-").stdout == DATA
    before = made_in_guest(daemon)
    for folder in ("/tmp", "/tmp/", "/nix/"):
        said = ran(daemon.socket, "push", "-", f"box:{folder}", given=b"x")
        assert said.returncode == 2
        assert b"is a folder, and what we are given has no name" in said.stderr
        assert b"Name the file: box:/" in said.stderr
    assert made_in_guest(daemon) == before


def test_what_cannot_be_pushed(daemon: Daemon, box: str, inn: Inn, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dev").write_text("x")  # a folder of that name is there
    before = made_in_guest(daemon)
    for words, code, said in (
        ((f"{tmp_path}/pipe", "box:/tmp"), 2, "pipe is no regular file|inn push - "),
        (("/dev/null", "box:/tmp"), 2, "/dev/null is no regular file"),
        ((str(tmp_path), "box:/tmp/x"), 2, "Is a directory|tar c"),
        ((f"{tmp_path}/dev", "box:/"), 1, "box:/dev is a folder"),
        ((f"{tmp_path}/dev", "box:/no/such"), 1, "nothing was written to box:/no/such|mkdir: "),
        ((f"{tmp_path}/dev", "box:/root/file/x"), 1, "nothing was written to box:/root/file/x|mkdir: "),
        (("--nope", "box:/tmp"), 2, "there is no option --nope"),
    ):
        went = inn("push", *words)
        assert went.code == code, went
        for part in said.split("|"):
            assert part in went.err
    assert made_in_guest(daemon) == before


@contextlib.contextmanager
def half_pushed(daemon: Daemon) -> Iterator[tuple[subprocess.Popen[str], set[str]]]:
    """A push that has sent something and waits for more, and what was in the guest before."""
    before = made_in_guest(daemon)
    with started(daemon.socket, "push", "-", "box:/tmp/half") as process:
        assert process.stdin is not None
        process.stdin.write("x" * 1000)
        process.stdin.flush()
        until(lambda: made_in_guest(daemon) != before)
        yield process, before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_push_that_is_told_to_end_leaves_nothing(daemon: Daemon, box: str, number: signal.Signals) -> None:
    with half_pushed(daemon) as (process, before):
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert made_in_guest(daemon) == before


def test_nobody_else_in_the_guest_reads_what_is_on_its_way(daemon: Daemon, box: str, inn: Inn) -> None:
    with half_pushed(daemon) as (process, before):
        (folder, *_) = sorted(made_in_guest(daemon) - before)
        assert said_in(inn, "stat", "-c", "%a", folder) == "700"
        process.communicate("x")
    assert process.returncode == 0
    assert said_in(inn, "cat", "/tmp/half") == "x" * 1001
    assert made_in_guest(daemon) == before | {"/tmp/half"}


# --- progress


@contextlib.contextmanager
def little_by_little(act: Callable[[], object]) -> Iterator[None]:
    """In a thread, until the block ends."""
    enough = threading.Event()

    def go_on() -> None:
        while not enough.wait(0.05):
            act()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join(PATIENCE_S)


def test_a_person_sees_how_much_was_pushed(daemon: Daemon, box: str) -> None:
    read, write = os.pipe()
    command = ["/bin/sh", "-c", f"exec {' '.join(INN)} push - box:/tmp/slow < /proc/{os.getpid()}/fd/{read}"]
    with in_terminal(command, environment(daemon.socket)) as person:
        with little_by_little(lambda: os.write(write, b"x")):
            person.until(b" B ")
        os.close(write)
        os.close(read)
        assert person.rest()[1] == 0


def test_a_person_sees_how_much_of_it_was_pulled(daemon: Daemon, box: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [*INN, "pull", "box:/root/file", str(pipe)]
    with in_terminal(command, environment(daemon.socket)) as person, pipe.open("rb") as reader:
        with little_by_little(lambda: reader.read(5000)):
            person.until(b"KiB of 500.0 KiB")
        assert len(reader.read()) > 0
        assert person.rest()[1] == 0


def test_nobody_else_is_bothered_with_it(daemon: Daemon, box: str) -> None:
    with started(daemon.socket, "push", "-", "box:/tmp/slow") as process:
        assert process.stdin is not None
        with little_by_little(lambda: print("x", file=process.stdin, flush=True)):
            time.sleep(1)
        assert process.communicate() == ("", "")
    assert process.returncode == 0
