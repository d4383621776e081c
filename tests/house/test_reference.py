"""docs/reference says what the program is: the pages that are checked in are those that scripts/reference.py writes."""

from __future__ import annotations

import difflib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.house.repository import ROOT, complain

pytestmark = pytest.mark.slow

REFERENCE = ROOT / "docs/reference"
PAGES = {"cli.md", "api.md", "settings.md"}


def pages(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")}


def differences(kept: Mapping[str, str], written: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*kept, *written}):
        if name not in written:
            yield f"{name}: nobody writes this page any more; remove it"
        elif name not in kept:
            yield f"{name}: is not there"
        elif kept[name] != written[name]:
            lines = difflib.unified_diff(kept[name].splitlines(), written[name].splitlines(), n=0, lineterm="")
            changed = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
            yield "\n    ".join(
                (f"{name}:", *changed[:10], *([f"and {len(changed) - 10} lines more"] * (len(changed) > 10)))
            )


def test_the_reference_is_what_the_program_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/reference.py", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = pages(tmp_path)
    assert set(written) == PAGES
    complain(differences(pages(REFERENCE), written), "docs/reference is not what the program is now. Run: make docs")


def test_differences_are_found() -> None:
    assert not list(differences({"a": "x\n"}, {"a": "x\n"}))
    assert list(differences({"a": "x\ny\n"}, {"a": "x\nz\n"})) == ["a:\n    -y\n    +z"]
    assert list(differences({"a": ""}, {"b": ""})) == [
        "a: nobody writes this page any more; remove it",
        "b: is not there",
    ]
