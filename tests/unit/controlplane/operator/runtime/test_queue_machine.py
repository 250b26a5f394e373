"""The queue under many threads, and under any order of calls."""

import threading
from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controlplane.operator.runtime.queue import WorkQueue
from controlplane.watching.cache import Key

A, B, C = ("n", "a"), ("n", "b"), ("n", "c")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def take(queue: WorkQueue) -> Key | None:
    taken = queue.get(timeout_seconds=0)
    return None if taken is None else taken[0]


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
