"""Keeps deliveries going on a thread of its own, so that the jobs' ticks never wait for a receiver.

Called by the jobs. What is on its way when the process dies is claimed again when its lease ends.
"""

import asyncio
import threading
from concurrent.futures import Future, wait
from datetime import UTC, datetime

from sqlalchemy.orm import Session, sessionmaker

from controlplane.webhooks import delivery
from controlplane.webhooks.delivery import Terms

MOST_AT_ONCE = 64


class Courier:
    """Sends what is due, at most `MOST_AT_ONCE` at the same time."""

    def __init__(self, sessions: sessionmaker[Session], terms: Terms) -> None:
        self._sessions = sessions
        self._terms = terms
        self._loop = asyncio.new_event_loop()
        self._on_their_way: set[Future[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def tick(self) -> int:
        """Set off with what is due and return how much that was.

        Raises:
            sqlalchemy.exc.OperationalError: the database is down.
        """
        self._on_their_way = {future for future in self._on_their_way if not future.done()}
        free = MOST_AT_ONCE - len(self._on_their_way)
        with self._sessions.begin() as session:
            claimed = delivery.claim(session, self._terms, datetime.now(UTC), limit=free)
        for one in claimed:
            sent = delivery.deliver(self._sessions, one, self._terms)
            self._on_their_way.add(asyncio.run_coroutine_threadsafe(sent, self._loop))
        return len(claimed)

    def close(self, timeout_seconds: float) -> None:
        """Wait for what is on its way, then stop."""
        wait(self._on_their_way, timeout=timeout_seconds)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
