"""Random lives of a deployment, with an operator that dies, forgets and sees old caches."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.deployment_world import World, configuration, finalized, spec

from controlplane.crd.replica import Phase
from controlplane.operator.actions import Create
from controlplane.operator.deployment.fleet import LOADING
from controlplane.operator.deployment.law import replay

CATALOGUE = {
    "spot-x2": configuration("spot-x2", count=2, spot=True),
    "h200-x2": configuration("h200-x2", count=2),
    "h100-x4": configuration("h100-x4", count=4),
}
BUDGET = 12
LOADS = st.integers(0, 12)
ENDED = (Phase.RELEASED, Phase.FAILED)


class Deployment(RuleBasedStateMachine):
    @initialize(scaled=st.booleans())
    def begin(self, scaled: bool) -> None:
        parts = {
            "configurations": list(CATALOGUE),
            "budgetGPUs": BUDGET,
            "spot": {"onDemandBase": 1},
        }
        bounds = {"min": 0, "max": 3, "stabilizationSeconds": 30, "idleSeconds": 30}
        amount = {"scaling": {**bounds, "targetInflight": 4}} if scaled else {"replicas": 2}
        self.world = World(spec(**parts, **amount), catalogue=CATALOGUE)
        self.spec_moved = False

    @rule(seconds=st.integers(1, 40))
    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self._watch_one_tick()

    @rule(held=LOADS, inflight=LOADS)
    def load(self, held: int, inflight: int) -> None:
        self.world.load(held=held, inflight=inflight)

    @rule()
    def lose_the_reports(self) -> None:
        self.world.gateways = None

    @rule(limit=st.integers(5, 30))
    def change_the_engine(self, limit: int) -> None:
        self.world.change(engine={"name": "flash", "maxModelLen": 1000 * limit})

    @rule(stopped=st.booleans())
    def stop_or_start(self, stopped: bool) -> None:
        self.world.change(stopped=stopped)
        self.spec_moved = True

    @rule(most=st.integers(1, 5))
    def change_the_number(self, most: int) -> None:
        if "scaling" in self.world.spec:
            self.world.change(scaling={**self.world.spec["scaling"], "max": most})
        else:
            self.world.change(replicas=most)
        self.spec_moved = True

    @precondition(lambda self: self.world.replicas)
    @rule(data=st.data(), reason=st.sampled_from(["EngineFailed", "NodeLost", "PendingTooLong"]))
    def fail_one(self, data: st.DataObject, reason: str) -> None:
        replica = data.draw(st.sampled_from(self.world.replicas))
        if replica.status.phase not in ENDED:
            self.world.fail(replica.name, reason, retryable=reason != "EngineFailed")

    @precondition(lambda self: self.world.live)
    @rule(data=st.data())
    def give_notice(self, data: st.DataObject) -> None:
        replica = data.draw(st.sampled_from(self.world.live))
        self.world.notices[f"node-{replica.name}"] = self.world.now + 120

    @rule(stock=st.fixed_dictionaries({name: st.integers(0, 3) for name in CATALOGUE}))
    def change_the_stock(self, stock: dict[str, int]) -> None:
        self.world.stock = stock

    @rule(writes=st.integers(0, 4))
    def die_after(self, writes: int) -> None:
        self.world.writes_left = writes

    # One that is being deleted has the finalizers of its replicas and their owner's name beside it.
    @precondition(lambda self: not self.world.deleting)
    @rule(data=st.data())
    def look_with_an_old_cache(self, data: st.DataObject) -> None:
        names = [it.name for it in self.world.replicas]
        if names:
            self.world.unseen = data.draw(st.sets(st.sampled_from(names)))
        self._watch_one_tick()

    @precondition(lambda self: not self.world.deleting)
    @rule()
    def delete(self) -> None:
        self.world.deleting = True

    @invariant()
    def gpus_never_exceed_the_budget(self) -> None:
        if hasattr(self, "world"):
            held = [it for it in self.world.replicas if it.status.phase not in ENDED]
            assert sum(it.spec.configuration.count for it in held) <= BUDGET

    @invariant()
    def the_finalizer_outlives_the_replicas(self) -> None:
        if hasattr(self, "world") and self.world.replicas:
            assert not finalized(self.world)

    def _watch_one_tick(self) -> None:
        world = self.world
        before, unseen = world.state, bool(world.unseen)
        world.tick()
        created = [it for it in world.plans[-1].actions if isinstance(it, Create)]
        if world.deleting:
            assert not created, "something is made once it is being deleted"
            return
        after = world.state
        if after.desired != before.desired:
            assert after.decisions
            assert replay(after.decisions[-1]) == after.desired
        if after.desired < before.desired and not self.spec_moved and not unseen:
            decision = after.decisions[-1]
            assert decision.inputs["complete"] == 1
            loading = [it for it in world.live if it.status.phase in LOADING]
            assert not loading or decision.signal == "max", "scaled down while one loads"
            assert not after.held_requests
        self.spec_moved = self.spec_moved and after.observed_generation < world.generation

    def teardown(self) -> None:
        """Left alone, it comes to rest, and then nothing is written any more."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.stock, world.notices, world.writes_left = {}, {}, None
        world.load()
        for _ in range(250):
            world.tick(10)
        world.log.clear()
        world.run(30)
        assert not world.log
        if world.deleting:
            assert not world.replicas
            assert finalized(world)
        else:
            assert len(world.live) <= max(world.state.desired, 0)


def test_a_deployments_invariants_hold_in_every_life() -> None:
    run_state_machine_as_test(
        Deployment, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
