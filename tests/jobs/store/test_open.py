"""Opening: a new file, an older or newer schema, damage, keys; and what stands alone: secrets and metrics."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from innkeeper.model.ids import Kind, Ref, SecretId, SecretRef
from innkeeper.model.plans import Drop, Plan, Verb
from innkeeper.ports.store import MetricRow, StoreFailed
from innkeeper.store.database import schema, sqlite
from innkeeper.store.database.migrate import migrate
from innkeeper.store.database.rows import checksum
from innkeeper.store.database.upgrade import upgrade
from innkeeper.store.work import flush
from tests.jobs.store.plans import HOST, Machine, accepted, finish, furnished, launch, opened, plain, refused, seen

SECRET, OTHER = SecretRef(SecretId("s-1")), SecretRef(SecretId("s-2"))
ONE, TWO = Machine(number=1), Machine(number=2)
WITH_SECRET = Machine(number=3, user_data=SECRET)


@contextmanager
def _file(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database by itself, as somebody with an editor sees it."""
    with closing(sqlite3.connect(folder / "innkeeper.db")) as connection:
        yield connection
        connection.commit()


async def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    async with furnished(tmp_path):
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == ["innkeeper.db", "innkeeper.db-shm", "innkeeper.db-wal", "key"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["innkeeper.db", "key"]


async def test_commits_are_as_durable_as_sqlite_can_make_them(tmp_path: Path) -> None:
    async with furnished(tmp_path):
        pass
    engine = sqlite.engine(tmp_path / "innkeeper.db", writing=True)
    with engine.begin() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_migrations_lead_to_the_schema_of_a_new_database(tmp_path: Path) -> None:
    migrated, new = (sqlite.engine(tmp_path / name, writing=True) for name in ("migrated.db", "new.db"))
    with migrated.begin() as connection:
        upgrade(connection, tmp_path / "migrated.db", None)
    migrate(new, tmp_path / "new.db")
    shapes = []
    for engine in (migrated, new):
        with engine.begin() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert context.get_current_revision() == schema.REVISION
            assert compare_metadata(context, schema.metadata) == []
            shapes.append(_shape(connection))
        engine.dispose()
    assert shapes[0] == shapes[1]


def _shape(connection: Connection) -> dict[str, Any]:
    """What a database says of its tables. Columns as SQLite tells them, so that also defaults are compared."""
    seen = inspect(connection)
    return {
        table: (
            connection.exec_driver_sql(f"PRAGMA table_xinfo({table})").all(),
            seen.get_pk_constraint(table),
            sorted(seen.get_foreign_keys(table), key=str),
            sorted(seen.get_unique_constraints(table), key=str),
            sorted(seen.get_indexes(table), key=str),
            sorted(seen.get_check_constraints(table), key=str),
        )
        for table in seen.get_table_names()
    }


def test_the_schema_and_the_guards_are_postgresql_too() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in schema.metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))
    assert "UPDATE rooms SET" in str(flush._GROW_IF_ROOM.compile(dialect=dialect))


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with furnished(tmp_path):
        pass
    with _file(tmp_path) as file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
    before = (tmp_path / "innkeeper.db").read_bytes()
    with pytest.raises(StoreFailed, match="a newer Innkeeper has written it \\(schema 9999; this one knows up to 0001"):
        async with opened(tmp_path):
            pass
    assert (tmp_path / "innkeeper.db").read_bytes() == before


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "innkeeper.db").write_bytes(b"once upon a time " * 1000)
    with pytest.raises(StoreFailed, match="it is no database"):
        async with opened(tmp_path):
            pass


async def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="No such file or directory"):
        async with opened(tmp_path / "nowhere"):
            pass


