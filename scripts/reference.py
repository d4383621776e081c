"""docs/reference, from the program itself: commands from their grammar, routes from the schema that is served, settings
from where they are read.

    python scripts/reference.py docs/reference

Nothing runs for it, and the same program writes the same pages: a test holds those that are checked in against it.
"""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from cyclopts import App
from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

from innkeeper.api.app import UseCases, application
from innkeeper.api.asked import Asked
from innkeeper.api.problems import STATUS
from innkeeper.cli.app import told
from innkeeper.cli.grammar.call import build
from innkeeper.cli.grammar.table import GROUPS, Command
from innkeeper.main import place
from innkeeper.model.instance import Size
from innkeeper.plan.size import NAMED
from innkeeper.plan.template import CATALOGUE

SOURCE = Path(place.__file__).parents[1]
WIDE = 10_000  # nothing is wrapped: whoever shows a page does that
COMMON = "Common options"
HEAD = "Written by `make docs` from the program itself: change that, not this page.\n"

Shape = dict[str, Any]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/reference.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    return {
        name: "\n".join((f"# {title}\n", HEAD, *lines)).rstrip() + "\n"
        for name, title, lines in (
            ("cli.md", "Commands", commands()),
            ("api.md", "HTTP API", routes(schema())),
            ("settings.md", "Settings and files", settings()),
        )
    }


def table(*rows: Iterable[str]) -> str:
    """The first row is its head."""
    head, *rest = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return "\n".join((head, f"|{'---|' * (head.count(' | ') + 1)}", *rest, ""))


def code(text: str) -> str:
    return f"`{text}`"


# --- commands


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    words: str


@dataclass(frozen=True, slots=True)
class Page:
    """A formatter for cyclopts, as `inn help` has one: keeps what it is given to show."""

    rows: dict[str, list[Row]] = field(default_factory=dict)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """The table of commands has it."""

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """The table of commands has it."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        found = [Row(label(entry), meaning(entry, plain(console, entry.description))) for entry in panel.entries]
        if found:
            self.rows[plain(console, panel.title)] = found


def plain(console: Console, text: Any) -> str:
    segments = console.render(text, console.options.update(width=WIDE, highlight=False))
    return " ".join("".join(segment.text for segment in segments).split())


def label(entry: HelpEntry) -> str:
    if entry.positional_label:
        return entry.positional_label
    names = ", ".join((*entry.positive_shorts, *entry.positive_names))
    return f"{names} {entry.metavar}" if entry.metavar else names


def meaning(entry: HelpEntry, words: str) -> str:
    choices = ", ".join(code(choice) for choice in choices_of(entry.type))
    needed = " (needed)" if entry.required and not entry.positional_label else ""
    return f"{words}{needed}" + (f": {choices}" if choices else "")


def choices_of(kind: Any) -> tuple[str, ...]:
    """Of an option that takes one of a few words."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else ()
    return tuple(choice for part in parts for choice in choices_of(part))


def rows_of(app: App, command: Command) -> dict[str, list[Row]]:
    """What `inn help` would show of its arguments and options, by title."""
    page = Page()
    app.help_formatter = page
    app.help_print(command.name.split(), console=Console(file=io.StringIO(), width=WIDE))
    return page.rows


def commands() -> Iterator[str]:
    app = build()
    known = {command.name: rows_of(app, command) for _, family in GROUPS for command in family}
    for title, family in GROUPS:
        yield f"{title}: " + ", ".join(f"[{c.name}](#inn-{c.name.replace(' ', '-')})" for c in family) + ".\n"
    yield "## Exit codes\n"
    yield f"{' '.join((told.__doc__ or '').partition('Exit codes: ')[2].split())}\n"
    yield f"## {COMMON}\n"
    yield "Those of these that a command has are named with it.\n"
    common = {row: None for rows in known.values() for row in rows.get(COMMON, ())}
    yield table(("option", "meaning"), *((code(row.label), row.words) for row in sorted(common, key=str)))
    for title, family in GROUPS:
        yield f"## {title}\n"
        for command in family:
            yield from one_command(command, known[command.name])


