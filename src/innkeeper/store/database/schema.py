"""The tables. What is true lies in four of them; the others follow from those, or guard them.

    objects      the nouns, one row each           | bodies in the codec of model/codec.py, each with a
    machines     what hosts reported of instances  | checksum: SQLite notices few of the bits that a disk
    operations   durable work                      | flips, and a launch from a damaged row would be worse
    plans        what each operation does          | than an error
    records      what happened to operations, appended; an operation's progress is its newest record

    claims, reservations, rooms   follow from the rows above and stand beside them so that the database itself refuses a
                                  second claim, a second holder of a name or address, and a promise beyond a host's room
    events                        the feed; pruned from its old end, as operations that have ended are, apart from it
    secrets                       go with the instance whose row refers to them
    metrics                       stand alone

An operation's row is written when it is accepted and when it ends. In between only records are appended: one small
insert per step at the end of a table, where an update would touch pages all over the file.

Types are portable, and all statements are Core. On PostgreSQL, where several processes write, a revision can no
longer be counted in memory: rows of `events` then carry `pg_current_xact_id()`, and readers stop below
`pg_snapshot_xmin(pg_current_snapshot())`, so that the feed never skips what commits late. Here one thread writes
everything, revisions are committed in their order, and nothing can be skipped.

This file is the present shape, which a new database has at once; `migrations` lead older ones to it. A test compares.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

REVISION = "0001"  # of the newest migration

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# In SQLite only a column of exactly this type is the table's own order, which spares a second tree.
Revision = BigInteger().with_variant(Integer, "sqlite")
_ID = String(64)
_WORD = String(32)


def _body() -> tuple[Column[str], Column[int]]:
    return Column("body", Text, nullable=False), Column("checksum", BigInteger, nullable=False)


objects = Table(
    "objects",
    metadata,
    Column("kind", _WORD, primary_key=True),
    Column("id", _ID, primary_key=True),
    Column("project", _ID, nullable=False),  # empty where there is none, since a unique key sees no two NULLs as one
    Column("name", String(255), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),  # of the newest report that was merged into the row
    *_body(),
    UniqueConstraint("kind", "project", "name"),
)

machines = Table(
    "machines",
    metadata,
    Column("instance", _ID, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    *_body(),
)

operations = Table(
    "operations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("project", _ID, nullable=False),
    Column("parent", _ID, ForeignKey("operations.id", ondelete="CASCADE"), nullable=True, index=True),
    Column("principal", String(255), nullable=False),
    Column("idempotency_key", String(255), nullable=True),
    Column("state", _WORD, nullable=False),
    Column("born", BigInteger, nullable=False),  # the revision of its acceptance: the order of taking
    Column("revision", BigInteger, nullable=False, index=True),
    *_body(),
    UniqueConstraint("idempotency_key", "principal"),
)

plans = Table(
    "plans",
    metadata,
    Column("operation", _ID, ForeignKey("operations.id", ondelete="CASCADE"), primary_key=True),
    *_body(),
)

records = Table(
    "records",
    metadata,
    Column("revision", Revision, primary_key=True, autoincrement=False),
    Column("operation", _ID, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False, index=True),
    *_body(),
)

claims = Table(
    "claims",
    metadata,
    Column("kind", _WORD, primary_key=True),
    Column("id", _ID, primary_key=True),
    Column("operation", _ID, ForeignKey("operations.id"), nullable=False, index=True),
)

reservations = Table(
    "reservations",
    metadata,
    Column("scope", String(128), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("holder", _ID, nullable=False),
)

rooms = Table(
    "rooms",
    metadata,
    Column("host", _ID, primary_key=True),
    Column("vcpus", BigInteger, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("disk_gib", BigInteger, nullable=False),
    Column("vcpus_total", BigInteger, nullable=False),
    Column("memory_total_mib", BigInteger, nullable=False),
    Column("disk_total_gib", BigInteger, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("revision", Revision, primary_key=True, autoincrement=False),
    Column("kind", _WORD, nullable=False),
    Column("ref_kind", _WORD, nullable=True),
    Column("ref_id", _ID, nullable=True),
    Column("operation", _ID, nullable=True),
    Column("what", String(255), nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("nonce", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

metrics = Table(
    "metrics",
    metadata,
    Column("instance", _ID, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column("cpu_avg", Float, nullable=False),
    Column("cpu_max", Float, nullable=False),
    Column("memory_avg_mib", Float, nullable=False),
    Column("memory_max_mib", Float, nullable=False),
    Column("disk_read_avg", Float, nullable=False),
    Column("disk_read_max", Float, nullable=False),
    Column("disk_written_avg", Float, nullable=False),
    Column("disk_written_max", Float, nullable=False),
    Column("net_received_avg", Float, nullable=False),
    Column("net_received_max", Float, nullable=False),
    Column("net_sent_avg", Float, nullable=False),
    Column("net_sent_max", Float, nullable=False),
    Index("ix_metrics_at", "at"),
)
