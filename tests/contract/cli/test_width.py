"""What is printed fits the terminal it is printed on; where there is none, it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from innkeeper.cli.times import span
from tests.contract.cli.running import Inn, ran, terminal
from tests.contract.daemon import Daemon

pytestmark = pytest.mark.slow

NAME = "an-instance-of-a-rather-long-name"
LISTS = (
    "list",
    f"snapshot list {NAME}-1",
    "template list",
    "network list",
    "host list",
    "operation list",
    "top --once",
)


def printed(socket: Path, words: str, cols: int) -> list[str]:
    with terminal(socket, *words.split(), cols=cols) as person:
        seen, code = person.rest()
    assert code == 0, seen
    return seen.decode().splitlines()


@pytest.fixture(scope="module")
def filled(daemon: Daemon) -> Daemon:
    """Long names, long titles and a long error."""
    with daemon.client() as api:
        for number in (1, 2):
            wish = {"template": "debian-12", "name": f"{NAME}-{number}", "labels": {"team": "blue " * 12}}
            api.get(f"/v1/operations/{api.post('/v1/instances', json=wish).json()['id']}/wait")
            for snapshot in (f"{NAME}-before", f"{NAME}-after"):
                path = f"/v1/instances/{NAME}-{number}/snapshots"
                api.get(f"/v1/operations/{api.post(path, json={'name': snapshot}).json()['id']}/wait")
        several = {"template": "tiny", "name": NAME, "count": 3}
        failed = api.get(f"/v1/operations/{api.post('/v1/instances', json=several).json()['id']}/wait").json()
        assert len(failed["error"]) > 80
    return daemon


@pytest.mark.parametrize("cols", [80, 100, 250])
@pytest.mark.parametrize("words", LISTS)
def test_a_table_fits(filled: Daemon, words: str, cols: int) -> None:
    lines = printed(filled.socket, words, cols)
    assert len(lines) > 1
    assert max(map(len, lines)) <= cols, lines


@pytest.mark.parametrize("words", [words for words in LISTS if not words.startswith("top")])
def test_a_pipe_gets_all_columns_uncut(filled: Daemon, words: str) -> None:
    piped = ran(filled.socket, *words.split()).stdout.decode()
    wide = printed(filled.socket, words, 400)
    assert piped.splitlines()[0].split() == wide[0].split()
    assert "ID" in piped.splitlines()[0].split()
    assert "…" not in piped


def test_what_people_look_at_stays(filled: Daemon) -> None:
    assert printed(filled.socket, "list", 80)[0].split()[:3] == ["NAME", "STATUS", "ADDRESS"]
    assert f"{NAME}-1" in "".join(printed(filled.socket, "list", 40))
    assert printed(filled.socket, "operation list", 80)[0].split()[:3] == ["ID", "WHAT", "STATE"]


def test_long_words_stand_below_their_label_and_long_texts_are_wrapped(filled: Daemon) -> None:
    lines = printed(filled.socket, "template show tiny", 80)
    assert max(map(len, lines)) <= 80
    assert "Digest:" in lines
    assert lines[lines.index("Digest:") + 1].startswith("  sha256:")
    lines = printed(filled.socket, f"show {NAME}-1", 60)
    wrapped = next(n for n, line in enumerate(lines) if line.startswith("Labels:"))
    assert lines[wrapped + 1].startswith(" " * len("Template: "))
    assert max(map(len, lines)) <= 60


def test_a_long_wait_shows_that_it_goes_on(filled: Daemon, inn: Inn) -> None:
    words = ("wait", f"{NAME}-1", "--for", "stopped", "--timeout", "0.3s")
    with terminal(filled.socket, *words) as person:
        seen, code = person.rest()
    assert code == 1
    assert f"waiting for {NAME}-1: stopped".encode() in seen
    assert "waiting for" not in inn(*words).err


@pytest.mark.parametrize(
    "seconds, words",
    [
        (-1, "0.00s"),
        (0.05, "0.05s"),
        (9.6, "9.6s"),
        (59.4, "59.4s"),
        (59.6, "1m00s"),
        (125, "2m05s"),
        (3599.9, "1h00m"),
        (3900, "1h05m"),
        (86_399.9, "1d00h"),
        (10 * 86_400 + 7200, "10d02h"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words
