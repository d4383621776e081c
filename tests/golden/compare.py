"""Words that we send to tools, kept as files and compared. REWRITE_GOLDEN=1 writes them anew; review the difference."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(__file__).parent / "data"


def same_as_golden(name: str, text: str) -> None:
    """`name` is a path below tests/golden/data."""
    path = DATA / name
    if os.environ.get("REWRITE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing: run once with REWRITE_GOLDEN=1 and look at what it says"
    assert text == path.read_text()
