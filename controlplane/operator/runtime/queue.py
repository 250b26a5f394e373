"""Which objects need a round: a queue of keys that never works on one key twice at once.

A key that is added while it waits is one round; added while it runs, it runs once more
afterwards. Urgent keys overtake. A key that failed comes back after a growing, jittered wait.
Handlers of caches and monitors add; the workers of a `Controller` take.
"""

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from controlplane.watching.backoff import delay_seconds
from controlplane.watching.cache import Key


class WorkQueue:
    """A queue of keys; safe for use by many threads.

    `get` and `done` frame a round. Between them the key is nobody else's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False
        # Keys that wait, each with the moment it was added.
        self._urgent: OrderedDict[Key, float] = OrderedDict()
        self._normal: OrderedDict[Key, float] = OrderedDict()
        self._running: dict[Key, bool | None] = {}  # what was added meanwhile: urgent, not, nothing
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []  # entries that `_due` does not confirm are stale
        self._failures: dict[Key, int] = {}
        self._errors: dict[Key, str] = {}

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Ask for a round as soon as possible; an urgent one overtakes."""
        with self._changed:
            self._add(key, urgent)

    def add_after(self, key: Key, seconds: float) -> None:
        """Ask for a round after a while; an earlier one asked for stays."""
        with self._changed:
            due = self._clock() + seconds
            if self._due.get(key, float("inf")) > due:
                self._due[key] = due
                heapq.heappush(self._heap, (due, key))
                self._changed.notify()

    def get(self, timeout_seconds: float | None = None) -> tuple[Key, float] | None:
        """Return the next key and how long it waited, in seconds; None when none came in time or
        the queue is closed. Its round must end with `done` or `failed`."""
        deadline = None if timeout_seconds is None else self._clock() + timeout_seconds
        with self._changed:
            while True:
                now = self._clock()
                self._ripen(now)
                lane = self._urgent or self._normal
                if self._closed or (not lane and deadline is not None and now >= deadline):
                    return None
                if lane:
                    key, added = lane.popitem(last=False)
                    self._running[key] = None
                    self._due.pop(key, None)  # the round says anew when to look again
                    return key, now - added
                nexts = [it for it in (deadline, self._next_due()) if it is not None]
                self._changed.wait(max(0.0, min(nexts) - now) if nexts else None)

    def done(self, key: Key, again_in_seconds: float | None = None) -> None:
        """End a round that succeeded."""
        with self._changed:
            self._failures.pop(key, None)
            self._errors.pop(key, None)
            self._end(key)
        if again_in_seconds is not None:
            self.add_after(key, again_in_seconds)

    def failed(self, key: Key, error: str, *, at_least_seconds: float | None = None) -> float:
        """End a round that failed; return the seconds until the key comes back by itself."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._errors[key] = error
            self._end(key)
        delay = max(delay_seconds(failures), at_least_seconds or 0.0)
        self.add_after(key, delay)
        return delay

    def last_error(self, key: Key) -> str:
        """Return what its last `failed` said, so that a status can tell; empty: nothing."""
        with self._changed:
            return self._errors.get(key, "")

    def close(self) -> None:
        """Give out nothing more; rounds that run may end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def waiting(self) -> int:
        """Return how many keys wait for a worker now."""
        with self._changed:
            self._ripen(self._clock())
            return len(self._urgent) + len(self._normal)

    def is_idle(self) -> bool:
        """Return whether nothing waits for a worker and nothing runs; timers do not count."""
        with self._changed:
            self._ripen(self._clock())
            return not (self._urgent or self._normal or self._running)

    def _add(self, key: Key, urgent: bool) -> None:
        if key in self._running:
            self._running[key] = bool(self._running[key]) or urgent
            return
        added = self._clock()
        if urgent and key in self._normal:
            added = self._normal.pop(key)
        if key not in self._urgent and key not in self._normal:
            (self._urgent if urgent else self._normal)[key] = added
            self._changed.notify()

    def _end(self, key: Key) -> None:
        added_meanwhile = self._running.pop(key)
        if added_meanwhile is not None:
            self._add(key, added_meanwhile)

    def _ripen(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key, False)

    def _next_due(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
