"""Reading beside the writer: a thread of its own with a connection of its own, so that neither ever waits for the
other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from innkeeper.store.board import closed
from innkeeper.store.database import sqlite

T = TypeVar("T")


class Reader:
    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-reader")
        self._closed = False

    async def read(self, query: Callable[[Connection], T]) -> T:
        """The query's result, of what is committed.

        Raises:
            StoreFailed: the database cannot be read, or a row in it is damaged.
        """
        if self._closed:
            raise closed()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._query, query)

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self._engine.dispose()

    def _query(self, query: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return query(connection)
        except sqlite.FAILURES as error:
            raise sqlite.failure(self._path, error) from error
