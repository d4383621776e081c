"""The command `inn`: from the words of a call to what it does, and from what went wrong to words and an exit code.

The commonest calls, the lists, are known here by their words, because loading what reads a call takes longer than all
the rest. Everything else is read by the grammar, which is loaded by name when it is needed.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable

from innkeeper.cli.line import CannotGoOn, Line, say

_LISTS = "innkeeper.cli.commands.lists"
_GRAMMAR = "innkeeper.cli.grammar.call"
_AT_ONCE = {
    ("list",): "instances",
    ("ls",): "instances",
    ("template", "list"): "templates",
    ("network", "list"): "networks",
    ("host", "list"): "hosts",
    ("operation", "list"): "operations",
}
_OPTIONS = {"-f": "--format", "--format": "--format", "--project": "--project", "--socket": "--socket"}
_FORMATS = ("table", "json", "yaml", "csv")


def main() -> None:
    _complete_streams()
    told(lambda: call(sys.argv[1:]))


def call(words: list[str]) -> None:
    plain, options = _apart(words)
    name = _AT_ONCE.get(tuple(plain))
    if name is not None:
        line = Line(options.get("--socket", ""), options.get("--project", ""))
        getattr(importlib.import_module(_LISTS), name)(line, options.get("--format", "table"))
    else:
        grammar = importlib.import_module(_GRAMMAR)
        grammar.spoken(grammar.build(), words)


def _apart(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The options that every list has, off its end; whatever is odd about them is left to the grammar."""
    plain, options = list(words), dict[str, str]()
    while len(plain) > 2 and (option := _OPTIONS.get(plain[-2])) is not None and option not in options:
        if plain[-1].startswith("-") or (option == "--format" and plain[-1] not in _FORMATS):
            break
        options[option] = plain[-1]
        del plain[-2:]
    return plain, options


def _complete_streams() -> None:
    """Whoever called us may have closed some; what we open must not take their numbers."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our … still shows the rest


def told(act: Callable[[], object]) -> None:
    """Act; what goes wrong is said in words.

    Exit codes: 0 done; 1 refused or failed; 2 the call is wrong; 3 no daemon; 130 interrupted; 141 nobody reads our
    output; of exec and shell, the command's own, and 255 for what went wrong around it.
    """
    try:
        act()
        sys.stdout.flush()
    except CannotGoOn as failed:
        say(failed)
        _leave(failed.code)
    except BrokenPipeError:
        _leave(141)
    except OSError as error:
        say(CannotGoOn(f"the output cannot be written: {error.strerror or error}"))
        _leave(1)
    except KeyboardInterrupt:
        _leave(130)


def _leave(code: int) -> None:
    """What could not be written is given up: Python would try again, and complain, as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
