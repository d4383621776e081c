"""Pages of help: plain words in two columns, which any terminal shows and any tool can search."""

from __future__ import annotations

import textwrap
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

_LEFT_MOST = 26
_UNWRAPPED = 10_000


class HelpPage:
    """A formatter for cyclopts: its parts are called one by one, from top to bottom."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        if usage:
            _print(console, str(usage).strip())

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        words = _plain(console, description)
        if words:
            paragraphs = [textwrap.fill(part, options.max_width) for part in words.split("\n\n")]
            _print(console, "\n" + "\n\n".join(paragraphs))

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        rows = [(_label(entry), _words(entry, _plain(console, entry.description))) for entry in panel.entries]
        if not rows:
            return
        left = min(_LEFT_MOST, max(len(label) for label, _ in rows)) + 4
        _print(console, f"\n{_plain(console, panel.title)}:")
        for label, words in rows:
            _print(console, _row(label, words, left, options.max_width))


def _row(label: str, words: str, left: int, width: int) -> str:
    """Words beside their label; below it where it is long, or the terminal narrow."""
    right = width - left
    if right < _LEFT_MOST:
        left, right = 6, width - 6
    lines = textwrap.wrap(words, max(right, 10)) or [""]
    head = f"  {label}"
    if len(head) + 2 <= left:
        first = f"{head:{left}}{lines.pop(0)}"
    else:
        first = head
    return "\n".join([first.rstrip(), *(" " * left + line for line in lines if line)])


def _label(entry: HelpEntry) -> str:
    if entry.positional_label:
        return entry.positional_label
    names = ", ".join((*entry.positive_shorts, *entry.positive_names))
    return f"{names} {entry.metavar}" if entry.metavar else names


def _words(entry: HelpEntry, description: str) -> str:
    words = " ".join(description.split("\n\n")[0].split())
    if entry.choices and not all(choice in words for choice in entry.choices):
        words += f" ({', '.join(entry.choices)})"
    return f"{words} (needed)" if entry.required and not entry.positional_label else words


def _plain(console: Console, text: Any) -> str:
    """The text of what cyclopts would have had styled."""
    if not text:
        return ""
    segments = console.render(text, console.options.update(width=_UNWRAPPED, highlight=False))
    return "".join(segment.text for segment in segments).strip()


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
