"""Keeps one cache true: lists once, then watches for ever. One thread a resource.

Every end of a watch is normal: servers restart, connections break, old versions are forgotten. It
goes on from the last version where it can, lists anew where it must, and waits after every error.
"""

import logging
import random
import threading
import time
from typing import Any

from controlplane.cluster import Cluster, ClusterError, Gone, NotFound, Object
from controlplane.watching.backoff import delay_seconds
from controlplane.watching.cache import Cache
from controlplane.watching.metrics import RELISTS, WATCH_AGE_SECONDS, WATCH_ERRORS

WATCH_SECONDS = 240.0
ABSENT_KIND_SECONDS = 30.0
HEALTHY_SECONDS = 10.0  # a watch that lasted forgives the failures before it
_log = logging.getLogger(__name__)


class Reflector:
    """A thread that feeds a cache from a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache[Any],
        *,
        namespace: str | None = None,
        labels: str = "",
        optional: bool = False,
        watch_seconds: float = WATCH_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            optional: a kind that is not installed counts as one without objects, asked for again
                now and then; otherwise it is an error that keeps the cache from being synced.
        """
        self.cache = cache
        self._cluster = cluster
        self._namespace = namespace
        self._labels = labels
        self._optional = optional
        self._watch_seconds = watch_seconds
        self._stop = threading.Event()
        self._version: str | None = None  # where to go on; None: list
        self._failures = 0
        self._alive_at: float | None = None  # None: not started
        name = cache.resource.plural
        self._thread = threading.Thread(target=self._run, name=f"watch-{name}", daemon=True)
        WATCH_AGE_SECONDS.labels(name).set_function(self.age_seconds)

    def start(self) -> None:
        """Begin."""
        self._alive_at = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; it does at the watch's next word, or when the client is closed."""
        self._stop.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def age_seconds(self) -> float:
        """Return how long ago the server last gave a sign of life; 0 before the start."""
        return 0.0 if self._alive_at is None else time.monotonic() - self._alive_at

    def round(self, watch_seconds: float) -> None:
        """List where there is no version to go on from, then watch for a while, in this thread.

        Raises:
            ClusterError: the list or the watch broke; the next round goes on as it can.
        """
        if self._version is None:
            self._version = self._list()
        try:
            self._follow(self._version, watch_seconds)
        except Gone:
            self._version = None
            raise

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.round(self._watch_seconds * random.uniform(0.8, 1.0))
                self._failures = 0
            except NotFound as error:
                self._absent(error, began)
            except ClusterError as error:
                self._wait(type(error).__name__, began)
            except Exception:
                # The thread's entry: a defect must not leave the caches silently old.
                _log.exception("watch_failed", extra={"resource": self.cache.resource.plural})
                self._version = None
                self._wait("defect", began)

    def _follow(self, version: str, seconds: float) -> None:
        watch = self._cluster.watch(
            self.cache.resource,
            resource_version=version,
            namespace=self._namespace,
            labels=self._labels,
            timeout_seconds=seconds,
        )
        for event in watch:
            if self._stop.is_set():
                return
            self._alive_at = time.monotonic()
            self.cache.apply(event)
            self._version = event.object["metadata"]["resourceVersion"]
        self._alive_at = time.monotonic()

    def _list(self) -> str:
        bodies: list[Object] = []
        continuation = ""
        while True:
            page = self._cluster.list(
                self.cache.resource,
                namespace=self._namespace,
                labels=self._labels,
                continuation=continuation,
            )
            self._alive_at = time.monotonic()
            bodies += page.items
            continuation = page.continuation
            if not continuation:
                break
        RELISTS.labels(self.cache.resource.plural).inc()
        self.cache.replace(bodies, page.resource_version)
        return page.resource_version

    def _absent(self, error: ClusterError, began: float) -> None:
        self._version = None
        if not self._optional:
            self._wait(type(error).__name__, began)
            return
        self._alive_at = time.monotonic()
        self.cache.replace([], "0")
        self._stop.wait(ABSENT_KIND_SECONDS)

    def _wait(self, error: str, began: float) -> None:
        WATCH_ERRORS.labels(self.cache.resource.plural, error).inc()
        if time.monotonic() - began > HEALTHY_SECONDS:
            self._failures = 0
        self._failures += 1
        _log.info("watch_broke", extra={"resource": self.cache.resource.plural, "reason": error})
        self._stop.wait(delay_seconds(self._failures, longest=30.0))
