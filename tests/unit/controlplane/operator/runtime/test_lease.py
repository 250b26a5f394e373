"""The lease: one holder, and a pause between the old one's last act and the next one's first."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlplane.cluster import AlreadyExists, Conflict, NotFound, Object, Unreachable
from controlplane.operator.runtime.lease import Elector

LEASE_SECONDS = 15.0


class LeaseStore:
    """As much of a cluster as a lease needs: one object and its versions."""

    def __init__(self) -> None:
        self.body: Object | None = None
        self.version = 0

    def get(self, *_: Any, **__: Any) -> Object:
        if self.body is None:
            raise NotFound("no lease")
        return self.body

    def create(self, _: Any, body: Object) -> Object:
        if self.body is not None:
            raise AlreadyExists("lease")
        return self._store(body["spec"])

    def patch(self, _: Any, __: str, change: Object, **___: Any) -> Object:
        body = self.get()
        if change["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        return self._store({**body["spec"], **change["spec"]})

    def _store(self, spec: Object) -> Object:
        self.version += 1
        self.body = {"metadata": {"resourceVersion": str(self.version)}, "spec": spec}
        return self.body


class CutOff:
    """The store behind a line that can be cut, before or after a write arrives."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self.fault = ""

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Object:
            if self.fault == "before":
                raise Unreachable("cut")
            answer: Object = getattr(self._store, name)(*args, **kwargs)
            if self.fault == "after":
                raise Unreachable("cut")
            return answer

        return call


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def elector(cluster: Any, identity: str, clock: Clock) -> Elector:
    return Elector(
        cluster,
        namespace="n",
        name="operator",
        identity=identity,
        lease_seconds=LEASE_SECONDS,
        clock=clock,
    )


@pytest.fixture
def store() -> LeaseStore:
    return LeaseStore()


def holder(store: LeaseStore) -> str:
    assert store.body is not None
    return str(store.body["spec"].get("holderIdentity", ""))


def test_the_first_takes_it_and_the_second_waits(store: LeaseStore) -> None:
    first, second = (elector(store, name, Clock(0.0)) for name in "ab")
    first.step()
    second.step()
    assert (first.is_leading(), second.is_leading(), holder(store)) == (True, False, "a")


def test_a_holder_that_renews_keeps_it(store: LeaseStore) -> None:
    clock = Clock(0.0)
    first, second = (elector(store, name, clock) for name in "ab")
    for _ in range(20):
        first.step()
        second.step()
        clock.now += 5
    assert (first.is_leading(), second.is_leading()) == (True, False)


def test_a_silent_holder_is_succeeded_and_the_transition_counted(store: LeaseStore) -> None:
    clock = Clock(0.0)
    first, second = (elector(store, name, clock) for name in "ab")
    first.step()
    second.step()
    clock.now += LEASE_SECONDS + 0.1
    second.step()
    assert (first.is_leading(), second.is_leading()) == (False, True)
    assert second.transitions == first.transitions + 1
    assert first.lost.is_set()


def test_a_lead_that_was_lost_is_not_taken_up_again(store: LeaseStore) -> None:
    clock = Clock(0.0)
    first = elector(store, "a", clock)
    first.step()
    clock.now += LEASE_SECONDS
    assert not first.is_leading()
    first.step()
    assert not first.is_leading()


def test_a_holder_whose_lease_was_deleted_takes_it_anew(store: LeaseStore) -> None:
    first = elector(store, "a", Clock(0.0))
    first.step()
    store.body = None
    first.step()
    assert first.is_leading()
    assert holder(store) == "a"


def test_a_holder_that_ends_gives_it_up(store: LeaseStore) -> None:
    clock = Clock(0.0)
    first, second = (elector(store, name, clock) for name in "ab")
    first.step()
    second.step()
    first.stop()
    second.step()
    assert second.is_leading()


class ElectionMachine(RuleBasedStateMachine):
    """Three operators with clocks of their own, cut off and frozen at will: never two act."""

    who = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        store = LeaseStore()
        self.clocks = [Clock(1000.0 * number) for number in range(3)]
        self.lines = [CutOff(store) for _ in range(3)]
        self.electors = [
            elector(line, name, clock)
            for line, name, clock in zip(self.lines, "abc", self.clocks, strict=True)
        ]

    @rule(who=who)
    def step(self, who: int) -> None:
        with suppress(Unreachable):
            self.electors[who].step()

    @rule(who=who, fault=st.sampled_from(["", "", "before", "after"]))
    def cut_or_mend(self, who: int, fault: str) -> None:
        self.lines[who].fault = fault

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 10.0, 16.0]))
    def wait(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.now += seconds

    @invariant()
    def at_most_one_acts(self) -> None:
        assert sum(it.is_leading() for it in self.electors) <= 1


TestElectionMachine = ElectionMachine.TestCase
TestElectionMachine.settings = settings(max_examples=100, stateful_step_count=40)
