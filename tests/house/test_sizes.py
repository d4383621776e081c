"""How large things may grow. Only the tail tells good codebases from bad ones, so the tail is cut off here."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.house.repository import (
    CODE,
    Function,
    Rule,
    Source,
    complain,
    files,
    files_in,
    name_of,
    read,
    source,
    sources,
    type_of_function,
)

FILE_LINES = 400
FUNCTION_LINES = 60
CLASS_METHODS = 15
CONSTRUCTOR_ARGUMENTS = 5
ARGUMENTS = 6
PROTOCOL_METHODS = 10
FOLDER_FILES = 12
ARCHITECTURE_LINES = 200

PROTOCOLS = {"Protocol", "typing.Protocol"}  # asyncio.Protocol is something else
COUNTED_AS_CODE = (".py", ".c", ".h", ".sh", ".toml", ".sql")
COMPLEXITY_CODES = ("C901", "PLR0913")


def arguments_of(function: Function) -> list[ast.arg]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument for argument in named if argument.arg not in ("self", "cls")]


def methods_of(node: ast.ClassDef) -> set[str]:
    """By name: a property and its setter, or the overloads of one method, are one thing to know."""
    return {item.name for item in node.body if isinstance(item, type_of_function)}


def is_protocol(node: ast.ClassDef) -> bool:
    return any(name_of(base) in PROTOCOLS for base in node.bases)


def constructor_arguments(node: ast.ClassDef) -> int:
    """Of a written `__init__`, or of a dataclass that is not frozen: a frozen one is a value, and may be long."""
    for item in node.body:
        if isinstance(item, type_of_function) and item.name == "__init__":
            return len(arguments_of(item))
    for decorator in node.decorator_list:
        if name_of(decorator).rsplit(".", 1)[-1] == "dataclass" and "frozen=True" not in ast.unparse(decorator):
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
            return sum("init=False" not in ast.unparse(item) and "ClassVar" not in ast.unparse(item) for item in fields)
    return 0


def long_functions(code: Source) -> Iterator[str]:
    for function in code.functions():
        lines = len(code.lines_of(function))
        if lines > FUNCTION_LINES:
            yield f"{code.at(function)} {function.name}: {lines} lines"


def long_argument_lists(code: Source) -> Iterator[str]:
    for function in code.functions():
        count = len(arguments_of(function))
        if count > ARGUMENTS:
            yield f"{code.at(function)} {function.name}: {count} arguments"


def wide_classes(code: Source) -> Iterator[str]:
    for node in code.classes():
        count = len(methods_of(node))
        if count > CLASS_METHODS:
            yield f"{code.at(node)} {node.name}: {count} methods"


def wide_protocols(code: Source) -> Iterator[str]:
    for node in code.classes():
        if is_protocol(node) and len(methods_of(node)) > PROTOCOL_METHODS:
            yield f"{code.at(node)} {node.name}: {len(methods_of(node))} methods"


def classes_that_know_too_much(code: Source) -> Iterator[str]:
    for node in code.classes():
        count = constructor_arguments(node)
        if count > CONSTRUCTOR_ARGUMENTS:
            yield f"{code.at(node)} {node.name}: {count} constructor arguments"


def silenced_sizes(code: Source) -> Iterator[str]:
    for number, line in enumerate(code.text.splitlines(), 1):
        _, noqa, codes = line.partition("noqa:")
        if noqa and any(each in codes for each in COMPLEXITY_CODES):
            yield f"{code.path}:{number} {line.strip()}"


def long_files(lines_of: dict[str, int]) -> Iterator[str]:
    return (f"{name}: {lines} lines" for name, lines in lines_of.items() if lines > FILE_LINES)


def full_folders(names: list[str]) -> Iterator[str]:
    """An empty `__init__.py` does not count: it says nothing that one would have to read."""
    counts = Counter(str(PurePosixPath(name).parent) for name in names if not name.endswith("/__init__.py"))
    return (f"{folder}: {count} files" for folder, count in counts.items() if count > FOLDER_FILES)


RULES: dict[Rule, str] = {
    long_functions: f"A function has at most {FUNCTION_LINES} lines. Find its steps and give them names.",
    long_argument_lists: f"A function takes at most {ARGUMENTS} arguments. Put those that belong together in a value.",
    wide_classes: f"A class has at most {CLASS_METHODS} methods. Find the second idea in it and give that a name.",
    wide_protocols: f"A protocol has at most {PROTOCOL_METHODS} methods, so that a fake fits on a page. "
    "Make the optional ability a protocol of its own.",
    classes_that_know_too_much: f"A constructor takes at most {CONSTRUCTOR_ARGUMENTS} arguments. Does one class do two "
    "jobs? Or are some of them one value?",
    silenced_sizes: "The limits on size have no exceptions. Make it smaller, or change the rule in a decision record.",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_code_keeps_its_sizes(rule: Rule) -> None:
    complain((place for code in sources() for place in rule(code)), RULES[rule])


def test_files_stay_short() -> None:
    lines = {name: (read(name) or "").count("\n") for name in files_in(*CODE) if name.endswith(COUNTED_AS_CODE)}
    complain(long_files(lines), f"A file has at most {FILE_LINES} lines. Do not halve it: find its second idea.")


def test_folders_stay_small() -> None:
    names = [*files_in("src"), *files_in("tests", "bench", "scripts", ending=".py")]
    complain(full_folders(names), f"A folder has at most {FOLDER_FILES} files. Which of them belong together?")


def test_the_birds_eye_view_stays_one() -> None:
    # That the file is there at all is test_documents.py's question.
    lines = (read("ARCHITECTURE.md") or "").count("\n") if "ARCHITECTURE.md" in files() else 0
    assert lines <= ARCHITECTURE_LINES, f"ARCHITECTURE.md has {lines} lines: move what is not bird's eye to docs/."


MANY = ", ".join(f"a{number}" for number in range(7))
METHODS = "".join(f"    def m{number}(self): ...\n" for number in range(16))
FIELDS = "".join(f"    f{number}: int\n" for number in range(6))

BAD: list[tuple[Rule, str]] = [
    (long_functions, "def f():\n" + "    pass\n" * 60),
    (long_argument_lists, f"def f({MANY}): ..."),
    (long_argument_lists, f"async def f(*, {MANY}): ..."),
    (wide_classes, "class A:\n" + METHODS),
    (wide_protocols, "class A(typing.Protocol[T]):\n" + METHODS),
    (classes_that_know_too_much, "class A:\n    def __init__(self, a, b, c, *, d, e, f): ..."),
    (classes_that_know_too_much, "@dataclass(slots=True)\nclass A:\n" + FIELDS),
    (silenced_sizes, "def f():  # noqa" + ": C901\n    ..."),
]

GOOD: list[tuple[Rule, str]] = [
    (long_functions, "def f():\n" + "    pass\n" * 59),
    (long_argument_lists, "class A:\n    def f(self, a, b, c, d, e, f): ..."),
    (wide_classes, "class A:\n" + METHODS.replace("m15", "m14")),
    (wide_protocols, "class A(asyncio.Protocol):\n" + METHODS),
    (classes_that_know_too_much, "@dataclass(frozen=True)\nclass A:\n" + FIELDS),
]


@pytest.mark.parametrize("rule, text", BAD)
def test_the_rules_bite(rule: Rule, text: str) -> None:
    assert list(rule(source(text)))


@pytest.mark.parametrize("rule, text", GOOD)
def test_the_rules_leave_good_code_alone(rule: Rule, text: str) -> None:
    assert not list(rule(source(text)))


def test_the_rules_for_files_and_folders_bite() -> None:
    assert list(long_files({"a.py": 401, "b.py": 400})) == ["a.py: 401 lines"]
    names = [f"src/a/{number}.py" for number in range(13)] + [f"src/b/{number}.py" for number in range(12)]
    assert list(full_folders([*names, "src/b/__init__.py"])) == ["src/a: 13 files"]
