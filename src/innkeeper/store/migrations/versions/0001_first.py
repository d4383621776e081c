"""The first schema.

Written out, not taken from schema.py: a migration must do in ten years what it does today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _truth()
    _guards()
    op.create_table(
        "events",
        sa.Column("revision", _revision(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("ref_kind", sa.String(32)),
        sa.Column("ref_id", sa.String(64)),
        sa.Column("operation", sa.String(64)),
        sa.Column("what", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_events"),
    )
    op.create_table(
        "secrets",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("nonce", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_secrets"),
    )
    _metrics()


def _revision() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _body() -> tuple[sa.Column[str], sa.Column[int]]:
    return sa.Column("body", sa.Text, nullable=False), sa.Column("checksum", sa.BigInteger, nullable=False)


def _truth() -> None:
    op.create_table(
        "objects",
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        *_body(),
        sa.PrimaryKeyConstraint("kind", "id", name="pk_objects"),
        sa.UniqueConstraint("kind", "project", "name", name="uq_objects_kind"),
    )
    op.create_table(
        "machines",
        sa.Column("instance", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        *_body(),
        sa.PrimaryKeyConstraint("instance", name="pk_machines"),
    )
    _operations()


def _operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("parent", sa.String(64)),
        sa.Column("principal", sa.String(255), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("born", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        *_body(),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
        sa.ForeignKeyConstraint(["parent"], ["operations.id"], name="fk_operations_parent", ondelete="CASCADE"),
        sa.UniqueConstraint("idempotency_key", "principal", name="uq_operations_idempotency_key"),
    )
    op.create_index("ix_operations_parent", "operations", ["parent"])
    op.create_index("ix_operations_revision", "operations", ["revision"])
    op.create_table(
        "plans",
        sa.Column("operation", sa.String(64), nullable=False),
        *_body(),
        sa.PrimaryKeyConstraint("operation", name="pk_plans"),
        sa.ForeignKeyConstraint(["operation"], ["operations.id"], name="fk_plans_operation", ondelete="CASCADE"),
    )
    op.create_table(
        "records",
        sa.Column("revision", _revision(), autoincrement=False, nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        *_body(),
        sa.PrimaryKeyConstraint("revision", name="pk_records"),
        sa.ForeignKeyConstraint(["operation"], ["operations.id"], name="fk_records_operation", ondelete="CASCADE"),
    )
    op.create_index("ix_records_operation", "records", ["operation"])


def _guards() -> None:
    op.create_table(
        "claims",
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name="pk_claims"),
        sa.ForeignKeyConstraint(["operation"], ["operations.id"], name="fk_claims_operation"),
    )
    op.create_index("ix_claims_operation", "claims", ["operation"])
    op.create_table(
        "reservations",
        sa.Column("scope", sa.String(128), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_reservations"),
    )
    amounts = ("vcpus", "memory_mib", "disk_gib", "vcpus_total", "memory_total_mib", "disk_total_gib")
    op.create_table(
        "rooms",
        sa.Column("host", sa.String(64), nullable=False),
        *(sa.Column(amount, sa.BigInteger, nullable=False) for amount in amounts),
        sa.PrimaryKeyConstraint("host", name="pk_rooms"),
    )


def _metrics() -> None:
    op.create_table(
        "metrics",
        sa.Column("instance", sa.String(64), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in _MEASURES),
        sa.PrimaryKeyConstraint("instance", "at", name="pk_metrics"),
    )
    op.create_index("ix_metrics_at", "metrics", ["at"])


_MEASURES = (
    "cpu_avg",
    "cpu_max",
    "memory_avg_mib",
    "memory_max_mib",
    "disk_read_avg",
    "disk_read_max",
    "disk_written_avg",
    "disk_written_max",
    "net_received_avg",
    "net_received_max",
    "net_sent_avg",
    "net_sent_max",
)
