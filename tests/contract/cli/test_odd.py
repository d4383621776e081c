"""What a newcomer does wrong: each is told what, on what, and what to do next, and nothing is half-made."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.contract.api.asking import launch
from tests.contract.cli.running import INN, PATIENCE_S, Inn, environment, in_terminal
from tests.contract.daemon import Daemon

pytestmark = pytest.mark.slow

LONG = "w" * 300
# The call, its exit code, and what must be said.
CALLS: list[tuple[str, int, str]] = [
    ("lunch", 2, "there is no command lunch; did you mean launch?"),
    ("--nope", 2, "there is no option --nope"),
    ("operation shwo x", 2, "there is no command operation shwo; did you mean show?"),
    ("launch", 2, "TEMPLATE is missing|It is: inn launch [OPTIONS] TEMPLATE [NAME]"),
    ("launch tiny a extra", 2, "this is too much: extra"),
    ("launch tiny a --memroy 1", 2, "there is no option --memroy; did you mean --memory?"),
    ("launch tiny a --cpus x", 2, "--cpus: 'x' is no whole number"),
    ("launch tiny a --cpus 1.5", 2, "--cpus: '1.5' is no whole number"),
    ("launch tiny a --cpus 2.0", 2, "--cpus: '2.0' is no whole number"),
    ("launch tiny a --count 2.7", 2, "--count: '2.7' is no whole number"),
    ("launch tiny a --count 1_0", 2, "--count: '1_0' is no whole number"),
    ("launch tiny a --cpus 0", 1, "0 vCPUs cannot be given|Ask for 1 to 255"),
    ("launch tiny a --cpus -1", 1, "-1 vCPUs cannot be given"),
    ("launch tiny a --cpus 99999999999999999999999", 1, "vCPUs cannot be given"),
    ("launch tiny a --memory 0", 1, "0 MiB of memory are too little|at least 64 MiB"),
    ("launch tiny a --memory -1", 1, "-1 MiB of memory"),
    ("launch tiny a --memory 1e9GiB", 2, "--memory: '1e9GiB' is no size|For example: 512MiB"),
    ("launch tiny a --memory 100.3MiB", 2, "--memory: '100.3MiB' is 100.3 MiB, and only whole MiB|Say 101MiB"),
    ("launch tiny a --memory 1.0001G", 2, "--memory: '1.0001G' is 1024.1 MiB, and only whole MiB|Say 1025MiB"),
    ("launch tiny a --memory 0.5", 2, "--memory: '0.5' is 0.5 MiB|Say 1MiB"),
    ("launch tiny a --disk 1.3GiB", 2, "--disk: '1.3GiB' is 1.3 GiB, and only whole GiB|Say 2GiB"),
    ("launch tiny a --memory 99999GiB", 1, "MiB of memory free|Ask for less"),
    ("launch tiny a --memory 9999999999999999999999GiB", 2, "is no size"),
    ("launch tiny a --disk 0", 1, "0 GiB is smaller than the template's image"),
    ("launch tiny a --disk 1XB", 2, "--disk: '1XB' is no size"),
    ("launch tiny a --disk 60000", 1, "GiB of disk free"),
    ("launch tiny a --size huge", 1, "no size named huge|Known sizes: nano"),
    ("launch tiny a --ttl 5parsec", 2, "--ttl: '5parsec' is no time|For example: 90s"),
    ("launch tiny a --ttl 0", 1, "over at once"),
    ("launch tiny a --ttl 99999999999w", 1, "for ever"),
    ("launch tiny a --count 0", 1, "0 instances cannot be launched|1 to 1000"),
    ("launch tiny a --count 1001", 1, "1001 instances"),
    ("launch tiny a --user-data nix.yaml", 2, "user-data file nix.yaml cannot be read: No such file"),
    ("launch tiny a --user-data /tmp", 2, "user-data file /tmp cannot be read: Is a directory"),
    ("launch tiny a --ssh-key nix.pub", 2, "SSH key file nix.pub cannot be read: No such file"),
    ("launch tiny a --user-data /dev/zero", 2, "user-data file /dev/zero is no regular file|pipe it in"),
    ("launch tiny a --ssh-key /dev/zero", 2, "SSH key file /dev/zero is no regular file|pipe it in"),
    ("launch tiny a --ssh-key - --user-data -", 2, "- was given twice|as a file"),
    ("launch tiny i-7", 1, "'i-7' cannot be the name of an instance: it reads as the beginning of an id|Choose one"),
    ("launch tiny a --label x", 2, "--label 'x' has no key and value"),
    ("launch tiny a --network nowhere", 1, "no network named nowhere"),
    ("launch tiny a -f xml", 2, 'Invalid value "xml"'),
    ("launch tiny a -f", 2, "-f wants a value"),
    ("launch nosuch a", 1, "there is no template named nosuch|inn template build"),
    ("launch tiny Web", 1, "'Web' cannot be the name of an instance|begins with a letter"),
    ("launch tiny wéb", 1, "'wéb' cannot be the name"),
    (f"launch tiny {LONG}", 1, "cannot be the name"),
    ("launch tiny a/b", 1, "'a/b' cannot be the name"),
    ("list --label x", 1, "label 'x' has no key and value"),
    ("list --status asleep", 1, "no instance is ever asleep|One of: launching"),
    ("logs nosuch --follow", 255, "no instance named nosuch"),
    ("list extra", 2, "this is too much: extra"),
    ("list -f", 2, "-f wants a value"),
    ("show", 2, "INSTANCE is missing"),
    ("show nosuch", 1, "there is no instance named nosuch|See: inn list"),
    (f"show {LONG}", 1, "there is no instance named w"),
    ("show ../../etc", 2, "'../../etc' is the name of nothing"),
    ("show .", 2, "'.' is the name of nothing"),
    ("show 日本", 1, "there is no instance named 日本"),
    ("show a\udcff", 1, "there is no instance named a"),
    ("show a%2Fb", 1, "there is no instance named a%2Fb"),
    ("start", 2, "no instance was named|See: inn list"),
    ("stop web --grace -1", 2, "--grace: '-1' is no time"),
    ("stop nosuch other", 1, "no instance named nosuch\n     See: inn list\ninn: there is no instance named other"),
    ("rename nosuch", 2, "NEW-NAME is missing|It is: inn rename [OPTIONS] INSTANCE NEW-NAME"),
    ("rename nosuch new", 1, "no instance named nosuch"),
    ("delete nosuch", 1, "no instance named nosuch"),
    ("wait", 2, "no instance was named"),
    ("wait nosuch --for lunch", 2, 'Invalid value "lunch"'),
    ("wait nosuch --timeout x", 2, "--timeout: 'x' is no time"),
    ("exec", 2, "INSTANCE is missing"),
    ("exec web", 2, "no command was given|inn exec web -- uname -a"),
    ("exec nosuch -- ls", 255, "no instance named nosuch"),
    ("exec nosuch --env NO_SUCH_VARIABLE -- ls", 2, "there is no such variable|KEY=VALUE"),
    ("shell nosuch", 2, "a shell wants a terminal|inn exec nosuch"),
    ("console nosuch", 255, "no instance named nosuch"),
    ("logs nosuch", 1, "no instance named nosuch"),
    ("push nix web:/x", 2, "nix cannot be read: No such file"),
    ("push /tmp web:/x", 2, "/tmp cannot be read: Is a directory|single files"),
    ("push /etc/hostname web", 2, "'web' names no file in an instance|web:/etc/hosts"),
    ("push /etc/hostname nosuch:/x", 1, "no instance named nosuch"),
    ("pull :/x", 2, "names no file in an instance"),
    ("pull nosuch:/x", 1, "no instance named nosuch"),
    ("launch nosuch/before a", 1, "no instance named nosuch|See: inn list"),
    ("snapshot create", 2, "INSTANCE is missing|It is: inn snapshot create [OPTIONS] INSTANCE [NAME]"),
    ("snapshot create nosuch", 1, "no instance named nosuch|See: inn list"),
    ("snapshot create a b c", 2, "this is too much: c"),
    ("snapshot create a/b", 2, "'a/b' is the name of nothing"),
    ("snapshot list", 2, "INSTANCE is missing"),
    ("snapshot list nosuch", 1, "no instance named nosuch"),
    ("snapshot list nosuch -f xml", 2, 'Invalid value "xml"'),
    ("snapshot show nosuch", 2, "SNAPSHOT is missing|It is: inn snapshot show [OPTIONS] INSTANCE SNAPSHOT"),
    ("snapshot show nosuch x", 1, "no instance named nosuch"),
    ("snapshot show nosuch ..", 2, "'..' is the name of nothing"),
    ("snapshot restore nosuch x", 1, "no instance named nosuch"),
    ("snapshot restore nosuch x --as", 2, "--as wants a value"),
    ("snapshot restore nosuch x --as a", 1, "no instance named nosuch"),
    ("snapshot restore nosuch x --as a --restart", 2, "--restart and --as exclude each other|nosuch itself"),
    ("snapshot delete", 2, "INSTANCE is missing|It is: inn snapshot delete [OPTIONS] INSTANCE SNAPSHOT..."),
    ("snapshot delete nosuch", 2, "no snapshot was named|inn snapshot list nosuch"),
    ("snapshot delete nosuch x y", 1, "no instance named nosuch\n     See: inn list\ninn: there is no instance"),
    ("snapshot take web", 2, "there is no command snapshot take"),
    ("rewind nosuch", 2, "SNAPSHOT is missing|It is: inn rewind [OPTIONS] INSTANCE SNAPSHOT"),
    ("rewind nosuch x", 1, "no instance named nosuch"),
    ("template build nosuch", 1, "the catalogue has no nosuch|debian-12, tiny"),
    ("template import nix --name x --image-format raw", 2, "nix is not there"),
    ("template import /tmp --name x --image-format raw", 2, "/tmp is no file"),
    ("template import /etc/hostname --name x", 2, "--image-format is missing"),
    ("template import /etc/hostname --name x --image-format vmdk", 2, 'Invalid value "vmdk"'),
    ("template publish nosuch --name x", 1, "no instance named nosuch"),
    ("template show nosuch", 1, "there is no template named nosuch"),
    ("template delete", 2, "no template was named"),
    ("template delete nosuch", 1, "there is no template named nosuch"),
    ("host show nosuch", 1, "there is no host named nosuch"),
    ("network show nosuch", 1, "there is no network named nosuch"),
    ("operation show nosuch", 1, "there is no operation nosuch|inn operation list"),
    ("operation list --limit 0", 2, "--limit"),
    ("operation wait nosuch", 1, "there is no operation nosuch"),
    ("completion tcsh", 2, 'Invalid value "tcsh"'),
    ("help nosuch", 2, "there is no command nosuch"),
    ("demo --listen 99999999", 2, "--listen"),
    ("list --project nowhere", 1, "there is no project named nowhere"),
    ("list --socket /no/such.sock", 3, "no daemon answers at /no/such.sock|inn serve"),
]


@pytest.mark.parametrize("said, code, words", CALLS, ids=lambda v: ascii(v)[:60])
def test_a_call_that_goes_wrong(inn: Inn, daemon: Daemon, said: str, code: int, words: str) -> None:
    before = daemon.store.pictures.cluster().revision
    went = inn(*said.split(" "))
    assert went.code == code, went
    assert went.out == ""
    for part in words.split("|"):
        assert part in went.err
    assert went.err.startswith("inn: ")
    assert len(went.err.splitlines()) > 1, "no hint"
    assert "Traceback" not in went.err
    assert daemon.store.pictures.cluster().revision == before


def test_an_empty_word_is_no_name(inn: Inn) -> None:
    assert inn("show", "").code == 2
    assert inn("launch", "tiny", "").code == 1
    assert inn("exec", "", "--", "ls").code == 2
    assert inn("launch", "tiny", "a", "--memory", "").code == 2


@pytest.mark.parametrize("option", ["--ssh-key", "--user-data"])
def test_what_may_never_end_is_not_waited_for(inn: Inn, tmp_path: Path, option: str) -> None:
    pipe, large, empty = tmp_path / "pipe", tmp_path / "large", tmp_path / "empty"
    os.mkfifo(pipe)
    large.write_bytes(b"#" * ((1 << 20) + 1))
    empty.touch()
    for path, words in ((pipe, "is no regular file"), (large, "has more than 1 MiB"), (empty, "")):
        went = inn("launch", "debian-12", "a", option, str(path))
        assert went.code in (1, 2), went
        assert words in went.err
    with Path("/dev/zero").open() as zeros:
        endless = subprocess.run(
            [*INN, "launch", "debian-12", "a", option, "-"],
            env=environment(tmp_path / "none.sock"),
            stdin=zeros,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert endless.returncode == 2
    assert "has more than 1 MiB" in endless.stderr


def test_a_private_key_stays_here(inn: Inn, tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----\n")
    went = inn("launch", "tiny", "a", "--ssh-key", str(key))
    assert went.code == 2
    assert "PRIVATE" in went.err
    assert f"{key}.pub" in went.err
    assert "b3Blbn" not in went.err


def test_malformed_user_data_says_where(inn: Inn, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("#cloud-config\npackages: [a\nusers: b\n")
    went = inn("launch", "tiny", "a", "--user-data", str(tmp_path / "c.yaml"))
    assert went.code == 1
    assert "user-data is not valid YAML: line" in went.err


def test_a_label_has_one_value(inn: Inn) -> None:
    went = inn("launch", "tiny", "two", "--label", "a=1", "--label", "a=2")
    assert went.code == 2
    assert "a is given twice, with 1 and 2" in went.err


def test_words_of_strangers_do_not_steer_the_terminal(inn: Inn, daemon: Daemon) -> None:
    """What a label may not be today, an older row or a guest's own words may."""
    inn.well("launch", "tiny", "stranger", "--wait")
    machine = daemon.do(lambda: daemon.state.running("stranger"))
    daemon.do(lambda: setattr(machine, "cloud_init", "done\x1b[2J"))
    daemon.do(lambda: daemon.state.shut_down("stranger"))
    assert "\x1b" not in inn.well("show", "stranger") + inn.well("list")


