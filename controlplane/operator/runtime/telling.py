"""Tells a store what is true, at once and again every second: a thread for whoever publishes. Run
by `main`."""

import logging
import threading
from collections.abc import Callable

INTERVAL_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Teller:
    """A `main.Part`: calls `publish`, which returns whether the store took it."""

    def __init__(self, name: str, publish: Callable[[], bool]) -> None:
        self._name = name
        self._publish = publish
        self._was_up = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; what was told stays until it is old, for another operator to go on."""
        self._stopping.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._tell()
            self._stopping.wait(INTERVAL_SECONDS)

    def _tell(self) -> None:
        try:
            is_up = self._publish()
        except Exception:
            # The thread's entry: a defect must not silence it for good.
            _log.exception("telling_failed", extra={"part": self._name})
            return
        if is_up != self._was_up:
            event = "store_is_up" if is_up else "store_is_down"
            _log.warning(event, extra={"part": self._name})
        self._was_up = is_up
