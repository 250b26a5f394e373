"""The loop of one kind: take a key, plan its round from the caches, carry the plan out.

`main` makes controllers of reconcile functions and starts them once the caches are synced. A round
that fails comes back by itself, later each time; one that succeeds says when to look again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from controlplane.cluster import ClusterError, Forbidden, Invalid, Unreachable
from controlplane.operator.actions import Plan
from controlplane.operator.runtime.executor import Executor
from controlplane.operator.runtime.metrics import (
    QUEUED_KEYS,
    ROUND_SECONDS,
    ROUNDS,
    WAITED_SECONDS,
)
from controlplane.operator.runtime.queue import WorkQueue
from controlplane.watching.cache import Cache, Change, Key

MOOT_SECONDS = 30.0  # until a look at what seemed to have gone, should no change tell
_log = logging.getLogger(__name__)


class Controller:
    """Worker threads that keep the objects of one kind true."""

    def __init__(
        self,
        name: str,
        reconcile: Callable[[Key], Plan],
        executor: Executor,
        *,
        workers: int = 4,
        queue: WorkQueue | None = None,
    ) -> None:
        """Prepare.

        Args:
            name: in metrics and logs.
            reconcile: reads caches and signals and returns the plan of one key, which may be one
                of an object that is gone. Called by several threads, never twice at once for a key.
            queue: one that others add to as well; by default a new one.
        """
        self.name = name
        self.queue = queue or WorkQueue()
        self._reconcile = reconcile
        self._executor = executor
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(workers)
        ]
        QUEUED_KEYS.labels(name).set_function(self.queue.waiting)

    def on_change(
        self, cache: Cache[Any], keys: Callable[[Change], Iterable[Key]] | None = None
    ) -> None:
        """Ask for rounds when a cache changes.

        Args:
            keys: whose rounds a change asks for; by default the changed object's own, and what
                somebody asked for overtakes what merely happened.
        """

        def handle(change: Change) -> None:
            if keys is None:
                self.queue.add(change.key, urgent=change.asked)
                return
            for key in keys(change):
                self.queue.add(key)

        cache.subscribe(handle)

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing more; rounds that run end."""
        self.queue.close()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the rounds that run; return whether all have ended."""
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def step(self, timeout_seconds: float | None = 0.0) -> bool:
        """Do the next round in this thread; return whether one came in time. None: wait for it."""
        taken = self.queue.get(timeout_seconds)
        if taken is None:
            return False
        key, waited_seconds = taken
        WAITED_SECONDS.labels(self.name).observe(waited_seconds)
        with ROUND_SECONDS.labels(self.name).time():
            outcome = self._round(key)
        ROUNDS.labels(self.name, outcome).inc()
        return True

    def _work(self) -> None:
        while self.step(None):
            pass

    def _round(self, key: Key) -> str:
        try:
            plan = self._reconcile(key)
            done = self._executor.execute(plan)
        except ClusterError as error:
            wait = error.retry_after_seconds if isinstance(error, Unreachable) else None
            # What passes by itself is no news for a status.
            told = str(error) if isinstance(error, Forbidden | Invalid) else ""
            self.queue.failed(key, told, at_least_seconds=wait)
            fields = self._fields(key) | {"reason": type(error).__name__}
            # These do not go away by waiting: somebody has to see to them.
            lasting = isinstance(error, Invalid | Forbidden)
            _log.log(logging.WARNING if lasting else logging.INFO, "round_failed", extra=fields)
            return type(error).__name__
        except Exception as error:
            # The workers' entry: a defect met by one object must not end the rounds of the others.
            self.queue.failed(key, f"defect: {type(error).__name__}")
            _log.exception("round_broke", extra=self._fields(key))
            return "defect"
        self.queue.done(key, plan.again_in_seconds if done else MOOT_SECONDS)
        return "ok" if done else "moot"

    def _fields(self, key: Key) -> dict[str, str]:
        return {"controller": self.name, "key": "/".join(key)}
