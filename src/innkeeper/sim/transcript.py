"""What was said to hosts and what they said, as lines to read and to compare: a scenario is such a conversation.

    > launch web
    h1: create disk web/root of 10 GiB from tiny:1
    h1: start web
    h1: web is running

A line about a machine appears when what it does changes. Counters and progress would drown the rest, and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import HostId
from innkeeper.model.observed import MachineState, Report, TemplateState
from innkeeper.model.work import Order, Refused
from innkeeper.plan.words import NO_NAMES, Names, report_words, words
from innkeeper.sim.faults import Killed
from innkeeper.sim.obeying import Answer


class Transcript:
    """A Witness of one or many hosts. `look` gives the present picture, for names."""

    def __init__(self, look: Callable[[], Cluster] | None = None) -> None:
        self.lines: list[str] = []
        self._look = look
        self._last: dict[str, str] = {}

    def say(self, what: str) -> None:
        """A wish, as the user put it."""
        self.lines.append(f"> {what}")

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    # --- as a Witness

    def ordered(self, order: Order) -> None:
        self.lines.append(words(order, self._names()))

    def answered(self, order: Order, answer: Answer) -> None:
        host = self._names().get(order.host, order.host)
        if isinstance(answer, Refused):
            self.lines.append(f"{host}: refuses: {answer.reason}")
        elif isinstance(answer, Killed):
            self.lines.append(f"{host}: dies: {answer}")
        elif isinstance(answer, BaseException):
            self.lines.append(f"{host}: no answer: {answer}")

    def reported(self, host: HostId, report: Report) -> None:
        if not isinstance(report, MachineState | TemplateState):
            return
        names = self._names()
        about = report.instance if isinstance(report, MachineState) else report.template
        said = report_words(report, names)
        if self._last.get(about) != said:
            self._last[about] = said
            self.lines.append(f"{names.get(host, host)}: {said}")

    def _names(self) -> Mapping[str, str]:
        return NO_NAMES if self._look is None else Names(self._look())
