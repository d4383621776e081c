"""Following operations to their end, with a progress bar where a person looks on.

Ctrl-C asks the daemon to cancel and waits for the undo; a second one leaves the operations to themselves.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from innkeeper.cli.line import CannotGoOn, Line, at, new_key, say

Operation = dict[str, Any]
_ASK_S = 0.5
_ENDED = ("succeeded", "failed", "cancelled")
_REASONS_SHOWN = 10


def post(line: Line, path: str, body: object = None) -> Any:
    return _begun(line, lambda key: line.post(path, body, key))


def patch(line: Line, path: str, body: object) -> Any:
    return _begun(line, lambda key: line.patch(path, body, key))


def remove(line: Line, path: str, **query: Any) -> Any:
    return _begun(line, lambda key: line.delete(path, key, **query))


def _begun(line: Line, ask: Callable[[str], Any]) -> Any:
    """What was asked for. Ctrl-C before the daemon has answered still finds, and cancels, what has begun."""
    key = new_key()
    try:
        return ask(key)
    except KeyboardInterrupt:
        answer = ask(key)  # the same request: it was taken, or is now
        if isinstance(answer, dict) and "cancel_wanted" in answer:
            return {**_Following(line, [answer]).interrupted([answer])[0], "interrupted": True}
        raise


def follow(line: Line, operation: Operation) -> Operation:
    """The operation once it has ended well.

    Raises:
        CannotGoOn: it failed or was cancelled; with its reason.
    """
    ended, failure = outcome(line, operation)
    if failure is not None:
        raise failure
    return ended


def outcome(line: Line, operation: Operation) -> tuple[Operation, CannotGoOn | None]:
    """The operation once it has ended, and why, if not well: parts of it may have ended well all the same."""
    (ended,), failures = _outcomes(line, [operation])
    return ended, failures[0] if failures else None


def each(words: Sequence[str], ask: Callable[[str], Operation], line: Line) -> None:
    """Ask for all, then follow all: what one refuses does not keep the others waiting.

    Raises:
        CannotGoOn: not all ended well; what went wrong with each has been said.
    """
    begun, problems = list[Operation](), list[CannotGoOn]()
    for word in dict.fromkeys(words):
        try:
            begun.append(ask(word))
        except CannotGoOn as problem:
            if problem.code == 3:  # nobody is there to ask for the others
                raise
            problems.append(problem)
    _, failures = _outcomes(line, begun)
    fail_with([*problems, *failures])


def fail_with(problems: Sequence[CannotGoOn]) -> None:
    """Say all of them, and end; without any, nothing."""
    for problem in problems[:-1]:
        say(problem)
    if problems:
        raise problems[-1]


def _outcomes(line: Line, operations: Sequence[Operation]) -> tuple[list[Operation], list[CannotGoOn]]:
    """All of them once all have ended, and why those failed that did."""
    following = _Following(line, operations)
    try:
        ended = following.to_the_end()
    except CannotGoOn as lost:
        raise _left(lost, operations) from lost
    if not following.cancelled:
        return ended, [_failure(line, o, 1) for o in ended if o["state"] != "succeeded"]
    return ended, [_failure(line, o, 130) if o["state"] != "succeeded" else _too_late(o) for o in ended]


class _Following:
    def __init__(self, line: Line, operations: Sequence[Operation]) -> None:
        self._line = line
        self._operations = list(operations)
        self._bar: Any = None
        self.cancelled = any(o.get("interrupted") for o in operations)

    def to_the_end(self) -> list[Operation]:
        try:
            for number in range(len(self._operations)):
                self._one(number)
        finally:
            if self._bar is not None:
                self._bar.end()
        return self._operations

    def _one(self, number: int) -> None:
        while self._operations[number]["state"] not in _ENDED:
            try:
                path = at("operations", self._operations[number]["id"], "wait")
                self._operations[number] = self._line.get(path, timeout_s=_ASK_S)
                if self._operations[number]["state"] not in _ENDED:
                    self._show(self._operations[number])
            except KeyboardInterrupt:
                self._operations[number:] = self.interrupted(self._operations[number:])

    def interrupted(self, running: Sequence[Operation]) -> list[Operation]:
        if self.cancelled:
            names = ", ".join(o["id"] for o in running)
            raise CannotGoOn(f"left to itself: operation {names}", f"See: inn operation show {running[0]['id']}", 130)
        self.cancelled = True
        titles = ", ".join(o["title"] for o in running[:3]) + (" …" if len(running) > 3 else "")
        sys.stderr.write(f"\ncancelling: {titles} (Ctrl-C again leaves it to itself)\n")
        return [_cancel(self._line, operation) for operation in running]

    def _show(self, operation: Operation) -> None:
        if self._bar is None and sys.stderr.isatty():
            self._bar = importlib.import_module("innkeeper.cli.progress").Bar()
        if self._bar is not None:
            self._bar.show(operation)


def _cancel(line: Line, operation: Operation) -> Operation:
    try:
        cancelled: Operation = line.post(at("operations", operation["id"], "cancel"))
        return cancelled
    except CannotGoOn as problem:
        if problem.code == 3:
            raise
        return {**operation, "cancel_wanted": True}  # it ended in this very moment; the next look tells how


def _left(lost: CannotGoOn, operations: Sequence[Operation]) -> CannotGoOn:
    """The daemon is gone, not the work."""
    if lost.code != 3:
        return lost
    ids = " ".join(o["id"] for o in operations[:3])
    hint = f"The work goes on when a daemon runs again: inn serve; then: inn operation wait {ids}"
    return CannotGoOn(lost.reason, hint, 3)


def _failure(line: Line, operation: Operation, code: int) -> CannotGoOn:
    reasons = [f"{operation['title']}: {operation['error'] or operation['state']}"]
    if operation["children"]:
        failed = [c for c in children(line, operation) if c["state"] in ("failed", "cancelled")]
        reasons += [f"  {c['title']}: {c['error'] or c['state']}" for c in failed[:_REASONS_SHOWN]]
        reasons += [f"  and {len(failed) - _REASONS_SHOWN} more"] if len(failed) > _REASONS_SHOWN else []
    return CannotGoOn("\n     ".join(reasons), operation["hint"], code)


def _too_late(operation: Operation) -> CannotGoOn:
    hint = f"It stands as you had asked for: inn operation show {operation['id']}"
    return CannotGoOn(f"too late to cancel: {operation['title']} has succeeded", hint, 130)


def children(line: Line, operation: Operation) -> list[Operation]:
    return list(line.every("/v1/operations", parent=operation["id"]))