def test_words_of_a_guests_commands_do_not_either(inn: Inn, tmp_path: Path) -> None:
    inn.well("launch", "tiny", "talker", "--wait")
    evil = "talker:/root/\x1b]0;owned\x07none"
    for words in (("pull", evil, str(tmp_path)), ("push", __file__, f"{evil}/file")):
        went = inn(*words)
        assert went.code != 0
        assert "owned" in went.err
        assert "\x1b" not in went.err
        assert "\x07" not in went.err


def test_what_nobody_here_may_have_an_instance_does_not_give(inn: Inn, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("all")
    (tmp_path / "open").chmod(0o777)
    inn.well("launch", "tiny", "giver", "--wait")
    inn.well("push", str(tmp_path / "open"), "giver:/root/open")
    before = os.umask(0o027)
    try:
        inn.well("pull", "giver:/root/open", str(tmp_path / "new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o750


def test_a_folder_that_is_not_there_is_no_file(inn: Inn, tmp_path: Path) -> None:
    went = inn("pull", "any:/root/file", f"{tmp_path}/none/")
    assert went.code == 2
    assert "none/ is no folder" in went.err
    assert list(tmp_path.iterdir()) == []


# --- the daemon is not there, or not for us


def test_a_stale_socket_and_a_file_are_no_daemon(tmp_path: Path, inn: Inn) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    (tmp_path / "file").write_text("")
    for place in (stale, tmp_path / "file", tmp_path / "none", Path("/" + "x" * 200)):
        for words in (("list",), ("launch", "tiny"), ("exec", "web", "--", "ls"), ("console", "web"), ("top",)):
            went = (
                inn(*words, "--socket", str(place))
                if words[0] != "exec"
                else inn("exec", "--socket", str(place), "web", "--", "ls")
            )
            assert went.code == 3, (place, words, went)
            assert "inn serve" in went.err


def test_something_else_at_the_socket(tmp_path: Path, inn: Inn) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        with subprocess.Popen(
            [*INN, "list"], env=environment(tmp_path / "other.sock"), stderr=subprocess.PIPE, text=True
        ) as process:
            line, _ = other.accept()
            line.recv(65536)
            line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            line.close()
            assert process.stderr is not None
            said = process.stderr.read()
    assert process.returncode == 3
    assert "does not speak HTTP" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_the_right_one_is_told_how_to_get_it(daemon: Daemon) -> None:
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    for place in daemon.socket.parents[:3]:
        place.chmod(place.stat().st_mode | 0o011)
    asked = subprocess.run(
        [*command, *INN, "list"], env=environment(daemon.socket), capture_output=True, text=True, check=False
    )
    assert asked.returncode == 3, asked.stderr
    assert "you may not speak to the daemon" in asked.stderr
    assert "usermod -aG innkeeper" in asked.stderr


# --- outputs that are closed, full, or narrow


@pytest.mark.parametrize("words", [("list", "-f", "json"), ("--help",)])
def test_a_reader_who_has_seen_enough(daemon: Daemon, inn: Inn, words: tuple[str, ...]) -> None:
    inn.well("launch", "tiny")
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [*INN, *words], env=environment(daemon.socket), stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert process.returncode == (1 if "--help" in words else 141)  # help is printed by rich, which says 1
    assert process.stderr == b""


def test_a_full_output(daemon: Daemon) -> None:
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [*INN, "host", "list"], env=environment(daemon.socket), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert process.returncode == 1
    assert b"No space left" in process.stderr
    assert b"Traceback" not in process.stderr


def test_closed_streams(daemon: Daemon) -> None:
    script = '"$@" <&- >&- 2>&-; echo $?'
    with daemon.client() as api:
        launch(api, "unheard")
    for words in (("list",), ("exec", "unheard", "--", "cat")):
        done = subprocess.run(
            ["sh", "-c", script, "sh", *INN, *words],
            env=environment(daemon.socket),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "0\n", words


def test_a_terminal_without_our_letters(daemon: Daemon) -> None:
    env = {**environment(daemon.socket), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run([*INN, "launch", "--help"], env=env, capture_output=True, check=True)
    assert b"how many; {n} in the name becomes 1, 2, 3 ?" in done.stdout


@pytest.mark.parametrize("words", [("--help",), ("launch", "--help"), ("operation", "--help")])
def test_a_narrow_terminal(inn: Inn, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = inn.well(*words)
    prose = [line for line in out.splitlines() if not line.startswith(("Usage:", "  inn ", "Each command", "~/"))]
    assert max(map(len, prose)) <= 46  # a label may stand out


def test_nothing_is_coloured_where_nobody_looks(inn: Inn) -> None:
    for words in (("list",), ("--help",), ("show", "nosuch")):
        went = inn(*words)
        assert "\x1b" not in went.out + went.err


def test_nothing_is_coloured_for_who_does_not_want_it(daemon: Daemon) -> None:
    env = {**environment(daemon.socket), "NO_COLOR": "1"}
    with in_terminal([*INN, "launch", "--help"], env) as person:
        seen, code = person.rest()
    assert code == 0
    assert b"\x1b[3" not in seen
