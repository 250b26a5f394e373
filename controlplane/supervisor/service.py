"""What the tree needs to know of one child; made by `services`, run by `tree`."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """One child: how to run it, what it needs, how to tell that it is ready, how to end it.

    Attributes:
        environment: the whole environment of the process; None inherits the supervisor's.
        is_ready: asks the service itself; cheap, never raises.
        needs: names of services that must be ready before it is started.
    """

    name: str
    argv: tuple[str, ...]
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] | None = None
    needs: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_seconds: float = 10.0
