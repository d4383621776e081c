"""The store: the only memory that matters. Opens, migrates and reads a database, and offers it through the ports."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import OperationId
from innkeeper.model.observed import State
from innkeeper.model.work import Operation, OperationState, Record, Stale, Submission, Work
from innkeeper.ports.store import StoreFailed
from innkeeper.store.board import Board
from innkeeper.store.database import schema, sqlite
from innkeeper.store.database.migrate import migrate
from innkeeper.store.history import MetricHistory
from innkeeper.store.journal import Chronicle
from innkeeper.store.reader import Reader
from innkeeper.store.secrets import SealedSecrets, key_from
from innkeeper.store.work import record, submit
from innkeeper.store.work.load import Loaded, load
from innkeeper.store.work.prune import KEEP, Keep, Past
from innkeeper.store.writer import OnCommit, Writer, WriterOptions


class Present:
    """ports.store.Pictures."""

    def __init__(self, board: Board, writer: Writer) -> None:
        self._board = board
        self._writer = writer

    def cluster(self) -> Cluster:
        return self._board.standing.cluster

    async def report(self, states: Sequence[State]) -> None:
        await self._writer.ask(lambda draft: record.report(draft, states))


class Ledger:
    """ports.store.Works."""

    def __init__(self, board: Board, writer: Writer, journal: Chronicle) -> None:
        self._board = board
        self._writer = writer
        self._journal = journal

    async def submit(self, submissions: Sequence[Submission]) -> tuple[Operation | Stale, ...]:
        keys = [submission.key for submission in submissions if submission.key is not None]
        return await self._writer.ask(lambda draft: submit.submit(draft, submissions), keys)

    async def earlier(self, principal: str, key: str) -> Operation | None:
        return await self._journal.earlier(principal, key)

    async def take(self, limit: int) -> tuple[Work, ...]:
        return await self._board.take(limit)

    async def record(self, happened: Record) -> bool:
        return await self._writer.ask(lambda draft: record.record(draft, happened))

    async def cancel(self, operation: OperationId) -> Operation | None:
        cancelled = await self._writer.ask(lambda draft: record.cancel(draft, operation))
        return cancelled or await self._journal.exact(operation)

    def cancel_wanted(self, operation: OperationId) -> bool:
        known = self._board.operation(operation)
        # One that is not even remembered ended long ago: nobody should be working on it.
        return known is None or known.cancel_wanted or known.state is OperationState.CANCELLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """`mended` says what was put right while opening; normally nothing."""

    pictures: Present
    works: Ledger
    journal: Chronicle
    secrets: SealedSecrets
    history: MetricHistory
    mended: tuple[str, ...]
    board: Board
    writer: Writer
    reader: Reader

    async def death(self) -> StoreFailed:
        """Why nothing will ever be written again, once that is so: this process can only be started anew.

        What fails and may succeed later, as on a full disk, is no death.
        """
        why = await self.board.over()
        if isinstance(why, StoreFailed):
            return why
        failed = StoreFailed(f"what writes the database failed in a way nobody thought of: {why!r}")
        failed.__cause__ = why
        return failed

    async def close(self) -> None:
        """Writes what waits. Everybody who still waits for something gets StoreFailed. May be repeated."""
        await self.writer.close()
        await self.reader.close()


async def open_store(path: Path, key_file: Path, *, keep: Keep = KEEP, on_commit: OnCommit | None = None) -> Store:
    """The store in the database file `path`, made or migrated if need be. `on_commit`: see WriterOptions.

    The caller holds the lock on the data directory: a second store on the same file would not know of the first's
    changes.

    Raises:
        StoreFailed: it cannot be opened, is of a newer release, is damaged, or the key file is missing; says what to
        do.
    """
    loaded, key = await asyncio.to_thread(_prepare, path, key_file)
    board = Board(loaded)
    reader = Reader(sqlite.engine(path, writing=False), path)
    options = WriterOptions(path=path, keep=keep, on_commit=on_commit)
    past = Past(floor=loaded.floor, ended=loaded.ended)
    writer = Writer(sqlite.engine(path, writing=True), board, past, options)
    journal = Chronicle(board, reader)
    return Store(
        pictures=Present(board, writer),
        works=Ledger(board, writer, journal),
        journal=journal,
        secrets=SealedSecrets(writer, reader, key),
        history=MetricHistory(writer, reader),
        mended=loaded.mended,
        board=board,
        writer=writer,
        reader=reader,
    )


def _prepare(path: Path, key_file: Path) -> tuple[Loaded, bytes]:
    try:
        engine = sqlite.engine(path, writing=True)
        try:
            migrate(engine, path)
            with engine.begin() as connection:
                loaded = load(connection)
                sealed = bool(connection.execute(select(func.count()).select_from(schema.secrets)).scalar())
        finally:
            engine.dispose()
        return loaded, key_from(key_file, sealed=sealed)
    except sqlite.FAILURES as error:
        raise sqlite.failure(path, error) from error
