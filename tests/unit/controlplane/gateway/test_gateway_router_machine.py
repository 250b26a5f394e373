"""Any registry, any order of events: who is never asked, and what a report may be believed for."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controlplane.gateway.policies import POLICIES, share
from controlplane.gateway.router import NoneOpen, Router
from controlplane.gateway.visit import Visit
from controlplane.registry.replicas import Replica

TURNS = 300

replicas = st.builds(
    Replica,
    id=st.sampled_from("abcdef"),
    url=st.just("http://x"),
    model=st.sampled_from(["m", "n"]),
    path=st.sampled_from(["serverless", "dedicated"]),
    max_model_len=st.just(1),
    published_at=st.just(0.0),
    deployment=st.sampled_from(["", "d", "e"]),
    tenant_id=st.sampled_from(["", "alice", "bob"]),
    weight=st.sampled_from([0, 1, 10, 50, 100]),
    draining=st.booleans(),
)
registries = st.lists(replicas, max_size=6, unique_by=lambda it: it.id)


class RouterMachine(RuleBasedStateMachine):
    """Requests come and go while the registry says whatever it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router(POLICIES["least_inflight"])
        self.registry: dict[str, Replica] = {}
        self.visits: list[Visit] = []
        self.acknowledged: set[str] = set()

    @rule(told=registries)
    def read_the_registry(self, told: list[Replica]) -> None:
        self.registry = {it.id: it for it in told}
        self.acknowledged &= set(self.registry)
        self.router.update(told)

    @rule(model=st.sampled_from(["m", "n", "o"]), tenant=st.sampled_from(["alice", "bob", "eve"]))
    def serve(self, model: str, tenant: str) -> None:
        route = self.router.resolve(model, tenant)
        try:
            chosen = self.router.choose(route)
        except NoneOpen:
            return
        assert self.registry[chosen.id] == chosen
        assert (chosen.model, chosen.tenant_id in ("", tenant)) == (model, True)
        assert chosen.tenant_id == tenant or chosen.path == "serverless"
        assert not chosen.draining
        assert chosen.weight > 0
        assert chosen.id not in self.acknowledged
        self.visits.append(self.router.enter(chosen))

    @rule(choice=st.data())
    @precondition(lambda self: self.visits)
    def leave(self, choice: st.DataObject) -> None:
        visit = choice.draw(st.sampled_from(self.visits))
        self.visits.remove(visit)
        visit.leave()

    @rule()
    def report(self) -> None:
        told = self.router.report("g", {})
        self.acknowledged |= {it for it, count in told.draining.items() if count == 0}

    @invariant()
    def a_report_counts_every_request_once(self) -> None:
        told = self.router.report("g", {})
        running = Counter(visit.replica.id for visit in self.visits)
        assert told.inflight == dict(running)
        assert told.draining == {it: running[it] for it in told.draining}
        assert {it.id for it in self.registry.values() if it.draining} <= set(told.draining)


TestRouter = RouterMachine.TestCase
TestRouter.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(weights=st.lists(st.integers(1, 100), min_size=1, max_size=5), start=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_over_any_run_of_turns_every_weight_comes_as_often_as_it_should(
    weights: list[int], start: int
) -> None:
    candidates = [
        Replica(str(number), "http://x", "m", "serverless", 1, 0.0, weight=weight)
        for number, weight in enumerate(weights)
    ]
    came = Counter(share(candidates, turn)[0].weight for turn in range(start, start + TURNS))
    for weight in set(weights):
        expected = TURNS * weight * weights.count(weight) / sum(weights)
        assert abs(came[weight] - expected) <= 5
