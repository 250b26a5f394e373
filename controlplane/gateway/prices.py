"""The price book's snapshot in memory, read anew every second. Called by `admission`, `catalog`."""

import asyncio
import logging

from controlplane.errors import Unavailable
from controlplane.gateway.database import Database
from controlplane.pricing import book
from controlplane.pricing.snapshot import PriceBook

REFRESH_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Prices:
    """Holds the newest snapshot; the last one stays while the database is down."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.book = PriceBook()

    async def refresh(self) -> None:
        """Read what was published since.

        Raises:
            Unavailable: the database is down.
        """
        self.book = await self._database.run(book.refreshed, self.book)

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except Unavailable as error:
                _log.warning("prices_not_refreshed", extra={"reason": error.message})
