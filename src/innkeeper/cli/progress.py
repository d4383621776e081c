"""A progress bar for a person who waits: loaded only when there is one, and when there is something to wait for."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


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
        self._progress.stop()
