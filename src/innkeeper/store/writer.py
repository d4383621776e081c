"""The one thread that writes, and its group commit.

A commit costs milliseconds of waiting for the disk, however much is in it. So whoever calls while one is under way
waits, and all who wait are carried out together in the next: evaluated one after the other on one draft, written with
a handful of statements, committed once, published once, answered.

    callers ──queue──▶ evaluate on a draft ─▶ flush ─▶ (crash point) commit (crash point) ─▶ publish on the loop, answer

What fails for one caller concerns only him: his part of the draft is rewound. What fails for the database (no room, a
disk that refuses) fails for all of the batch, and nothing is published; the next batch tries anew on a fresh
connection. Should the database refuse rows, the batch is done again one caller at a time, so that only the guilty one
hears of it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from innkeeper.model.work import Operation
from innkeeper.ports.store import StoreFailed
from innkeeper.store.board import Board, Publication, closed
from innkeeper.store.database import schema, sqlite
from innkeeper.store.work.earlier import earlier
from innkeeper.store.work.flush import flush
from innkeeper.store.work.prune import KEEP, Keep, Past, prune
from innkeeper.store.work.standing import Draft

T = TypeVar("T")
OnCommit = Callable[[int], None]
_MOST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """`keep` is how much of the past is kept.

    `on_commit` is a seam for tests: crash points. It is called with 1, 3, 5 … just before and 2, 4, 6 … just after each
    commit. What it raises kills the store as kill -9 would at that instant: nothing is published, and all that is left
    to callers is that exception.
    """

    path: Path
    keep: Keep = KEEP
    on_commit: OnCommit | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    evaluate: Callable[[Draft], Any]
    keys: tuple[str, ...]
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Answer:
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class _Death(BaseException):
    """The crash point's exception on its way out of the thread."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Writer:
    def __init__(self, engine: Engine, board: Board, past: Past, options: WriterOptions) -> None:
        self._engine = engine
        self._board = board
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._standing = board.standing
        self._past = past
        self._points = 0
        self._connection: Connection | None = None
        self._death: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    async def ask(self, evaluate: Callable[[Draft], T], keys: Sequence[str] = ()) -> T:
        """Evaluates on the draft of the next batch; returns when that is committed and published.

        Raises:
            StoreFailed: nothing of it was written.
        """
        if self._closing:
            raise self._death or closed()
        answer: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(evaluate, tuple(keys), answer))
        return await answer

    async def close(self) -> None:
        """Writes what waits, then ends the thread. May be repeated."""
        self._closing = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._board.close(self._death or closed())

    # --- the thread

    def _run(self) -> None:
        going = True
        while going:
            jobs, going = self._collect()
            try:
                if self._death is None and jobs:
                    self._serve(jobs)
            except BaseException as death:
                self._die(death.cause if isinstance(death, _Death) else death)
            if self._death is not None:
                self._tell(None, [_Answer(job.answer, error=self._death) for job in jobs])
        self._disconnect()

    def _collect(self) -> tuple[list[_Job], bool]:
        """All who wait; at least one, unless it is over."""
        jobs: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _MOST:
                return jobs, True
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _serve(self, jobs: list[_Job]) -> None:
        try:
            news, answers = self._transact(jobs)
        except sqlite.FAILURES as error:
            self._disconnect()
            if isinstance(error, IntegrityError) and len(jobs) > 1:
                self._serve_singly(jobs)
                return
            failed = sqlite.failure(self._options.path, error)
            self._tell(None, [_Answer(job.answer, error=failed) for job in jobs])
        except Exception as error:
            self._disconnect()
            if len(jobs) > 1:
                self._serve_singly(jobs)
                return
            self._tell(None, [_Answer(jobs[0].answer, error=error)])
        else:
            self._tell(news, answers)

    def _serve_singly(self, jobs: list[_Job]) -> None:
        for job in jobs:
            self._serve([job])

    def _transact(self, jobs: list[_Job]) -> tuple[Publication | None, list[_Answer]]:
        connection = self._connect()
        with connection.begin():
            keys = {key for job in jobs for key in job.keys}
            draft = Draft(self._standing, earlier(connection, keys))
            answers = [_evaluated(draft, job) for job in jobs]
            if draft.empty:
                return None, answers
            flush(connection, draft)
            past = prune(connection, self._past.after(draft), draft.revision, self._options.keep)
            self._crash_point()
        self._crash_point()
        standing = replace(draft.standing, cluster=replace(draft.cluster, revision=draft.revision))
        self._standing, self._past = standing, past
        return _news(draft, past.floor, standing), answers

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            self._compare(self._connection)
        return self._connection

    def _compare(self, connection: Connection) -> None:
        """A disk that reported an error may have kept the commit all the same; then memory no longer knows what is
        true."""
        with connection.begin():
            found = connection.execute(select(func.max(schema.events.c.revision))).scalar() or 0
        if found != self._standing.cluster.revision:
            raise _Death(
                StoreFailed(
                    f"database {self._options.path}: it stands at revision {found}, this program at "
                    f"{self._standing.cluster.revision}: the disk kept what it had reported as failed, or "
                    "another program has written. This daemon ends: one that is started anew reads everything again, "
                    "and operations go on"
                )
            )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _crash_point(self) -> None:
        self._points += 1
        if self._options.on_commit is None:
            return
        try:
            self._options.on_commit(self._points)
        except BaseException as death:
            raise _Death(death) from death

    def _die(self, death: BaseException) -> None:
        self._death = death
        self._call(self._board.close, death)  # first: whatever else fails, it is heard of
        self._disconnect()

    def _tell(self, news: Publication | None, answers: list[_Answer]) -> None:
        self._call(_deliver, self._board, news, answers)

    def _call(self, what: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError as error:
            # The loop was closed under us, so nobody is left who could be told; what was committed stands.
            self._death = self._death or error


def _evaluated(draft: Draft, job: _Job) -> _Answer:
    mark = draft.mark()
    try:
        return _Answer(job.answer, job.evaluate(draft))
    except Exception as error:
        draft.rewind(mark)
        return _Answer(job.answer, error=error)


def _news(draft: Draft, floor: int, standing: Any) -> Publication:
    begun = tuple(id for id, _ in draft.accepted if id in standing.plans)
    changed: tuple[Operation, ...] = tuple(draft.latest.values())
    return Publication(standing=standing, changed=changed, begun=begun, events=tuple(draft.events), floor=floor)


def _deliver(board: Board, news: Publication | None, answers: list[_Answer]) -> None:
    if news is not None:
        board.publish(news)
    for answer in answers:
        if answer.future.done():
            continue  # the caller was cancelled meanwhile
        if answer.error is not None:
            answer.future.set_exception(answer.error)
        else:
            answer.future.set_result(answer.value)