async def test_opening_is_repeatable(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        cluster = store.pictures.cluster()
    for _ in range(3):
        async with opened(tmp_path) as store:
            assert store.pictures.cluster() == cluster
            assert store.mended == ()


# --- damage


@pytest.mark.parametrize(
    "was, becomes, row",
    [
        (b'"name":"web1"', b'"name":"wec1"', "row instance/i-000000000001 of table objects"),
        (b'"seq":77', b'"seq":76', "row i-000000000001 of table machines"),
        (b'"title":"launch web2', b'"title":"launch wfb2', "row op-2 of table"),
    ],
)
async def test_a_flipped_bit_is_told_with_its_row(tmp_path: Path, was: bytes, becomes: bytes, row: str) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await finish(store, (await store.works.take(1))[0])
        await accepted(store, launch(TWO), "op-2")
        await store.pictures.report([seen(ONE, 77)])
    path = tmp_path / "innkeeper.db"
    content = path.read_bytes()
    assert was in content
    path.write_bytes(content.replace(was, becomes))
    with pytest.raises(StoreFailed, match=row) as failed:
        async with opened(tmp_path):
            pass
    assert "is damaged" in str(failed.value)
    assert "restore" in str(failed.value)


async def test_many_damages_are_told_at_once(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        for n in range(1, 4):
            await accepted(store, launch(Machine(number=n)), f"op-{n}")
    with _file(tmp_path) as file:
        file.execute("UPDATE objects SET checksum = checksum + 1 WHERE kind IN ('instance', 'nic')")
    with pytest.raises(StoreFailed, match="and 1 more rows"):
        async with opened(tmp_path):
            pass


async def test_a_later_codec_is_told(tmp_path: Path) -> None:
    async with furnished(tmp_path):
        pass
    with _file(tmp_path) as file:
        (body,) = file.execute("SELECT body FROM objects WHERE kind = 'host'").fetchone()
        later = body.replace('"v":1', '"v":99')
        file.execute(
            "UPDATE objects SET body = ?, checksum = ? WHERE kind = 'host'",
            (later, checksum("host/h-1", later)),
        )
    with pytest.raises(StoreFailed, match="row host/h-1 of table objects written as version 99"):
        async with opened(tmp_path):
            pass


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE rooms SET vcpus = vcpus + 1",
        "DELETE FROM reservations WHERE scope = 'mac'",
        "UPDATE reservations SET key = '10.0.0.99' WHERE key = '10.0.0.1'",
        "DELETE FROM claims",
    ],
)
async def test_what_only_follows_from_rows_is_mended_and_told(tmp_path: Path, harm: str) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        cluster = store.pictures.cluster()
    with _file(tmp_path) as file:
        assert file.execute(harm).rowcount > 0
    async with opened(tmp_path) as store:
        assert len(store.mended) == 1
        assert "did not follow from the others" in store.mended[0]
        assert plain(store.pictures.cluster()) == plain(cluster)
        await finish(store, (await store.works.take(1))[0])
    async with opened(tmp_path) as store:
        assert store.mended == ()


