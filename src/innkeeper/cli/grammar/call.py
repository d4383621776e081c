"""Reading a call: the grammar made from the table of commands, and what is said when a call makes no sense."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from innkeeper.cli.grammar.pages import HelpPage
from innkeeper.cli.grammar.table import COMMANDS, FAMILIES, GROUPS, Command
from innkeeper.cli.line import CannotGoOn

# Options of exec that are followed by a value; a test holds them against its parameters.
VALUED_BY_EXEC = ("--user", "--cwd", "--env", "-e", "--project", "--socket")


def build() -> App:
    app = App(
        name="inn",
        help="A private cloud of VM instances.",
        version=lambda: version("innkeeper"),
        usage="Usage: inn COMMAND [OPTIONS]",
        help_format="plaintext",
        help_formatter=HelpPage(),
        help_epilogue="Each command explains itself: inn launch --help",
        default_parameter=Parameter(negative=(), show_default=False, show_choices=True),
        group_commands=Group("Help", sort_key=len(GROUPS)),
        group_arguments=Group("Arguments", sort_key=1),
        group_parameters=Group("Options", sort_key=2),
    )
    families = dict[str, App]()
    for order, (title, commands) in enumerate(GROUPS):
        group = Group(title, sort_key=order)
        for number, command in enumerate(commands):
            family, _, own = command.name.rpartition(" ")
            if family and family not in families:
                families[family] = _family(family, group, number)
                app.command(families[family])
            _register(families.get(family, app), own, command, (None if family else group, number))
    return app


def _register(place: App, own: str, command: Command, order: tuple[Group | None, int]) -> None:
    """Groups sort commands on the first page; within a family there is one."""
    group, number = order
    place.command(
        command.where,
        name=(own, *command.aliases),
        help=command.words,
        usage=f"Usage: inn {command.name} {command.usage}",
        help_epilogue=_examples(command),
        sort_key=number,
        group=group or "Commands",
    )


def _family(name: str, group: Group, number: int) -> App:
    return App(
        name=name,
        help=FAMILIES[name],
        usage=f"Usage: inn {name} COMMAND [OPTIONS]",
        help_epilogue=f"Each command explains itself: inn {name} list --help",
        group=group,
        sort_key=number,
    )


def _examples(command: Command) -> str:
    lines = [f"  {example}" for example in command.examples]
    return "\n".join(["Examples:", *lines]) if lines else ""


def spoken(app: App, words: Sequence[str]) -> None:
    """What was said is done.

    Raises:
        CannotGoOn: the words make no sense; what does is said.
    """
    try:
        app(_apart(words), print_error=False, exit_on_error=False)
    except CycloptsError as wrong:
        raise CannotGoOn(_wrong(wrong), _right(wrong, app.name[0]), 2) from wrong


def _apart(words: Sequence[str]) -> list[str]:
    """`inn exec web ls -l`: from the command on nothing is ours any more, as if `--` stood before it."""
    said = list(words)
    if said[:1] != ["exec"] or "--" in said:
        return said
    positions, skip = list[int](), False
    for number, word in enumerate(said[1:], 1):
        if skip or word.startswith("-"):
            skip = not skip and word in VALUED_BY_EXEC
        else:
            positions.append(number)
    if len(positions) > 1:
        said.insert(positions[1], "--")
    return said


def _wrong(wrong: CycloptsError) -> str:
    match wrong:
        case UnknownCommandError():
            word = (wrong.unused_tokens or ["?"])[0]
            what = "option" if word.startswith("-") else "command"
            return f"there is no {what} {' '.join([*(wrong.command_chain or ()), word])}{_meant(word, wrong)}"
        case UnusedCliTokensError():
            return f"this is too much: {' '.join(wrong.unused_tokens or ())}"
        case MissingArgumentError() if wrong.keyword is not None:
            return f"{wrong.keyword} wants a value"
        case MissingArgumentError() if wrong.argument is not None:
            label = wrong.argument.name if wrong.argument.index is None else _label(wrong.argument.name)
            return f"{label} is missing"
        case CoercionError() if wrong.token is not None and wrong.target_type is int:
            return f"{wrong.token.keyword or 'this'}: {wrong.token.value!r} is no whole number"
        case UnknownOptionError():
            return f"there is no option {wrong.token.keyword or wrong.token.value}{_meant_option(wrong)}"
        case _:
            return " ".join(str(wrong).split())


def _label(name: str) -> str:
    return name.strip("-").replace("_", "-").upper()


def _meant(word: str, wrong: UnknownCommandError) -> str:
    family = " ".join(wrong.command_chain or ())
    names = [c.name for c in COMMANDS if c.name.rpartition(" ")[0] == family] + ([] if family else list(FAMILIES))
    return _did_you_mean(word, [name.rpartition(" ")[2] for name in names])


def _meant_option(wrong: UnknownOptionError) -> str:
    names = [name for argument in wrong.argument_collection for name in argument.names if name.startswith("--")]
    return _did_you_mean(wrong.token.keyword or str(wrong.token.value), names)


def _did_you_mean(word: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, names, 1, 0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _right(wrong: CycloptsError, program: str) -> str:
    """How it is said, or where that is told."""
    name = " ".join(wrong.command_chain or ())
    command = next((c for c in COMMANDS if name in (c.name, *c.aliases)), None)
    if command is not None and isinstance(wrong, MissingArgumentError | UnusedCliTokensError):
        return f"It is: inn {command.name} {command.usage}"
    return f"See: {program} {name} --help" if name else f"See: {program} --help"
