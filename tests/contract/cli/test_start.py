"""How a command starts: a list loads little, and says the same as when it is read by the grammar.

Nothing here measures time: what is loaded decides it (docs/decisions/0004).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Annotated, get_args, get_origin, get_type_hints

import httptools
import pytest
from cyclopts import Parameter

from innkeeper.cli.commands.streams import exec_
from innkeeper.cli.grammar.call import VALUED_BY_EXEC
from innkeeper.cli.grammar.table import COMMANDS
from innkeeper.cli.grammar.words import Where
from innkeeper.cli.line import feed
from tests.contract.cli.running import Inn, environment
from tests.contract.daemon import Daemon

pytestmark = pytest.mark.slow

_LOADED = """
import sys
sys.argv[1:] = {words!r}
from innkeeper.cli.app import main
try:
    main()
finally:
    import json
    sys.stderr.write(json.dumps(sorted(sys.modules)))
"""
HEAVY = {"cyclopts", "rich", "asyncio", "http", "email", "ssl", "inspect", "importlib.metadata", "websockets", "yaml"}
LISTS = [["list"], ["ls"], ["template", "list"], ["network", "list"], ["host", "list"], ["operation", "list"]]


@pytest.mark.parametrize("words", [*LISTS, ["list", "--format", "json", "--project", "default"]], ids=" ".join)
def test_a_list_loads_nothing_that_is_heavy(daemon: Daemon, words: list[str]) -> None:
    command = [sys.executable, "-I", "-c", _LOADED.format(words=words)]
    done = subprocess.run(command, env=environment(daemon.socket), capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr[done.stderr.index("[") :]))
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_both_ways_to_a_list_lead_to_the_same(inn: Inn, words: list[str]) -> None:
    inn("launch", "tiny", "same", "--no-start")
    for form in ("table", "json", "yaml", "csv"):
        quick = inn.well(*words, "-f", form)
        assert quick
        assert inn.well(*words, f"--format={form}") == quick  # this form only the grammar knows
        assert inn.well(*words, "--project", "default", "--format", form) == quick


def test_options_of_a_list_count_either_way(inn: Inn, daemon: Daemon) -> None:
    for way in (("--project", "nowhere"), ("--project=nowhere",)):
        ran = inn("list", *way)
        assert (ran.code, ran.err.splitlines()[0]) == (1, "inn: there is no project named nowhere")
    for odd in (("-f", "xml"), ("--project", "-f"), ("-f", "json", "-f", "csv"), ("--socket",)):
        assert inn("list", *odd).code == 2, odd
    assert inn("list", "--socket", str(daemon.socket), "-f", "json", "--project", "default").code == 0


def test_every_command_is_where_the_table_says(inn: Inn) -> None:
    for command in COMMANDS:
        out = inn.well(*command.name.split(), "--help")
        assert out.startswith(f"Usage: inn {command.name}")
        assert command.words.splitlines()[0] in out


def test_arguments_are_called_as_in_the_usage(inn: Inn) -> None:
    for command in COMMANDS:
        usage = re.sub(r"--\S+ [A-Z]+", "", command.usage.replace("[OPTIONS]", ""))
        called = re.findall(r"[A-Z][A-Z:-]+", usage)
        out = inn.well(*command.name.split(), "--help")
        rows = out.partition("Arguments:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^  ([A-Z][A-Z:-]+)", rows, re.M) == called, command.name
        assert command.usage.startswith("[OPTIONS]") == ("options:" in out.lower()), command.name


def test_examples_fit_an_ordinary_terminal() -> None:
    assert [example for command in COMMANDS for example in command.examples if len(f"  {example}") > 80] == []


def test_every_option_says_what_it_does(inn: Inn) -> None:
    for command in COMMANDS:
        out = inn.well(*command.name.split(), "--help")
        for line in (line for line in out.partition("Examples:")[0].splitlines() if re.match("  [^ ]", line)):
            assert len(line.split()) > 2, (command.name, line)
        for oddity in ("--empty-", "[default", "STR", "PATH..."):
            assert oddity not in out, (command.name, oddity)


def test_options_of_exec_that_take_values_are_known() -> None:
    def named(hint: object, name: str) -> list[str]:
        kind, *more = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        names = next((list(p.name) for p in more if isinstance(p, Parameter) and p.name), None)
        return [] if kind is bool else names or [f"--{name}"]

    hints = get_type_hints(exec_, include_extras=True)
    own = [n for key in ("tty", "user", "cwd", "env") for n in named(hints[key], key)]
    common = [n for key, hint in get_type_hints(Where, include_extras=True).items() for n in named(hint, key)]
    assert sorted(VALUED_BY_EXEC) == sorted(own + common)


def test_ctrl_c_while_an_answer_is_read_is_ctrl_c() -> None:
    """The parser wraps what its callbacks raise."""

    class Interrupted:
        def on_body(self, data: bytes) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feed(httptools.HttpResponseParser(Interrupted()), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
