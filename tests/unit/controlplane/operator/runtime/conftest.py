"""A queue whose clock is under the test's hand."""

import pytest

from controlplane.operator.runtime.queue import WorkQueue
from controlplane.watching.cache import Key

A, B, C = ("n", "a"), ("n", "b"), ("n", "c")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return WorkQueue(clock)


def take(queue: WorkQueue) -> Key | None:
    taken = queue.get(timeout_seconds=0)
    return None if taken is None else taken[0]
