"""Names say what a thing is for. A file called utils, or a class called Manager, says that nobody knew."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.house.repository import CODE, ROOT, Rule, Source, complain, files_in, name_of, source, sources

BANNED_FILES = {"util", "utils", "helper", "helpers", "common", "misc", "base", "manager", "impl", "stuff"}
BANNED_CLASSES = {"Manager", "Handler", "Helper", "Helpers", "Util", "Utils", "Base", "Impl"}
VALUES = "src/innkeeper/model/"


def words(name: str) -> list[str]:
    """CamelCase into words: HTTPServerBase is HTTP, Server, Base; Database is one word."""
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+", name)


def vague_files(names: list[str]) -> Iterator[str]:
    for name in names:
        for part in PurePosixPath(name).parts:
            stem = part.split(".", 1)[0].lower()
            if BANNED_FILES & set(re.split(r"[_-]", stem)):
                yield name


def vague_classes(code: Source) -> Iterator[str]:
    for node in code.classes():
        if BANNED_CLASSES & set(words(node.name)):
            yield f"{code.at(node)} {node.name}"


def loose_values(code: Source) -> Iterator[str]:
    """A dataclass of the model that can be changed in place, or whose parts can be mixed up by position."""
    for node in code.classes():
        for decorator in node.decorator_list:
            if name_of(decorator).rsplit(".", 1)[-1] != "dataclass":
                continue
            given = {f"{word.arg}={getattr(word.value, 'value', '')}" for word in getattr(decorator, "keywords", [])}
            for wanted in ("frozen=True", "slots=True"):
                if wanted not in given:
                    yield f"{code.at(node)} {node.name}: {wanted}"


def test_files_say_what_they_are_for() -> None:
    complain(
        vague_files(files_in(*CODE)), "This name says nothing. What do its functions have in common? Call it that."
    )


def test_classes_say_what_they_are() -> None:
    found = (place for code in sources() for place in vague_classes(code))
    complain(found, f"Not used in class names: {', '.join(sorted(BANNED_CLASSES))}. What does it do? Call it that.")


def test_nouns_are_frozen_values() -> None:
    found = (place for code in sources() if code.path.startswith(VALUES) for place in loose_values(code))
    complain(found, "A noun is a frozen, slotted dataclass; it is changed by `replace`.")


def test_packages_open_with_nothing() -> None:
    full = [name for name in files_in(*CODE) if name.endswith("/__init__.py") and (ROOT / name).stat().st_size]
    complain(
        full, "`__init__.py` stays empty, so that importing one module never runs another. Name the module instead."
    )


def test_every_file_says_what_it_is_for() -> None:
    silent = (code.path for code in sources() if not ast.get_docstring(code.tree))
    complain(silent, "Open the file with a docstring: what is it for, and what does it deliberately not do?")


BAD: list[tuple[Rule, str]] = [
    (vague_classes, "class HostManager: ..."),
    (vague_classes, "class BaseDriver: ..."),
    (vague_classes, "class QMPUtil: ..."),
    (loose_values, "@dataclass\nclass A: ..."),
    (loose_values, "@dataclasses.dataclass(frozen=True, slots=False)\nclass A: ..."),
]

GOOD: list[tuple[Rule, str]] = [
    (vague_classes, "class Database: ..."),
    (vague_classes, "class Utilisation: ..."),
    (loose_values, "@dataclass(frozen=True, slots=True)\nclass A: ..."),
]


@pytest.mark.parametrize("rule, text", BAD)
def test_the_rules_bite(rule: Rule, text: str) -> None:
    assert list(rule(source(text)))


@pytest.mark.parametrize("rule, text", GOOD)
def test_the_rules_leave_good_names_alone(rule: Rule, text: str) -> None:
    assert not list(rule(source(text)))


def test_vague_files_are_found_in_any_folder() -> None:
    good = ["src/a/database.py", "src/a/commonality.py"]
    assert list(vague_files([*good, "src/a/net_utils.py", "tests/helpers/x.py"])) == [
        "src/a/net_utils.py",
        "tests/helpers/x.py",
    ]
