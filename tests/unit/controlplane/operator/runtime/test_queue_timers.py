"""The queue: when a key comes back by itself."""

from controlplane.operator.runtime.queue import WorkQueue

from .conftest import A, Clock, take


def test_a_round_says_when_to_look_again(queue: WorkQueue, clock: Clock) -> None:
    queue.add(A)
    take(queue)
    queue.done(A, again_in_seconds=30)
    clock.now += 29
    assert take(queue) is None
    clock.now += 1
    assert take(queue) == A


def test_the_earliest_look_asked_for_stays(queue: WorkQueue, clock: Clock) -> None:
    queue.add_after(A, 10)
    queue.add_after(A, 60)
    queue.add_after(A, 5)
    clock.now += 5
    assert take(queue) == A
    queue.done(A)
    clock.now += 100
    assert take(queue) is None


def test_a_round_forgets_the_look_it_forestalled(queue: WorkQueue, clock: Clock) -> None:
    queue.add_after(A, 10)
    queue.add(A)
    assert take(queue) == A
    queue.done(A)
    clock.now += 100
    assert take(queue) is None


def test_failures_wait_longer_each_time_and_are_forgiven_by_a_success(
    queue: WorkQueue, clock: Clock
) -> None:
    delays = []
    for _ in range(5):
        queue.add(A)
        take(queue)
        delays.append(queue.failed(A, "refused"))
    assert all(later > 1.0 * sooner for sooner, later in zip(delays, delays[2:], strict=False))
    assert queue.last_error(A) == "refused"
    clock.now += delays[-1]
    assert take(queue) == A
    queue.done(A)
    assert queue.last_error(A) == ""
    queue.add(A)
    take(queue)
    assert queue.failed(A, "again") <= 0.2


def test_a_server_that_names_a_wait_gets_it(queue: WorkQueue) -> None:
    queue.add(A)
    take(queue)
    assert queue.failed(A, "busy", at_least_seconds=17) == 17
