"""One request at one replica, from its choice to its end. Made by `router`."""

import time
from collections.abc import Callable

from controlplane.registry.replicas import Replica


class Visit:
    """Counts against its replica until `leave`, which every visit needs.

    A failed one is the replica's fault, not the request's or the client's.
    """

    __slots__ = ("_end", "_entered_at", "_first", "_last", "failed", "replica")

    def __init__(self, replica: Replica, end: Callable[["Visit"], None]) -> None:
        self.replica = replica
        self.failed = False
        self._end = end
        self._entered_at = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)

    def said(self, output_tokens: int) -> None:
        """Take note that the replica has spoken; the answer has `output_tokens` by now."""
        self._last = (time.monotonic(), output_tokens)
        if self._first is None:
            self._first = self._last

    def leave(self, *, failed: bool = False) -> None:
        """End the visit."""
        self.failed = self.failed or failed
        self._end(self)

    @property
    def ttft_ms(self) -> float | None:
        """From the choice to the first word; None without one."""
        return None if self._first is None else (self._first[0] - self._entered_at) * 1000

    @property
    def itl_ms(self) -> float | None:
        """The answer's mean time from token to token; None with fewer than two."""
        if self._first is None or (tokens := self._last[1] - self._first[1]) < 1:
            return None
        return (self._last[0] - self._first[0]) / tokens * 1000
