"""Wait for what cannot be awaited: another process's state, seen through HTTP or SQL."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, seconds: float, what: str) -> T:
    """Return the first truthy value of `condition`, asked every 50 ms.

    Raises:
        AssertionError: still falsy after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value
