"""The doors of the house open one way. Import-linter guards them; here is what it cannot see.

The contracts stand in pyproject.toml. Added to them: pure rooms may import only what is on a list (a ban-list always
lacks the next library), they may not reach the world through builtins or clocks, and no import hides in a function.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.repository import ROOT, Rule, Source, complain, name_of, source, sources

PURE = ("src/innkeeper/model/", "src/innkeeper/plan/", "src/innkeeper/access/")
GUEST = "src/innkeeper/guest/"
# Who may load by name, and what the rest is spared by that.
BY_NAME = (
    "src/innkeeper/cli/",  # `inn list` does not wait for every other command
    "src/innkeeper/drivers/linuxnet/kernel/messages.py",  # three of pyroute2's 160 modules are enough
    "src/innkeeper/store/database/migrate.py",  # a daemon that has nothing to migrate does not hold what could
)

# Each of these computes and does nothing else. Before adding one: could its result differ between two equal calls?
PURE_MODULES = {
    *("__future__", "abc", "base64", "binascii", "bisect", "collections", "copy", "dataclasses", "datetime", "decimal"),
    *("enum", "fractions", "functools", "graphlib", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json"),
    *("keyword", "math", "numbers", "operator", "re", "statistics", "string", "struct", "textwrap", "types"),
    *("typing", "unicodedata", "uuid", "zlib"),
    *("cattrs", "cryptography", "immutables", "innkeeper", "numpy", "typing_extensions", "yaml"),
}
WORLDLY_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint", "uuid.uuid1", "uuid.uuid4"}
WORLDLY_ENDINGS = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), names=names):
            return [f"{module}.{alias.name}" for alias in names]
        case _:
            return []


def hidden_imports(code: Source) -> Iterator[str]:
    for function in code.functions():
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield f"{code.at(node)} in {function.name}"
    if code.path.startswith(BY_NAME):
        return
    for node in ast.walk(code.tree):
        if isinstance(node, ast.Call) and name_of(node).rsplit(".", 1)[-1] in ("import_module", "__import__"):
            yield f"{code.at(node)} {ast.unparse(node)}"


def worldly_imports(code: Source) -> Iterator[str]:
    for node in ast.walk(code.tree):
        for name in imported(node):
            if name.split(".", 1)[0] not in PURE_MODULES:
                yield f"{code.at(node)} {name}"


def worldly_calls(code: Source) -> Iterator[str]:
    for node in ast.walk(code.tree):
        if isinstance(node, ast.Call):
            name = name_of(node)
            if name in WORLDLY_CALLS or name.endswith(WORLDLY_ENDINGS):
                yield f"{code.at(node)} {name}()"


def worldly_functions(code: Source) -> Iterator[str]:
    for node in ast.walk(code.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield f"{code.at(node)} {getattr(node, 'name', 'await')}"


def imports_of_the_house(code: Source) -> Iterator[str]:
    for node in ast.walk(code.tree):
        for name in imported(node):
            if name.split(".", 1)[0] == "innkeeper":
                yield f"{code.at(node)} {name}"


def test_the_doors_open_one_way() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.fail(
            f"An import is refused: the design is telling you something.\n{done.stdout}{done.stderr}", pytrace=False
        )


@pytest.mark.slow
def test_no_import_hides_in_a_function() -> None:
    found = (place for code in sources() for place in hidden_imports(code))
    complain(found, "Import at the top. If that makes a cycle or opens a closed door, the code is in the wrong room.")


@pytest.mark.parametrize(
    "rule, advice",
    [
        (
            worldly_imports,
            "A pure room computes and does nothing else. Let the caller pass in what this would have read.",
        ),
        (
            worldly_calls,
            "Time, randomness and ids are arguments here; files and terminals belong to a driver or an edge.",
        ),
        (worldly_functions, "A decision waits for nothing: make it a plain function and give it what it needs."),
    ],
    ids=["imports", "calls", "functions"],
)
def test_pure_rooms_do_not_touch_the_world(rule: Rule, advice: str) -> None:
    complain((place for code in sources() if code.path.startswith(PURE) for place in rule(code)), advice)


def test_what_runs_in_guests_stands_alone() -> None:
    found = (place for code in sources() if code.path.startswith(GUEST) for place in imports_of_the_house(code))
    complain(found, "In a guest there is no Innkeeper to import. Keep it to the standard library.")


BAD: list[tuple[Rule, str]] = [
    (hidden_imports, "def f():\n    import json"),
    (hidden_imports, "class A:\n    async def f(self):\n        from json import loads"),
    (hidden_imports, "importlib.import_module('innkeeper.store.engine')"),
    (worldly_imports, "import os.path"),
    (worldly_imports, "from time import monotonic"),
    (worldly_imports, "from collections import OrderedDict\nimport structlog"),
    (worldly_calls, "x = open('/etc/hosts')"),
    (worldly_calls, "x = datetime.datetime.now(UTC)"),
    (worldly_calls, "x = uuid.uuid4()"),
    (worldly_functions, "async def f(): ..."),
    (imports_of_the_house, "from innkeeper.model.ids import HostId"),
]

GOOD: list[tuple[Rule, str]] = [
    (hidden_imports, "import json\ndef f():\n    return json"),
    (worldly_imports, "from innkeeper.model.ids import HostId\nfrom collections.abc import Mapping"),
    (worldly_calls, "x = door.open()\ny = datetime(2026, 1, 1)\nz = uuid.UUID(int=1)"),
    (worldly_functions, "def f(): ..."),
]


@pytest.mark.parametrize("rule, text", BAD)
def test_the_rules_bite(rule: Rule, text: str) -> None:
    assert list(rule(source(text)))


@pytest.mark.parametrize("rule, text", GOOD)
def test_the_rules_leave_good_code_alone(rule: Rule, text: str) -> None:
    assert not list(rule(source(text)))
