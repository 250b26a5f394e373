"""What models are called, in memory, read anew every second. Called by `serving` and `catalog`."""

import asyncio
import logging
from collections.abc import Collection, Mapping

from controlplane.errors import ModelNotFound, Unavailable
from controlplane.gateway.database import Database
from controlplane.tenants import offered
from controlplane.tenants.offered import Offered

REFRESH_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Aliases:
    """Holds the newest snapshot; the last one stays while the database is down."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.offered: Mapping[str, Offered] = {}

    def target(self, model: str, own: Collection[str]) -> str:
        """Return the name of the model that serves what is asked of `model`; itself, if no alias.

        Args:
            model: as the request names it.
            own: names of the tenant's own deployments, which come before everybody's.

        Raises:
            ModelNotFound: it is hidden.
        """
        told = self.offered.get(model)
        if told is None or model in own:
            return model
        if not told.visible:
            raise ModelNotFound(f"The model {model!r} does not exist.", param="model")
        return told.alias_of or model

    async def refresh(self) -> None:
        """Read what models are called.

        Raises:
            Unavailable: the database is down.
        """
        self.offered = await self._database.run(offered.current)

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except Unavailable as error:
                _log.warning("aliases_not_refreshed", extra={"reason": error.message})
