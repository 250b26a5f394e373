"""Ended requests from the journal to PostgreSQL, where settlement finds them. Called by `meter`.

Traces are staged in batches off the request path, again and again while the database is down; only
then may the journal forget them.
"""

import asyncio
import logging

from controlplane.errors import Unavailable
from controlplane.gateway.database import Database
from controlplane.gateway.telemetry import UNSHIPPED
from controlplane.usage import sink
from controlplane.usage.journal import Journal
from controlplane.usage.traces import Trace

MAX_BATCH = 500
RETRY_SECONDS = 0.5
# Nobody waits for staging: a short pause makes one transaction of many.
LINGER_SECONDS = 0.05

_log = logging.getLogger(__name__)


class Shipper:
    """Stages traces; `run` is its task."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal
        self._pending: list[Trace] = []
        self._arrival = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, trace: Trace) -> None:
        """Take over an ended request."""
        self._pending.append(trace)
        UNSHIPPED.set(len(self._pending))
        self._idle.clear()
        self._arrival.set()

    async def drained(self) -> None:
        """Wait until everything added has been staged."""
        await self._idle.wait()

    async def run(self) -> None:
        """Stage what is added until cancelled."""
        while True:
            await self._arrival.wait()
            await asyncio.sleep(LINGER_SECONDS)
            batch = self._pending[:MAX_BATCH]
            try:
                await self._stage(batch)
            except Unavailable as error:
                _log.warning("usage_not_staged", extra={"reason": error.message})
                await asyncio.sleep(RETRY_SECONDS)
                continue
            del self._pending[: len(batch)]
            UNSHIPPED.set(len(self._pending))
            if not self._pending:
                self._arrival.clear()
                self._idle.set()

    async def _stage(self, batch: list[Trace]) -> None:
        try:
            await self._database.run(sink.stage, batch)
        except Unavailable:
            raise
        except Exception:
            if len(batch) == 1:
                # It stays in the journal, where the next start finds it; others must not wait.
                _log.exception(
                    "usage_rejected", extra={"request_id": str(batch[0].opened.request_id)}
                )
                return
            for trace in batch:
                await self._stage([trace])
            return
        self._journal.retire([trace.opened.request_id for trace in batch])
