"""What this gateway has in flight and in waiting, told every half second. Run by `lifecycle`.

A report is made in one moment, on the event loop's thread: no request is between its choice and its
count, nor counted twice. It may arrive late, but never says of a draining replica what could still
change for the worse. A report that cannot be written is not made up for: the next says all.
"""

import asyncio
import contextlib

import redis

from controlplane.gateway.router import Router
from controlplane.gateway.waiting import WaitingRoom
from controlplane.registry import gateways
from controlplane.registry.gateways import GatewayReport
from controlplane.store import Store

REPORT_SECONDS = 0.5


class Reporter:
    """Publishes reports under the gateway's name; `run` is its task."""

    def __init__(self, store: Store, router: Router, room: WaitingRoom, gateway: str) -> None:
        self._store = store
        self._router = router
        self._room = room
        self._gateway = gateway
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            report = self._router.report(self._gateway, self._room.held())
            self._writing = asyncio.create_task(asyncio.to_thread(self._publish, report))
            # A thread cannot be cancelled, and `withdraw` must not be overtaken by it.
            await asyncio.shield(self._writing)
            await asyncio.sleep(REPORT_SECONDS)

    async def withdraw(self) -> None:
        """Take the report back, for a gateway that has ended cleanly; `run` has been cancelled."""
        if self._writing is not None:
            await self._writing
        await asyncio.to_thread(self._withdraw)

    def _publish(self, report: GatewayReport) -> None:
        with contextlib.suppress(redis.RedisError):
            gateways.TABLE.publish(self._store, self._gateway, report)

    def _withdraw(self) -> None:
        with contextlib.suppress(redis.RedisError):
            gateways.TABLE.withdraw(self._store, self._gateway)
