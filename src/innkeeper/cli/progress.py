"""Signs of life for a person who waits: loaded only when there is one, and when there is something to wait for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from innkeeper.cli.units import human_bytes

_FIRST_S, _EVERY_S = 0.5, 0.1


class Bar:
    """On standard error; gone when it ends."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=None))
        doing = TextColumn("{task.fields[doing]}", markup=False)
        self._progress = Progress(*columns, doing, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
        self._tasks: dict[str, TaskID] = {}

    def show(self, operation: dict[str, Any]) -> None:
        if not self._tasks:
            self._progress.start()
        task = self._tasks.get(operation["id"])
        if task is None:
            task = self._tasks[operation["id"]] = self._progress.add_task(operation["title"], total=1.0, doing="")
        self._progress.update(task, completed=operation["progress"], doing=operation["doing"])

    def end(self) -> None:
        if self._tasks:
            self._progress.stop()


class Copied:
    """The bytes of one file on their way; shown when they take a moment. `size_bytes` None: nobody knows how many."""

    def __init__(self, title: str, size_bytes: int | None) -> None:
        self._bar = Bar()
        self._title = title
        self._size_bytes = size_bytes
        self._done_bytes = 0
        self._due_s = time.monotonic() + _FIRST_S

    def add(self, count: int) -> None:
        self._done_bytes += count
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + _EVERY_S
        doing, share = human_bytes(self._done_bytes), 0.0
        if self._size_bytes:
            doing, share = f"{doing} of {human_bytes(self._size_bytes)}", min(1.0, self._done_bytes / self._size_bytes)
        self._bar.show({"id": self._title, "title": self._title, "progress": share, "doing": doing})

    def end(self) -> None:
        self._bar.end()


@contextlib.contextmanager
def turning(words: str) -> Iterator[None]:
    """Of what nobody knows how far it is: what is waited for, and how long already."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(words, total=None)
        yield
