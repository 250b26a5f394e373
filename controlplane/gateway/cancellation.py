"""A request's end before its time: the client left, or the gateway stops.

Made by `app` for each request; `upstream` attaches what must happen at once.
"""

import asyncio
from collections.abc import Callable


class Aborted(Exception):
    """The request was cancelled; nobody waits for its answer."""


class Cancellation:
    """Set at most once, on the event loop's thread."""

    def __init__(self) -> None:
        self.is_set = False
        self._callback: Callable[[], None] | None = None

    def set(self) -> None:
        """Cancel: runs the attached callback now, or when one is attached."""
        self.is_set = True
        if self._callback is not None:
            self._callback()

    def attach(self, callback: Callable[[], None]) -> None:
        """Have `callback` run on cancellation, at once if it has happened."""
        self._callback = callback
        if self.is_set:
            callback()

    def detach(self) -> None:
        """Forget the attached callback."""
        self._callback = None

    def check(self) -> None:
        """Raise Aborted if set."""
        if self.is_set:
            raise Aborted

    async def sleep(self, seconds: float) -> None:
        """Wait; raise Aborted as soon as it is set. Nothing else may be attached meanwhile."""
        woken = asyncio.Event()
        self.attach(woken.set)
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            return
        finally:
            self.detach()
        self.check()