async def test_the_database_has_the_last_word_on_room(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        with _file(tmp_path) as file:
            file.execute("UPDATE rooms SET vcpus = vcpus_total")
        before = store.pictures.cluster()
        with pytest.raises(StoreFailed, match="host h-1 has less room in the database than in memory"):
            await accepted(store, launch(ONE), "op-1")
        assert store.pictures.cluster() == before
    async with opened(tmp_path) as store:
        assert store.mended != ()
        await accepted(store, launch(ONE), "op-1")


@pytest.mark.parametrize("scope", ["address/net-1", "mac", "uid/h-1"])
async def test_the_database_has_the_last_word_on_reservations(tmp_path: Path, scope: str) -> None:
    key = {"address/net-1": "10.0.0.1", "mac": "52:54:00:00:00:01", "uid/h-1": "1"}[scope]
    async with furnished(tmp_path) as store:
        with _file(tmp_path) as file:
            file.execute("INSERT INTO reservations VALUES (?, ?, 'somebody')", (scope, key))
        with pytest.raises(StoreFailed, match="UNIQUE constraint failed"):
            await accepted(store, launch(ONE), "op-1")
        await accepted(store, launch(TWO), "op-2")


async def test_a_host_is_dropped_with_its_room(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        plan = Plan(verb=Verb.SET_UP, title="remove the host", subjects=(), accept=(Drop(ref=Ref(Kind.HOST, HOST)),))
        await accepted(store, plan, "op-1")
        assert "no room" in (await refused(store, launch(ONE), "op-2")).what
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert not store.pictures.cluster().hosts


async def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        with _file(tmp_path) as file:
            file.execute("DROP TABLE metrics")
        with pytest.raises(StoreFailed, match="no such table: metrics"):
            await store.history.metrics("i-1", 0)


# --- secrets


async def test_secrets_are_sealed_replaced_redeemed_and_discarded(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        with pytest.raises(KeyError):
            await store.secrets.redeem(SECRET)
        await store.secrets.seal({SECRET: b"first words"})
        await store.secrets.seal({SECRET: b"#cloud-config\npassword: open sesame\n", OTHER: b"more"})
        await store.secrets.seal({})
        assert await store.secrets.redeem(OTHER) == b"more"
        await accepted(store, launch(WITH_SECRET), "op-1")
        assert await store.secrets.redeem(SECRET) == b"#cloud-config\npassword: open sesame\n"
    assert b"sesame" not in (tmp_path / "innkeeper.db").read_bytes()
    async with opened(tmp_path) as store:
        assert await store.secrets.redeem(SECRET) == b"#cloud-config\npassword: open sesame\n"
        await store.secrets.discard([])
        await store.secrets.discard([SECRET, SecretRef(SecretId("s-unknown"))])
        with pytest.raises(KeyError):
            await store.secrets.redeem(SECRET)


async def test_a_secret_opens_only_under_its_own_reference_and_key(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await store.secrets.seal({SECRET: b"words"})
        await accepted(store, launch(WITH_SECRET), "op-1")
        with _file(tmp_path) as file:
            file.execute("INSERT INTO secrets SELECT 's-2', nonce, sealed FROM secrets")
        with pytest.raises(StoreFailed, match="secret s-2 does not open"):
            await store.secrets.redeem(SecretRef(SecretId("s-2")))
    (tmp_path / "key").write_bytes(bytes(32))
    async with opened(tmp_path) as store:
        with pytest.raises(StoreFailed, match="secret s-1 does not open"):
            await store.secrets.redeem(SECRET)


async def test_a_key_file_that_is_missing_open_or_short_is_told(tmp_path: Path) -> None:
    key = tmp_path / "key"
    async with furnished(tmp_path):
        pass
    content = key.read_bytes()
    key.unlink()
    async with opened(tmp_path) as store:  # nothing was sealed yet: a new one does no harm
        await store.secrets.seal({SECRET: b"words"})
        await accepted(store, launch(WITH_SECRET), "op-1")
    assert key.read_bytes() != content
    content = key.read_bytes()
    for left, mode, words in (
        (None, 0, "is missing, and the database holds secrets"),
        (content, 0o644, "is open to other users"),
        (content[:20], 0o600, "it has 20 bytes, not 32"),
    ):
        key.unlink(missing_ok=True)
        if left is not None:
            key.write_bytes(left)
            key.chmod(mode)
        with pytest.raises(StoreFailed, match=words):
            async with opened(tmp_path):
                pass


# --- metrics


def _row(instance: str, at: int, value: float = 1.0) -> MetricRow:
    measures = [name for name in MetricRow.__dataclass_fields__ if name not in ("instance", "at")]
    return MetricRow(instance=instance, at=at, **dict.fromkeys(measures, value))


async def test_metrics_are_kept_replaced_and_forgotten(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        many = [_row(f"i-{n}", 300) for n in range(1000)]
        await store.history.keep([*many, _row("i-1", 600)], 0)
        await store.history.keep([_row("i-1", 600, 2.0), _row("i-1", 900)], 0)
        assert await store.history.metrics("i-1", 0) == (_row("i-1", 300), _row("i-1", 600, 2.0), _row("i-1", 900))
        assert await store.history.metrics("i-1", 600) == (_row("i-1", 600, 2.0), _row("i-1", 900))
    async with opened(tmp_path) as store:
        assert await store.history.metrics("i-999", 0) == (_row("i-999", 300),)
        await store.history.keep([], 600)
        assert await store.history.metrics("i-999", 0) == ()
        assert len(await store.history.metrics("i-1", 0)) == 2
