"""The queue: one round a key at a time, urgent ones first."""

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


def test_a_key_that_waits_is_not_added_twice(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(A)
    assert [take(queue), take(queue)] == [A, None]


def test_a_key_added_while_it_runs_runs_once_more_afterwards(queue: WorkQueue) -> None:
    queue.add(A)
    assert take(queue) == A
    queue.add(A)
    queue.add(A)
    assert take(queue) is None
    queue.done(A)
    assert [take(queue), take(queue)] == [A, None]


def test_urgent_keys_overtake_and_promote(queue: WorkQueue) -> None:
    for key in (A, B, C):
        queue.add(key)
    queue.add(C, urgent=True)
    assert [take(queue) for _ in range(4)] == [C, A, B, None]


def test_an_urgent_key_that_runs_is_urgent_afterwards(queue: WorkQueue) -> None:
    queue.add(A)
    assert take(queue) == A
    queue.add(B)
    queue.add(A, urgent=True)
    queue.add(A)
    queue.done(A)
    assert take(queue) == A