def one_command(command: Command, rows: dict[str, list[Row]]) -> Iterator[str]:
    yield f"### inn {command.name}\n"
    yield f"    inn {command.name} {command.usage}\n"
    yield f"{command.words}\n"
    family = command.name.rpartition(" ")[0]
    for alias in command.aliases:
        yield f"The same: `inn {f'{family} {alias}'.strip()}`.\n"
    own = [row for title, found in rows.items() if title != COMMON for row in found]
    if own:
        yield table(("argument, option", "meaning"), *((code(row.label), row.words) for row in own))
    if common := [code(row.label.split()[-2]) for row in rows.get(COMMON, ())]:
        yield f"{COMMON}: {', '.join(common)}.\n"
    if command.examples:
        yield "For example:\n\n" + "\n".join(f"    {example}" for example in command.examples) + "\n"


# --- routes

MANY = 4  # what as many routes have is told once
_SAID_HERE = {
    "word": "a name, or the beginning of an id",
    "limit": "how many",
    "for": "what to wait for",
    "project": "name of the project",
}
_NOT_WORTH_SAYING = "Successful Response"


def schema() -> Shape:
    """As it is served. Routes keep the use cases that they are given, and nobody calls any here."""
    nothing: Any = None
    cases = UseCases(**{part.name: nothing for part in fields(UseCases)})
    return application(Asked(nothing, nothing, nothing, nothing), cases, nothing, nothing, nothing).openapi()


