"""`python -m innkeeper.cli` is `inn`."""

from __future__ import annotations

from innkeeper.cli.app import main

main()
