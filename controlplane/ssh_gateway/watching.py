"""Keeps the directory true: tells it of every endpoint that changes, on the event loop's thread.

While the API server is away the last state holds: sessions go on, and the keys known then open.
"""

import asyncio

from controlplane.cluster import Cluster, Object
from controlplane.crd.base import ENDPOINTS
from controlplane.ssh_gateway.directory import Directory
from controlplane.watching.cache import Cache, Change
from controlplane.watching.reflector import Reflector

SYNC_POLL_SECONDS = 0.05


class Watcher:
    """Feeds a directory that lives on `loop`."""

    def __init__(
        self, cluster: Cluster, directory: Directory, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._directory = directory
        self._loop = loop
        self._cache: Cache[Object] = Cache(ENDPOINTS, lambda body: body)
        self._cache.subscribe(self._changed)
        self._reflector = Reflector(cluster, self._cache)

    def start(self) -> None:
        """Begin; call it once."""
        self._reflector.start()

    def stop(self) -> None:
        """Stop telling the directory; a watch under way ends with the cluster's client."""
        self._reflector.stop()

    async def synced(self) -> None:
        """Wait until the directory has been told of every endpoint there is."""
        while not self._cache.synced.is_set():
            await asyncio.sleep(SYNC_POLL_SECONDS)
        await asyncio.sleep(0)  # what was handed to the loop before comes first

    def _changed(self, change: Change) -> None:
        if self._loop.is_closed():
            return
        tell = self._directory.remove if change.new is None else self._directory.update
        self._loop.call_soon_threadsafe(tell, change.body)
