"""Code that looks finished and is not: errors nobody hears of, bodies with nothing in them, tests silently left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.repository import Function, Rule, Source, complain, name_of, source, sources, type_of_function

BROAD = {"Exception", "BaseException"}
# What leaves a test out. The first three take their reason as first argument, too.
LEAVING_OUT = ("pytest.skip", "pytest.xfail", "mark.skip", "mark.skipif", "mark.xfail")


def caught(handler: ast.ExceptHandler) -> set[str]:
    if handler.type is None:
        return {"BaseException"}
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {name_of(kind).rsplit(".", 1)[-1] for kind in kinds}


def says_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(item, ast.Pass | ast.Continue)
        or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and item.value.value is ...)
        for item in body
    )


def passes_it_on(handler: ast.ExceptHandler) -> bool:
    """Raises, uses the exception it named, or logs it with its traceback."""
    for node in (node for item in handler.body for node in ast.walk(item)):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Name) and node.id == handler.name:
            return True
        if isinstance(node, ast.Call) and name_of(node).endswith(".exception"):
            return True
    return False


def swallowed_exceptions(code: Source) -> Iterator[str]:
    for node in ast.walk(code.tree):
        if (
            isinstance(node, ast.Call)
            and name_of(node).endswith("suppress")
            and BROAD & {name_of(a) for a in node.args}
        ):
            yield f"{code.at(node)} {ast.unparse(node)}"
        if not isinstance(node, ast.ExceptHandler):
            continue
        if BROAD & caught(node) and not passes_it_on(node):
            yield f"{code.at(node)} except {', '.join(sorted(caught(node)))}"
        elif says_nothing(node.body) and not any("#" in line for line in code.lines_of(node)):
            yield f"{code.at(node)} except {', '.join(sorted(caught(node)))}: nothing, and no comment saying why"


def is_declaration(function: Function, owner: ast.ClassDef | None) -> bool:
    """Has no body on purpose: part of a protocol, an overload, or abstract."""
    if owner is not None and any(name_of(base) in ("Protocol", "typing.Protocol") for base in owner.bases):
        return True
    marks = {name_of(decorator).rsplit(".", 1)[-1] for decorator in function.decorator_list}
    return bool(marks & {"overload", "abstractmethod"})


def empty_bodies(code: Source) -> Iterator[str]:
    for node in ast.walk(code.tree):
        owner = node if isinstance(node, ast.ClassDef) else None
        for item in getattr(node, "body", []) if isinstance(node, ast.ClassDef | ast.Module) else []:
            if isinstance(item, type_of_function) and says_nothing(item.body) and not is_declaration(item, owner):
                yield f"{code.at(item)} {item.name}"


def unwritten_code(code: Source) -> Iterator[str]:
    for node in ast.walk(code.tree):
        if isinstance(node, ast.Raise) and node.exc is not None and name_of(node.exc) == "NotImplementedError":
            yield code.at(node)


def silent_skips(code: Source) -> Iterator[str]:
    bare = (decorator for item in [*code.functions(), *code.classes()] for decorator in item.decorator_list)
    calls = (node for node in ast.walk(code.tree) if isinstance(node, ast.Call))
    for node in [*(mark for mark in bare if not isinstance(mark, ast.Call)), *calls]:
        if name_of(node).endswith(LEAVING_OUT) and not (isinstance(node, ast.Call) and says_why(node)):
            yield f"{code.at(node)} {ast.unparse(node)}"


def says_why(call: ast.Call) -> bool:
    first = bool(call.args) and name_of(call).endswith(LEAVING_OUT[:3])
    return first or any(word.arg in ("reason", "msg") for word in call.keywords)


@pytest.mark.parametrize(
    "rule, folder, advice",
    [
        (
            swallowed_exceptions,
            "",
            "An error that nobody hears of is an outage that nobody can explain. Catch the one kind you expect and say "
            "in a comment why it does not matter; let the others pass, or log them and go on.",
        ),
        (
            empty_bodies,
            "src/",
            "A function without a body is not done. If doing nothing is right, say why in its docstring.",
        ),
        (
            unwritten_code,
            "src/",
            "A method that raises is not done. An ability that not all have is a protocol of its own.",
        ),
        (
            silent_skips,
            "tests/",
            "A test that is left out says why: give a reason that a reader can act on.",
        ),
    ],
    ids=["exceptions", "bodies", "methods", "skips"],
)
def test_nothing_is_hidden(rule: Rule, folder: str, advice: str) -> None:
    complain((place for code in sources() if code.path.startswith(folder) for place in rule(code)), advice)


BAD: list[tuple[Rule, str]] = [
    (swallowed_exceptions, "try: f()\nexcept Exception: pass"),
    (swallowed_exceptions, "try: f()\nexcept:\n    x = 1  # whatever"),
    (swallowed_exceptions, "try: f()\nexcept (OSError, BaseException) as error:\n    x = 1"),
    (swallowed_exceptions, "try: f()\nexcept* Exception:\n    return_code = 1"),
    (swallowed_exceptions, "try: f()\nexcept OSError: pass"),
    (swallowed_exceptions, "with contextlib.suppress(Exception): f()"),
    (empty_bodies, "def f(): ..."),
    (empty_bodies, "class A:\n    async def f(self): pass"),
    (unwritten_code, "def f(): raise NotImplementedError('later')"),
    (silent_skips, "@pytest.mark.skip\ndef test_a(): ..."),
    (silent_skips, "@pytest.mark.skipif(broken)\ndef test_a(): ..."),
    (silent_skips, "def test_a(): pytest.skip()"),
]

GOOD: list[tuple[Rule, str]] = [
    (swallowed_exceptions, "try: f()\nexcept FileNotFoundError:\n    pass  # gone already, which is what we want"),
    (swallowed_exceptions, "try: f()\nexcept Exception as error: tell(error)"),
    (swallowed_exceptions, "try: f()\nexcept BaseException:\n    undo()\n    raise"),
    (swallowed_exceptions, "try: f()\nexcept Exception: log.exception('no report')"),
    (empty_bodies, "class A(Protocol):\n    def f(self): ..."),
    (empty_bodies, "def f():\n    '''Nothing to release: the fake holds nothing.'''"),
    (silent_skips, "@pytest.mark.skipif(broken, reason='no /dev/kvm')\ndef test_a(): ..."),
    (silent_skips, "def test_a(): pytest.skip('no /dev/kvm')"),
]


@pytest.mark.parametrize("rule, text", BAD)
def test_the_rules_bite(rule: Rule, text: str) -> None:
    assert list(rule(source(text)))


@pytest.mark.parametrize("rule, text", GOOD)
def test_the_rules_leave_honest_code_alone(rule: Rule, text: str) -> None:
    assert not list(rule(source(text)))
