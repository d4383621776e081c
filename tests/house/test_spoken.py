"""What documents tell people to type: each command exists, with these options, and takes these arguments.

Indented lines in README.md and docs/guide are read as a shell would: several commands on a line, pipes, comments. What
begins with `inn` is held against the grammar that reads calls; nothing is carried out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from cyclopts import App, CycloptsError

from innkeeper.cli.grammar.call import build
from tests.house.repository import complain, files_in, read

BETWEEN = re.compile(r"\s{2,}(?=inn\s)")  # several in a row, as in README.md
BEFORE = re.compile(r"sudo|env|time|[A-Z_]+=.*")


def documents() -> list[str]:
    return ["README.md", *files_in("docs/guide", ending=".md")]


def calls(text: str) -> Iterator[tuple[int, list[str]]]:
    """The words after `inn`, with the number of their line."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("    "):
            for part in BETWEEN.split(line.strip()):
                yield from ((number, words[1:]) for words in commands(part) if words[:1] == ["inn"])


def commands(line: str) -> Iterator[list[str]]:
    """The simple commands of a shell's line, without what is set before them and where they write."""
    lexer = shlex.shlex(line.replace("$(", " ( "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        found = list(lexer)
    except ValueError:  # an open quote: an example of something else
        return
    words = list[str]()
    for word in [*found, ";"]:
        if re.fullmatch("[<>]+", word):
            words.append(">")
        elif re.fullmatch("[<>();|&]+", word):
            yield _told(words)
            words = []
        elif words[-1:] == [">"]:
            words.pop()  # the file
        else:
            words.append(word)


def _told(words: list[str]) -> list[str]:
    rest = list(words)
    while rest and BEFORE.fullmatch(rest[0]):
        rest.pop(0)
    return rest


def wrong(app: App, words: list[str]) -> str | None:
    """What is wrong with a call; None: it would be understood."""
    try:
        app.parse_args(words, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        return " ".join(str(error).split())
    return None


def test_commands_in_documents_exist() -> None:
    app, found, count = build(), list[str](), 0
    for name in documents():
        for number, words in calls(read(name) or ""):
            count += 1
            if (problem := wrong(app, words)) is not None:
                found.append(f"{name}:{number} inn {shlex.join(words)}: {problem}")
    assert count > 20, "documents hold no commands any more, or they are not found"
    complain(found, "A reader would type these, and be refused. See: inn help, and docs/reference/cli.md.")


def test_calls_are_found_as_a_shell_would_find_them() -> None:
    text = """\
inn not-indented
    inn list                inn show web    # inn comment
    echo hello | inn exec web -- cat > out.txt
    INN_DATA=/tmp/x inn list && sudo inn serve; source <(inn completion bash)
    id=$(inn list -f json | head)
    ./run
"""
    assert [words for _, words in calls(text)] == [
        ["list"],
        ["show", "web"],
        ["exec", "web", "--", "cat"],
        ["list"],
        ["serve"],
        ["completion", "bash"],
        ["list", "-f", "json"],
    ]


@pytest.mark.parametrize(
    "line",
    [
        "inn lanch tiny web",
        "inn launch tiny web --memroy 1GiB",
        "inn launch tiny web too many",
        "inn launch tiny web --count many",
        "inn template biuld tiny",
        "inn template import a.img --name a --image-format vmdk",
        "inn template import a.img --name a",
        "inn wait web --for godot",
        "inn show",
    ],
)
def test_calls_that_nobody_understands_are_found(line: str) -> None:
    (words,) = commands(line)
    assert wrong(build(), words[1:])


@pytest.mark.parametrize("line", ["inn ls", "inn template rm tiny:1", "inn exec web -- ls -l", "inn help launch"])
def test_calls_that_are_understood_are_left_alone(line: str) -> None:
    (words,) = commands(line)
    assert wrong(build(), words[1:]) is None
