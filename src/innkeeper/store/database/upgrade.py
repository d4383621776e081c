"""Brings a database that an older release has written to the present schema, or refuses one of a newer release.

All missing migrations run in one transaction: a power cut between two of them leaves the old schema.

A module of its own, since Alembic and what it brings hold 9 MiB for as long as the daemon lives: see migrate.py.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from innkeeper.ports.store import StoreFailed

SCRIPTS = Path(__file__).parent.parent / "migrations"


def upgrade(connection: Connection, path: Path, present: str | None) -> None:
    """From the schema `present`; None: from nothing.

    Raises:
        StoreFailed: the database is of a newer release.
    """
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    if present is not None and present not in known:
        raise StoreFailed(
            f"database {path}: a newer Innkeeper has written it (schema {present}; this one knows up to "
            f"{scripts.get_current_head()}). Install that release again, or restore a backup from before it"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
