"""Users, nodes, providers, engines and the API server do what they like; the invariants hold.

The whole operator runs here, without its threads. Whatever has happened, once all is deleted
nothing is left, and every GPU is free.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.operator_world import NODES_AT_FIRST, RELEASE, TENANT, Operator, World

from controlplane.cluster import NAMESPACES, NODES, PODS, Object
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICAS
from controlplane.operator.capacity.nodes import QUARANTINE_ANNOTATION
from controlplane.operator.replica.ends import PROVEN_CLEAN_ANNOTATION
from controlplane.watching.cache import Change

FAULTS = st.lists(st.sampled_from(["conflict", "throttled", "broken", "timeout"]), max_size=4)
NAMES = {"chat": (DEPLOYMENTS, TENANT), "pool": (DEPLOYMENTS, RELEASE), "dev": (ENDPOINTS, TENANT)}
NODE_NAMES = st.sampled_from([it["metadata"]["name"] for it in NODES_AT_FIRST])
GATEWAYS = st.sampled_from(["g1", "g2"])
WATCHED = [DEPLOYMENTS, ENDPOINTS, REPLICAS, PODS, NODES, NAMESPACES]


class Clusters(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.told: list[tuple[Any, Object]] = []
        self.zombies: list[Operator] = []
        self.remember()

    def remember(self) -> None:
        """Keep what the operator's caches were told, to tell it again."""
        for resource in WATCHED:

            def keep(change: Change, resource: Any = resource) -> None:
                if change.new is not None:
                    self.told = [*self.told[-30:], (resource, change.new)]

            self.world.operator.parts.caches[resource].subscribe(keep)

    @initialize(
        replicas=st.integers(0, 3),
        budget=st.sampled_from([None, 2, 3]),
        kinds=st.sampled_from([["tiny"], ["tiny-spot", "tiny"]]),
        volume=st.booleans(),
        ticks=st.integers(0, 8),
    )
    def begin(
        self, replicas: int, budget: int | None, kinds: list[str], volume: bool, ticks: int
    ) -> None:
        self.world.laws.holding = True
        self.a_dedicated_deployment_is_made(replicas, budget)
        self.a_pool_is_made(kinds)
        self.an_endpoint_is_made(volume)
        for _ in range(ticks):
            self.world.tick(3)
            self.world.laws.check()

    # The operator.

    @rule(seconds=st.sampled_from([1, 3, 8, 31]))
    def everybody_does_their_part(self, seconds: int) -> None:
        self.world.tick(seconds)

    @rule()
    def all_goes_well_for_a_while(self) -> None:
        for _ in range(6):
            self.world.tick(3)
            self.world.laws.check()

    @rule(resources=st.sets(st.sampled_from(WATCHED), max_size=3), cut=st.integers(0, 4))
    def some_caches_learn_something(self, resources: set[Any], cut: int) -> None:
        """The other caches stay as old as they are, and these learn a part."""
        self.world.cut_watches_after = cut
        self.world.operator.catch_up(resources)
        self.world.cut_watches_after = None

    @rule(faults=FAULTS, rounds=st.integers(1, 12))
    def the_operator_works(self, faults: list[str], rounds: int) -> None:
        """It works on what it knows, and some of its writes fail, or seem to."""
        self.world.faults = faults
        self.world.operator.work(rounds)
        self.world.faults = []

    @rule(writes=st.integers(1, 6))
    def the_operator_is_killed(self, writes: int) -> None:
        """After so many more writes; if it has none to do, right away."""
        before = self.world.deaths
        self.world.kill_after = writes
        self.world.run_operator()
        if self.world.deaths == before:
            self.world.restart()
        self.remember()

    @rule()
    def another_operator_takes_the_lead(self) -> None:
        """The one before lives on for a while, and is refused every write."""
        self.zombies = [self.world.operator]
        self.world.restart()
        self.remember()

    @precondition(lambda self: self.zombies)
    @rule()
    def the_one_before_goes_on(self) -> None:
        self.zombies[0].catch_up()
        self.zombies[0].work()

    @rule()
    def old_events_are_told_again(self) -> None:
        for resource, body in self.told[-8:]:
            self.world.repeat_events(resource, [body])

    @rule()
    def the_server_forgets_its_history(self) -> None:
        self.world.cluster.history.forget()

    # Users.

    @rule(replicas=st.integers(0, 3), budget=st.sampled_from([None, 2, 3]))
    def a_dedicated_deployment_is_made(self, replicas: int, budget: int | None) -> None:
        more = {} if budget is None else {"budgetGPUs": budget}
        self.world.make_dedicated(replicas=replicas, **more)

    @rule(kinds=st.sampled_from([["tiny"], ["tiny-spot", "tiny"]]))
    def a_pool_is_made(self, kinds: list[str]) -> None:
        self.world.make_pool(configurations=kinds, budgetGPUs=3)

    @rule(volume=st.booleans())
    def an_endpoint_is_made(self, volume: bool) -> None:
        self.world.make_endpoint(**({"volume": {"sizeGiB": 1}} if volume else {}))

    @rule(replicas=st.integers(0, 3))
    def the_number_is_changed(self, replicas: int) -> None:
        self.world.change(DEPLOYMENTS, TENANT, "chat", replicas=replicas)

    @rule(tokens=st.sampled_from([1024, 2048, 4096]))
    def the_engine_is_changed(self, tokens: int) -> None:
        for name in ("chat", "pool"):
            self.world.change(*NAMES[name], name, engine={"maxModelLen": tokens})

    @rule(state=st.sampled_from(["Running", "Stopped"]), image=st.sampled_from(["", "b", "broken"]))
    def the_endpoint_is_changed(self, state: str, image: str) -> None:
        self.world.kubelets.unpullable = {"broken"}
        self.world.change(ENDPOINTS, TENANT, "dev", state=state, image=image)

    @rule(name=st.sampled_from(sorted(NAMES)))
    def one_is_deleted(self, name: str) -> None:
        resource, namespace = NAMES[name]
        self.world.delete(resource, name, namespace)

    @rule()
    def a_replica_is_deleted_by_hand(self) -> None:
        for replica in self.world.replicas()[:1]:
            self.world.delete(REPLICAS, replica.name, replica.namespace)

    @rule()
    def the_namespace_is_deleted_by_hand(self) -> None:
        self.world.delete(NAMESPACES, TENANT)

    @rule()
    def the_namespace_is_made(self) -> None:
        self.world.make_tenant()

    # Requests.

    @rule(gateway=GATEWAYS, index=st.integers(0, 3))
    def a_stream_begins(self, gateway: str, index: int) -> None:
        self.world.open_stream(gateway, index)

    @rule(gateway=GATEWAYS)
    def streams_end(self, gateway: str) -> None:
        self.world.close_streams(gateway)

    @rule(held=st.booleans())
    def a_request_is_held(self, held: bool) -> None:
        self.world.laws.holding = held

    @rule(up=st.booleans())
    def the_store_goes_or_comes(self, up: bool) -> None:
        self.world.store_up = up

    # Machines.

    @rule()
    def pods_go_on(self) -> None:
        self.world.kubelets.step()

    @rule(index=st.integers(0, 4))
    def a_process_crashes(self, index: int) -> None:
        self.world.kubelets.crash(index)

    @rule(name=NODE_NAMES)
    def a_machine_dies(self, name: str) -> None:
        self.world.kubelets.node_dies(name)

    @rule(name=NODE_NAMES)
    def a_node_goes(self, name: str) -> None:
        self.world.kubelets.node_goes(name)

    @rule(name=NODE_NAMES)
    def a_node_comes(self, name: str) -> None:
        for body in NODES_AT_FIRST:
            if body["metadata"]["name"] == name:
                self.world.kubelets.node_comes(body)

    @rule()
    def the_provider_takes_its_spot_node_back(self) -> None:
        taint = {"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}
        self.world.change(NODES, "", "n3", taints=[taint])

    # What holds.

    @invariant()
    def the_laws_hold(self) -> None:
        self.world.laws.check()

    def teardown(self) -> None:
        """All is deleted, everybody does their part, people vouch for what they must."""
        world = self.world
        world.store_up, world.laws.holding = True, False
        for gateway in world.gateways.values():
            gateway.streams.clear()
        for body in NODES_AT_FIRST:
            world.kubelets.node_comes(body)
        for name, (resource, namespace) in NAMES.items():
            world.delete(resource, name, namespace)
        for _ in range(100):
            if not world.picture():
                break
            self.vouch()
            world.tick(20)
            world.laws.check()
        assert not world.picture()
        world.rest(ticks=3)
        assert not world.kubelets.running()

    def vouch(self) -> None:
        """A person looks at quarantined nodes and replicas."""
        clean = {"metadata": {"annotations": {PROVEN_CLEAN_ANNOTATION: "yes"}}}
        for replica in self.world.replicas():
            if replica.status.phase == "Quarantined":
                self.world.cluster.patch(REPLICAS, replica.name, clean, namespace=replica.namespace)
        fit = {"metadata": {"annotations": {QUARANTINE_ANNOTATION: None}}}
        for node in self.world.cluster.list(NODES).items:
            self.world.cluster.patch(NODES, node["metadata"]["name"], fit)


QUIET = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


def run(examples: int, steps: int, *, derandomize: bool = False) -> None:
    run_state_machine_as_test(
        Clusters,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=QUIET,
            print_blob=True,
            derandomize=derandomize,
        ),
    )


def test_whatever_happens_the_invariants_hold() -> None:
    run(examples=40, steps=40, derandomize=True)  # the storm below looks for what is new


@pytest.mark.storm
@pytest.mark.timeout(7200)
def test_whatever_happens_for_long_the_invariants_hold() -> None:
    run(examples=1000, steps=80)
