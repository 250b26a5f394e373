"""The lease under any order of steps, faults and clocks: never two act."""

from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.lease_store import Clock, CutOff, LeaseStore, elector

from controlplane.cluster import Unreachable


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
