"""The usage journal: what every request used, on disk before its answer ends.

A generation opens a row with `begin` and closes it with `end`. One thread writes: what is asked of
it during one write to the disk goes into the next, so that concurrent requests share it and the
event loop never waits. While the disk takes nothing, new requests are refused and ended ones
remembered.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.errors import Unavailable
from worker.server.journal_store import JournalStore, Row

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
PRUNE_SECONDS = 600.0
UNAVAILABLE = "this worker cannot record usage now"

# What a future, if anybody waits, shall give or raise.
_Result = tuple[asyncio.Future[Any] | None, Any, Exception | None]


@dataclass(frozen=True, slots=True)
class _Begin:
    snapshot: Callable[[], Row]
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _End:
    row: Row
    done: asyncio.Future[None] | None


@dataclass(frozen=True, slots=True)
class _Query:
    read: Callable[[JournalStore], list[dict[str, Any]]]
    done: asyncio.Future[list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


class Journal:
    """Every coroutine and `end_soon` is for the event loop that `start` was called on."""

    def __init__(self, store: JournalStore, *, keep_hours: float) -> None:
        self._store = store
        self._keep_seconds = keep_hours * 3600
        self._commands: queue.SimpleQueue[_Begin | _End | _Query | _Stop] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._failed: str | None = None
        # The writing thread's own:
        self._running: dict[str, tuple[Callable[[], Row], Row]] = {}  # with what is on disk
        self._unwritten: list[Row] = []

    def start(self) -> None:
        """Begin to write."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and close the database. Blocks."""
        self._commands.put(_Stop())
        self._thread.join()

    def unavailable_reason(self) -> Unavailable | None:
        """Why new requests must be refused; None when they need not."""
        failed = self._failed
        return None if failed is None else Unavailable("journal_unavailable", UNAVAILABLE)

    async def begin(self, snapshot: Callable[[], Row]) -> None:
        """Open a row, on disk when this returns; `snapshot` tells its present state, in another
        thread, until its end. Raises Unavailable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._commands.put(_Begin(snapshot, done))
        await done

    async def end(self, row: Row) -> None:
        """Close a row. On disk when this returns, or remembered until the disk takes it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._commands.put(_End(row, done))
        await done

    def end_soon(self, row: Row) -> None:
        """Close a row for which nobody waits."""
        self._commands.put(_End(row, None))

    async def find(self, request_id: str) -> list[dict[str, Any]]:
        """All attempts at a request, oldest first."""
        return await self._query(lambda store: store.find(request_id))

    async def ended_after(self, after_us: int, limit: int) -> list[dict[str, Any]]:
        """The first `limit` attempts that ended later, in the order of their ends."""
        return await self._query(lambda store: store.ended_after(after_us, limit))

    async def _query(
        self, read: Callable[[JournalStore], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        done: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        self._commands.put(_Query(read, done))
        return await done

    def _run(self) -> None:
        refresh_at = prune_at = time.monotonic()
        stopping = False
        while not stopping:
            commands = self._take(refresh_at - time.monotonic())
            stopping = any(isinstance(c, _Stop) for c in commands)
            queries = [c for c in commands if isinstance(c, _Query)]
            now = time.monotonic()
            due = now >= refresh_at
            refresh_at = now + REFRESH_SECONDS if due else refresh_at
            self._write(
                [c for c in commands if isinstance(c, _Begin)],
                [c for c in commands if isinstance(c, _End)],
                refresh=due or bool(queries),
            )
            for query in queries:
                self._answer(query)
            if now >= prune_at:
                prune_at = now if self._prune() else now + PRUNE_SECONDS
        for row in self._unwritten:
            logger.error("usage that could not be recorded: %s", row)
        self._store.close()

    def _take(self, seconds: float) -> list[_Begin | _End | _Query | _Stop]:
        """All that has been asked, waiting at most so long for something."""
        commands = []
        try:
            commands.append(self._commands.get(timeout=max(0.0, seconds)))
            while True:
                commands.append(self._commands.get_nowait())
        except queue.Empty:
            return commands

    def _write(self, begun: list[_Begin], ended: list[_End], *, refresh: bool) -> None:
        opened = [(begin.snapshot, begin.snapshot()) for begin in begun]
        changed = self._changed() if refresh else []
        ends = [*self._unwritten, *(end.row for end in ended)]
        rows = [row for _, row in [*opened, *changed]]
        error: Unavailable | None = None
        try:
            if rows or ends:
                self._store.write(rows, ends)
            elif self._failed is not None:
                self._store.probe()
            self._note_failure(None)
            self._running |= {row.attempt_id: (snapshot, row) for snapshot, row in opened + changed}
            self._unwritten = []
        except sqlite3.Error as reason:
            self._note_failure(str(reason))
            error = self.unavailable_reason()
            self._unwritten = ends
        for end in ended:
            self._running.pop(end.row.attempt_id, None)
        self._tell([(begin.done, None, error) for begin in begun])
        self._tell([(end.done, None, None) for end in ended])

    def _changed(self) -> list[tuple[Callable[[], Row], Row]]:
        """The running rows that are not on disk as they are now."""
        now = [(snapshot, snapshot(), written) for snapshot, written in self._running.values()]
        return [(snapshot, row) for snapshot, row, written in now if row != written]

    def _answer(self, query: _Query) -> None:
        try:
            self._tell([(query.done, query.read(self._store), None)])
        except sqlite3.Error as reason:
            self._note_failure(str(reason))
            self._tell([(query.done, None, self.unavailable_reason())])

    def _prune(self) -> bool:
        """Delete some of what is too old; whether there may be more."""
        try:
            return self._store.prune(int((time.time() - self._keep_seconds) * 1e6))
        except sqlite3.Error as reason:
            self._note_failure(str(reason))
            return False

    def _note_failure(self, reason: str | None) -> None:
        if reason is not None and self._failed is None:
            logger.error("usage cannot be recorded, new requests are refused: %s", reason)
        if reason is None and self._failed is not None:
            logger.warning("usage is recorded again")
        self._failed = reason

    def _tell(self, results: list[_Result]) -> None:
        """Settle futures on their event loop."""
        assert self._loop is not None
        if results and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_settle, results)


def _settle(results: list[_Result]) -> None:
    for future, value, error in results:
        if future is None or future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
