"""What happened to objects: a bounded history and the watches that wait for more. For `objects`."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from controlplane.cluster import Gone, Object, Resource


@dataclass(frozen=True)
class Change:
    """One write. `before` is None on creation; `after` is the last state on deletion."""

    version: int
    resource: Resource
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    before: Object | None = field(repr=False)
    after: Object = field(repr=False)


class History:
    """The last changes of all kinds, in order. `lock` guards it and what it is the history of.

    Args:
        length: changes kept; a watch from before them is told that it is too late.
    """

    def __init__(self, length: int) -> None:
        self.lock = threading.RLock()
        self.version = 1
        self._changes: deque[Change] = deque(maxlen=length)
        self._happened = threading.Condition(self.lock)
        self._closed = False

    def append(self, change: Change) -> None:
        """Add a change made under the lock."""
        self._changes.append(change)
        self._happened.notify_all()

    def forget(self) -> None:
        """Forget all changes, as a server does whose history was compacted."""
        with self.lock:
            self._changes.clear()

    def close(self) -> None:
        """End all watches, now and later."""
        with self.lock:
            self._closed = True
            self._happened.notify_all()

    def after(self, version: int, *, timeout_seconds: float) -> Iterator[list[Change]]:
        """Yield what happened after `version`, in batches, until the time is over.

        Raises:
            Gone: some of it is forgotten.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            with self.lock:
                while self.version == version and not self._closed:
                    left_seconds = deadline - time.monotonic()
                    if left_seconds <= 0:
                        return
                    self._happened.wait(left_seconds)
                if self._closed:
                    return
                batch = self._since(version)
                version = self.version
            yield batch
            if time.monotonic() > deadline:
                return

    def _since(self, version: int) -> list[Change]:
        """Every version is one change: none may be missing between `version` and now."""
        missed = self.version - version
        if missed < 0 or missed > len(self._changes):
            raise Gone(f"too old resource version: {version} ({self.version})")
        return list(islice(reversed(self._changes), missed))[::-1]
