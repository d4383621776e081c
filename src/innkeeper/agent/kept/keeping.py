"""Small files that an agent keeps: replaced as a whole, so that kill -9 leaves the old text or the new one."""

from __future__ import annotations

import os
from pathlib import Path


def keep(path: Path, text: str) -> None:
    """Not flushed to the disk: what must outlive a power failure is in the store.

    Raises:
        OSError: above all, no room; then the old text stands.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
