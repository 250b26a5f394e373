"""Holds in micro-batches: requests arriving together share a transaction. Called by `admission`.

One batch is with the database at a time; whatever arrives meanwhile is the next batch. Under load
batches grow by themselves and each account's row is locked once a batch, not once a request.
"""

import asyncio
import logging
import time
import uuid

from controlplane.accounts import holds
from controlplane.accounts.bounds import HoldPlan
from controlplane.accounts.epochs import EpochClosed
from controlplane.accounts.holds import HoldRequest
from controlplane.errors import ControlPlaneError, Unavailable
from controlplane.gateway.database import Database
from controlplane.gateway.telemetry import HOLD_SECONDS

MAX_BATCH = 200
RELEASE_SECONDS = 1.0
# A commit under way when its batch failed may land late, so its holds are looked for this long from
# the database's first answer on: all the while it is frozen, a commit can wait in it.
DOUBT_SECONDS = 60.0

_log = logging.getLogger(__name__)

Waiting = tuple[HoldRequest, "asyncio.Future[HoldPlan]"]


class HoldBatcher:
    """Places holds. `run` and `run_releases` are its tasks.

    `is_replaced` is set for good once another life of this gateway has closed our epoch.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[Waiting] = []
        self._arrival = asyncio.Event()
        # Until when; None while the database has not answered since.
        self._doubtful: dict[uuid.UUID, float | None] = {}
        self.is_replaced = False

    async def place(self, request: HoldRequest) -> HoldPlan:
        """Return the hold that was placed.

        Raises:
            InsufficientBalance: the account cannot cover the request.
            AuthenticationFailed: the key was revoked meanwhile.
            Unavailable: the database is down; a hold placed all the same is released later.
        """
        future: asyncio.Future[HoldPlan] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._arrival.set()
        started = time.perf_counter()
        plan = await future
        HOLD_SECONDS.observe(time.perf_counter() - started)
        return plan

    async def run(self) -> None:
        """Serve `place` until cancelled."""
        while True:
            await self._arrival.wait()
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not self._waiting:
                self._arrival.clear()
            await self._place_batch(batch)

    async def _place_batch(self, batch: list[Waiting]) -> None:
        try:
            outcomes = await self._database.run_in_time(
                holds.place, [request for request, _ in batch]
            )
        except Exception as error:
            # The transaction may have committed before its connection broke, or commit yet.
            self._doubtful.update((request.request_id, None) for request, _ in batch)
            self.is_replaced = self.is_replaced or isinstance(error, EpochClosed)
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, ControlPlaneError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    async def run_releases(self) -> None:
        """Release the holds of failed batches, should they exist, until cancelled."""
        while True:
            await asyncio.sleep(RELEASE_SECONDS)
            if not self._doubtful:
                continue
            asked, asked_at = dict(self._doubtful), time.monotonic()
            try:
                released = await self._database.run(holds.release, list(asked))
            except Unavailable:
                continue
            for request_id, until in asked.items():
                if until is None:
                    self._doubtful[request_id] = time.monotonic() + DOUBT_SECONDS
                elif until <= asked_at:
                    del self._doubtful[request_id]
            if released:
                _log.info("doubtful_holds_released", extra={"requests": released})
