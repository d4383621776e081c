"""Documents a reader can trust: those we promise are there, links lead somewhere, notes on changes can be gathered."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

import pytest

from tests.house.repository import ROOT, complain, files, files_in, read

PROMISED = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "docs/rejected.md",
    "docs/decisions/0000-template.md",
    "changelog/README.md",
)
FRAGMENT = re.compile(r"changelog/[a-z0-9]+(-[a-z0-9]+)*\.(added|changed|fixed|removed|security)\.md")
RECORD = re.compile(r"docs/decisions/(\d{4})-[a-z0-9]+(-[a-z0-9]+)*\.md")
RECORD_PARTS = ("Problem", "Options", "Decision")
RECORD_STATES = ("proposed", "accepted", "replaced by", "withdrawn")

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`[^`\n]*`")


def links(text: str) -> list[str]:
    """Those to files of ours; an address elsewhere, or a heading of the same page, is not looked at."""
    prose = CODE_SPAN.sub("", CODE_BLOCK.sub("", text))
    targets = [match[1].split("#", 1)[0] for match in LINK.finditer(prose)]
    return [target for target in targets if target and not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def dead_links(name: str, text: str) -> Iterator[str]:
    for target in links(text):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if path.startswith(("/", "..")) or not (ROOT / path).exists():
            yield f"{name}: {target}"


def record_faults(name: str, text: str) -> Iterator[str]:
    for part in RECORD_PARTS:
        if f"\n## {part}\n" not in text:
            yield f"{name}: no heading `## {part}`"
    status = re.search(r"^Status: (.+)$", text, re.MULTILINE)
    if not status or not status[1].startswith(RECORD_STATES):
        yield f"{name}: no line `Status: ` with one of: {', '.join(RECORD_STATES)}"


def fragments() -> list[str]:
    return [name for name in files_in("changelog") if name != "changelog/README.md"]


def records() -> list[str]:
    return [name for name in files_in("docs/decisions") if name != "docs/decisions/README.md"]


def test_promised_documents_are_there() -> None:
    complain((name for name in PROMISED if name not in files()), "These documents are promised to readers. Write them.")


def test_links_lead_somewhere() -> None:
    pages = [name for name in files() if name.endswith(".md")]
    found = (place for name in pages for place in dead_links(name, read(name) or ""))
    complain(found, "These links lead to no file. Links are relative to the page they stand on.")


def test_changes_are_noted_so_that_they_can_be_gathered() -> None:
    odd = [name for name in fragments() if not FRAGMENT.fullmatch(name)]
    complain(
        odd, "A fragment is called changelog/<slug>.<added|changed|fixed|removed|security>.md: changelog/README.md."
    )
    complain(
        (name for name in fragments() if not (read(name) or "").strip()), "This fragment tells its reader nothing."
    )


def test_decisions_are_numbered_one_by_one() -> None:
    odd = [name for name in records() if not RECORD.fullmatch(name)]
    complain(odd, "A decision record is called docs/decisions/<four digits>-<slug>.md.")
    numbers = sorted(int(match[1]) for match in map(RECORD.fullmatch, records()) if match)
    assert numbers == list(range(len(numbers))), f"Each decision has its own number, and none is left out: {numbers}"


def test_decisions_say_what_was_weighed() -> None:
    found = (place for name in records() for place in record_faults(name, read(name) or ""))
    complain(
        found, "Follow docs/decisions/0000-template.md: a reader wants to know what else was possible, and why not."
    )


def test_dead_links_are_found() -> None:
    text = "[a](nowhere.md) [b](../outside.md) `[c](code.md)` [d](https://example.org) [e](#here) [f](../LICENSE#x)"
    assert list(dead_links("changelog/README.md", text)) == [
        "changelog/README.md: nowhere.md",
        "changelog/README.md: ../outside.md",
    ]


@pytest.mark.parametrize(
    "name", ["changelog/a.md", "changelog/A.added.md", "changelog/a_b.fixed.md", "changelog/a.new.md"]
)
def test_odd_fragments_are_found(name: str) -> None:
    assert not FRAGMENT.fullmatch(name)


def test_records_without_options_are_found() -> None:
    good = "# 1. Title\n\nStatus: accepted\n\n## Problem\n\n## Options\n\n## Decision\n"
    assert not list(record_faults("a", good))
    assert list(record_faults("a", good.replace("## Options\n", "")))
    assert list(record_faults("a", good.replace("accepted", "done")))


NAMED = re.compile(r"`((?:src/|tests/|bench/|docs/|[a-z]+/)[\w/.*-]+\.(?:py|c|md|sh))`")


def absent_files(name: str, text: str) -> Iterator[str]:
    """Files are named from the repository or from the package; `*` stands for several."""
    for path in (match[1] for match in NAMED.finditer(text)):
        if not any([*place.glob(path)] for place in (ROOT, ROOT / "src/innkeeper")):
            yield f"{name}: {path}"


def test_named_files_are_there() -> None:
    documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/progress.md"]
    found = [file for name in documents for file in absent_files(name, read(name) or "")]
    complain(found, "These files are named and do not exist.")


def test_a_named_file_that_is_absent_is_noticed() -> None:
    text = "see `cli/app.py`, `tests/house/test_*.py` and `cli/lunch.py`"
    assert [*absent_files("A.md", text)] == ["A.md: cli/lunch.py"]
