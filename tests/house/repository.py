"""The repository as the house tests see it: its files, parsed once, and one way to complain about them.

Untracked files that are not ignored count too, so that a rule is heard before the commit and not after it.
"""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src", "tests", "bench", "scripts")

type_of_function = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One Python file. `path` is relative to the repository, with forward slashes."""

    path: str
    text: str
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"

    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, type_of_function))

    def classes(self) -> Iterator[ast.ClassDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    def lines_of(self, node: ast.stmt | ast.ExceptHandler) -> list[str]:
        return self.text.splitlines()[node.lineno - 1 : node.end_lineno]


# A rule names every place where a file breaks it.
Rule = Callable[[Source], Iterator[str]]


def source(text: str, path: str = "src/innkeeper/plan/sample.py") -> Source:
    """A source that exists only in a test."""
    return Source(path=path, text=text, tree=ast.parse(text))


@functools.cache
def files() -> tuple[str, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(sorted(name for name in set(listed.stdout.split("\0")) if name and (ROOT / name).is_file()))


def files_in(*folders: str, ending: str = "") -> list[str]:
    return [name for name in files() if name.startswith(tuple(f"{f}/" for f in folders)) and name.endswith(ending)]


def read(name: str) -> str | None:
    """The text of a file, or None if it is not text."""
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


@functools.cache
def sources() -> tuple[Source, ...]:
    """Every Python file of ours, without the empty `__init__.py` files."""
    found = []
    for name in files_in(*CODE, ending=".py"):
        text = read(name)
        if text:
            found.append(source(text, name))
    return tuple(found)


def name_of(node: ast.expr) -> str:
    """The dotted name that an expression spells: "pytest.mark.skip" for `pytest.mark.skip(reason=…)`."""
    match node:
        case ast.Call(func=called):
            return name_of(called)
        case ast.Subscript(value=value):
            return name_of(value)
        case ast.Attribute(value=value, attr=attr):
            return f"{name_of(value)}.{attr}"
        case ast.Name(id=name):
            return name
        case _:
            return ""


def complain(found: Iterable[str], advice: str) -> None:
    """Fails with every place at once, and with what to do about them."""
    places = sorted(found)
    if places:
        pytest.fail("\n  ".join([advice, *places]), pytrace=False)