def routes(said: Shape) -> Iterator[str]:
    yield said["info"]["description"].strip() + "\n"
    yield "`/openapi.json` on the daemon's socket has all of this for programs.\n"
    words = Words(said["components"]["schemas"])
    found = [(f"{verb.upper()} {path}", route) for path, of in said["paths"].items() for verb, route in of.items()]
    told_once = [part for part, count in Counter(p for _, r in found for p in parts(r, words)).items() if count >= MANY]
    yield "## What many routes have\n"
    yield bullets(f"{part.name}{': ' * bool(part.about)}{part.about}" for part in told_once if part.about)
    yield "## Problems\n"
    yield "Every error is a [ProblemOut](#problemout). Its `type` is `urn:innkeeper:problem:` and one of these words;"
    yield "that of an error of HTTP itself is `about:blank`.\n"
    yield table(("status", "type"), *((str(status), code(why.value)) for why, status in STATUS.items()))
    for tag in dict.fromkeys(route["tags"][0] for _, route in found):
        yield f"## Routes: {tag}\n"
        for name, route in found:
            if route["tags"][0] == tag:
                yield from one_route(name, route, words, told_once)
    for title, sent in (("What is sent", True), ("What is answered", False)):
        yield f"## {title}\n"
        for name, shape in sorted(words.shapes.items()):
            if "properties" in shape and is_sent(name) == sent:
                yield from one_shape(name, shape, words)


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a route takes or answers. `about` is left out where it was told before."""

    name: str
    about: str


def one_route(name: str, route: Shape, words: Words, told_once: list[Part]) -> Iterator[str]:
    summary: str = route["summary"]
    said = " ".join(route.get("description", "").split())
    yield f"### `{name}`\n"
    yield f"{summary if ':' in summary else summary.capitalize()}. {said}".strip() + "\n"
    known = list(parts(route, words))
    common = [part.name for part in known if part in told_once]
    own = [f"{part.name}: {part.about}" if part.about else part.name for part in known if part not in told_once]
    yield bullets([*([", ".join(common)] if common else []), *own])


def parts(route: Shape, words: Words) -> Iterator[Part]:
    for one in route.get("parameters", ()):
        yield parameter(one, words)
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        yield Part(f"body {words.kind(inner(body))}", "")
    for status, answer in route["responses"].items():
        if status != "default":  # a problem, as everywhere
            yield from answers(status, answer, words)


def parameter(one: Shape, words: Words) -> Part:
    where = {"path": "path", "query": "query", "header": "header"}[one["in"]]
    name = one["name"].title() if one["in"] == "header" else one["name"]
    about = one.get("description") or _SAID_HERE.get(one["name"], "")
    return Part(f"{where} {code(name)}", "; ".join(part for part in (about, words.limits(one["schema"])) if part))


def answers(status: str, answer: Shape, words: Words) -> Iterator[Part]:
    about = answer["description"] if answer["description"] != _NOT_WORTH_SAYING else ""
    headers = (f"`{name}`: {header['description']}" for name, header in answer.get("headers", {}).items())
    for media, content in (answer.get("content") or {"": {}}).items():
        what = words.kind(content["schema"]) if "schema" in content else media
        yield Part(f"answers `{status}` {what}".strip(), "; ".join(part for part in (about, *headers) if part))


def one_shape(name: str, shape: Shape, words: Words) -> Iterator[str]:
    yield f"### {name}\n"
    if said := shape.get("description"):
        yield " ".join(said.split()) + "\n"
    if not is_sent(name):
        yield "; ".join(f"{code(part)} {words.kind(one)}" for part, one in shape["properties"].items()) + ".\n"
        return
    rows = list[tuple[str, str, str]]()
    for part, one in shape["properties"].items():
        examples = (f"such as {code(str(example))}" for example in one.get("examples", ()))
        needed = ["needed"] if part in shape.get("required", ()) else []
        about = "; ".join((*filter(None, [one.get("description")]), *examples, *needed))
        rows.append((code(part), words.limits(one), about))
    yield table(("field", "type", "meaning"), *rows)


def is_sent(name: str) -> bool:
    return name.endswith(("Body", "In"))


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) + "\n"


def inner(shape: Shape) -> Shape:
    """Without its null: what may be left out need not be said to be nothing."""
    return next((one for one in shape.get("anyOf", ()) if one.get("type") != "null"), shape)


@dataclass(frozen=True, slots=True)
class Words:
    """For types; those with fields are linked."""

    shapes: dict[str, Shape]

    def limits(self, shape: Shape) -> str:
        """Its kind, what it may be, and what it is when it is left out."""
        one = inner(shape)
        words = [self.kind(one)]
        if "minimum" in one and "maximum" in one and one["maximum"] < 1 << 40:
            words.append(f"{one['minimum']:g} to {one['maximum']:g}")
        if "maxLength" in one:
            words.append(f"at most {one['maxLength']} characters")
        if shape.get("default") not in (None, [], {}):
            words.append(f"otherwise {code(str(shape['default']).lower())}")
        return ", ".join(words)

    def kind(self, shape: Shape) -> str:
        match shape:
            case {"$ref": str(where)}:
                name = where.rpartition("/")[2]
                named = self.shapes[name]
                return f"[{name}](#{name.lower()})" if "properties" in named else self.kind(named)
            case {"anyOf": several}:
                return " or ".join(map(self.kind, several))
            case {"enum": words}:
                return ", ".join(map(code, words))
            case {"type": "array", "items": items}:
                return f"list of {self.kind(items)}"
            case {"type": "object", "additionalProperties": dict(values)}:
                return f"object of {self.kind(values)} by name"
            case _:
                return f"{shape['type']} ({shape['format']})" if "format" in shape else str(shape["type"])


# --- settings

_VARIABLES = {
    "INN_DATA": (f"the data directory, of the daemon and of commands; otherwise `{place.DATA_FOLDER}`", "`--data`"),
    "INN_SOCKET": ("the daemon's socket, for commands; otherwise `api.sock` in the data directory", "`--socket`"),
    "INN_PROJECT": ("the project that commands speak of; otherwise `default`", "`--project`"),
}


def settings() -> Iterator[str]:
    if (read := variables_read()) != set(_VARIABLES):
        sys.exit(f"reference.py tells of {sorted(_VARIABLES)}, and what the program reads is {sorted(read)}")
    yield "There is no configuration file. An option goes before its variable.\n"
    rows = ((code(name), words, option) for name, (words, option) in _VARIABLES.items())
    yield table(("variable", "meaning", "option"), *rows)
    yield "The daemon's own options: [inn serve](cli.md#inn-serve).\n"
    yield "## Files\n"
    first, _, rest = (place.__doc__ or "").partition("\n\n")
    yield f"{first}\n"
    yield "\n".join(f"    {line}" for line in rest.strip().splitlines()) + "\n"
    yield "## Sizes\n"
    yield "What `--size` names:\n"
    yield sizes("size", NAMED)
    yield "What a launch gets that asks for nothing, by what the template was built from:\n"
    yield sizes("catalogue entry", CATALOGUE)


def sizes(what: str, named: dict[str, Size]) -> str:
    rows = ((code(name), str(s.vcpus), str(s.memory_mib), str(s.disk_gib)) for name, s in named.items())
    return table((what, "virtual CPUs", "memory, MiB", "disk, GiB"), *rows)


def variables_read() -> set[str]:
    reading = re.compile(r'environ(?:\.get\(|\[)"(INN_[A-Z]+)"')
    return {name for file in SOURCE.rglob("*.py") for name in reading.findall(file.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    main()
