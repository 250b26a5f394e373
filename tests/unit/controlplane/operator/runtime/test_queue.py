"""The queue: one round a key at a time, urgent ones first, failures later and later."""

import threading
from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controlplane.operator.runtime.cache import Key
from controlplane.operator.runtime.queue import WorkQueue

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


def test_closing_wakes_those_who_wait() -> None:
    queue = WorkQueue()
    waiting = [threading.Thread(target=queue.get) for _ in range(3)]
    for thread in waiting:
        thread.start()
    queue.close()
    for thread in waiting:
        thread.join(5)
    assert not any(thread.is_alive() for thread in waiting)


def test_many_workers_never_share_a_key_and_miss_nothing() -> None:
    queue = WorkQueue()
    keys = [("n", str(number)) for number in range(20)]
    running: set[Key] = set()
    rounds: dict[Key, int] = defaultdict(int)
    lock = threading.Lock()
    shared: list[Key] = []

    def work() -> None:
        while (taken := queue.get(timeout_seconds=0.2)) is not None:
            key, _ = taken
            with lock:
                if key in running:
                    shared.append(key)
                running.add(key)
                rounds[key] += 1
            with lock:
                running.discard(key)
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for _ in range(50):
        for key in keys:
            queue.add(key)
    for worker in workers:
        worker.join(10)
    assert shared == []
    assert set(rounds) == set(keys)


class QueueMachine(RuleBasedStateMachine):
    """Whatever is added is given out after the addition, and never twice at once."""

    keys = st.sampled_from([A, B, C])

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = WorkQueue(self.clock)
        self.running: set[Key] = set()
        self.owed: set[Key] = set()  # added since their last round began

    @rule(key=keys, urgent=st.booleans())
    def add(self, key: Key, urgent: bool) -> None:
        self.queue.add(key, urgent=urgent)
        self.owed.add(key)

    @rule(key=keys, seconds=st.floats(0.1, 50))
    def add_after(self, key: Key, seconds: float) -> None:
        self.queue.add_after(key, seconds)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def get(self) -> None:
        key = take(self.queue)
        if key is None:
            assert self.owed <= self.running
            return
        assert key not in self.running
        self.running.add(key)
        self.owed.discard(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), failed=st.booleans(), again=st.none() | st.floats(0, 10))
    def end(self, data: st.DataObject, failed: bool, again: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(key)
        if failed:
            self.queue.failed(key, "x")
        else:
            self.queue.done(key, again)

    @invariant()
    def idle_means_nothing_owed(self) -> None:
        if self.queue.is_idle():
            assert not self.owed
            assert not self.running


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=30)
