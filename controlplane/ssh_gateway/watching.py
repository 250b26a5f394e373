"""Keeps the directory true: a list and a watch of endpoints, for ever, in a thread of its own.

While the API server is away the last state holds: sessions go on, and the keys known then open.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from functools import partial

from prometheus_client import Gauge

from controlplane.cluster import Cluster, ClusterError, Gone, Object
from controlplane.crd.base import ENDPOINTS
from controlplane.ssh_gateway.directory import Directory

WATCH_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 10.0

HEARD_AT = Gauge("flashplane_ssh_directory_heard_timestamp_seconds", "Last word of the API server")

_log = logging.getLogger(__name__)


class Watcher:
    """Feeds a directory that lives on `loop`."""

    def __init__(
        self, cluster: Cluster, directory: Directory, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._cluster = cluster
        self._directory = directory
        self._loop = loop
        self._stopping = threading.Event()
        self.synced = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="ssh-watcher", daemon=True)

    def start(self) -> None:
        """Begin; call it once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop telling the directory; a watch under way ends by itself."""
        self._stopping.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._follow()
                failures = 0
            except Gone:
                continue
            except ClusterError:
                _log.warning("api_server_unavailable")
                pause = min(FIRST_PAUSE_SECONDS * 2.0**failures, LONGEST_PAUSE_SECONDS)
                failures = min(failures + 1, 10)
                self._stopping.wait(pause * random.uniform(0.5, 1.0))

    def _follow(self) -> None:
        items: list[Object] = []
        continuation = ""
        while True:
            page = self._cluster.list(ENDPOINTS, continuation=continuation)
            items += page.items
            continuation = page.continuation
            if not continuation:
                break
        version = page.resource_version
        self._tell(partial(self._directory.replace, items))
        self._tell(self.synced.set)
        while not self._stopping.is_set():
            for event in self._cluster.watch(
                ENDPOINTS, resource_version=version, timeout_seconds=WATCH_SECONDS
            ):
                if self._stopping.is_set():
                    return
                version = event.object["metadata"]["resourceVersion"]
                HEARD_AT.set(time.time())
                if event.type == "DELETED":
                    self._tell(partial(self._directory.remove, event.object))
                elif event.type != "BOOKMARK":
                    self._tell(partial(self._directory.update, event.object))

    def _tell(self, change: Callable[[], None]) -> None:
        if not self._stopping.is_set():
            self._loop.call_soon_threadsafe(change)
