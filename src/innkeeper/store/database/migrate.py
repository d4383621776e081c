"""Brings a database to the present schema, or refuses one that a newer release has written.

All missing migrations run in one transaction: a power cut between two of them leaves the old schema.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from innkeeper.ports.store import StoreFailed

SCRIPTS = Path(__file__).parent.parent / "migrations"


def migrate(engine: Engine, path: Path) -> None:
    """
    Raises:
        StoreFailed: the database is of a newer release.
    """
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with engine.begin() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
        if present is not None and present not in known:
            raise StoreFailed(
                f"database {path}: a newer Innkeeper has written it (schema {present}; this one knows up to "
                f"{scripts.get_current_head()}). Install that release again, or restore a backup from before it"
            )
        if present != scripts.get_current_head():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
