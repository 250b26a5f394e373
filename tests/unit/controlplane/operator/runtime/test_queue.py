"""The queue: one round a key at a time, urgent ones first."""

from controlplane.operator.runtime.queue import WorkQueue

from .conftest import A, B, C, take


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
