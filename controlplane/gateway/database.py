"""PostgreSQL from the event loop: synchronous sessions on one small thread pool.

Made by `lifecycle`; used by everything in the gateway that asks the database, never per chunk.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import exc
from sqlalchemy.orm import Session

from controlplane.db import open_engine, session_factory
from controlplane.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")

# What SQLAlchemy raises when the server is gone, starting, or has no connection to spare.
OUTAGES = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)


class _TooLate(Exception):
    """Nobody waits for the transaction any more: it must not commit."""


class Database:
    """Runs functions of a session in transactions off the event loop.

    Args:
        timeout_seconds: how long `run_in_time` waits; a server that is frozen, or behind a broken
            network, refuses nothing: it is silent.
    """

    def __init__(self, database_url: str, *, pool_size: int, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._engine = open_engine(database_url, pool_size=pool_size, by_index=True)
        self._threads = ThreadPoolExecutor(pool_size, thread_name_prefix="database")
        self.sessions = session_factory(self._engine)

    async def run(
        self, function: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return `function(session, ...)`, run in one transaction.

        Raises:
            Unavailable: the database is down.
        """

        def transact() -> R:
            with self.sessions.begin() as session:
                return function(session, *args, **kwargs)

        return await self.off_loop(transact)

    async def run_in_time(
        self, function: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """As `run`, for what a client waits for. What is late is rolled back, unless its commit is
        under way already.

        Raises:
            Unavailable: the database is down, or silent for too long.
        """
        nobody_waits = threading.Event()

        def transact(session: Session) -> R:
            result = function(session, *args, **kwargs)
            if nobody_waits.is_set():
                raise _TooLate
            return result

        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self.run(transact)
        except TimeoutError as error:
            nobody_waits.set()
            message = "the database does not answer"
            raise Unavailable(message, code="database_unavailable") from error

    async def off_loop(self, function: Callable[[], R]) -> R:
        """Return `function()`, run on a database thread; raises as `run` does."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, function)
        except OUTAGES as error:
            raise Unavailable("the database is unavailable", code="database_unavailable") from error

    def close(self) -> None:
        """Let running functions end and close all connections."""
        self._threads.shutdown()
        self._engine.dispose()
