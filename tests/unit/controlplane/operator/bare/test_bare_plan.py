"""Endpoints from birth to release, on a world of plain data."""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controlplane.cluster import SERVICES, VOLUME_CLAIMS, Object
from controlplane.crd.base import ENDPOINTS, FINALIZER, REPLICAS, timestamp
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.actions import Apply, ApplyStatus, Create, Delete, Patch, Plan
from controlplane.operator.bare.observed import Access, Observed
from controlplane.operator.bare.plan import plan
from controlplane.operator.bare.ports import Exposure
from controlplane.operator.tenants.namespace import Namespace

NAMESPACE = "fp-t"
CATALOGUE = {
    name: GPUConfiguration(id=name, gpu="H200", memory_gib=139.8, hourly_usd=price)
    for name, price in (("h200", 4.71), ("h200-spot", 1.9))
}
UNCONFINED = {name: it.model_copy(update={"bare": False}) for name, it in CATALOGUE.items()}
SPEC = {"tenant": "t", "configurations": ["h200-spot", "h200"]}


@dataclass
class World:
    """What an API server would hold of one endpoint."""

    endpoint: Object | None
    tenant: str = "t"
    terminating: bool = False
    suspended: str = ""
    provable: bool = True
    catalogue: Mapping[str, GPUConfiguration] = field(default_factory=lambda: CATALOGUE)
    replica: Object | None = None
    volume: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    now: float = 1000.0
    writes: int = 0
    uids: Any = field(default_factory=itertools.count)

    @classmethod
    def of(cls, **spec: Any) -> "World":
        metadata = {
            "name": "dev",
            "namespace": NAMESPACE,
            "uid": "e",
            "generation": 1,
            "creationTimestamp": timestamp(1000),
        }
        return cls({"metadata": metadata, "spec": {**SPEC, **spec}})

    def observed(self) -> Observed:
        assert self.endpoint is not None
        return Observed(
            endpoint=GPUEndpoint.of(self.endpoint),
            replica=Replica.of(self.replica) if self.replica else None,
            catalogue=self.catalogue,
            exposed=self.ports,
            has_volume=self.volume,
            gpu_uuids=("GPU-a",),
            namespace=Namespace(self.tenant, self.terminating, live={}, suspended=self.suspended),
            provable=self.provable,
            access=Access("ssh.example.org", "SHA256:x"),
            exposure=Exposure("gpu.example.org"),
        )

    def step(self) -> Plan:
        """Plan once and carry it out."""
        made = plan(self.observed(), self.now)
        for action in made.actions:
            self.writes += 1
            self.carry_out(action)
        return made

    def settle(self) -> None:
        """Plan until nothing is left to do."""
        for _ in range(20):
            if self.endpoint is None or not self.step().actions:
                return
        raise AssertionError("it never comes to rest")

    def carry_out(self, action: object) -> None:
        assert self.endpoint is not None
        match action:
            case Create() | Apply():
                self.make(action)
            case ApplyStatus(_, body):
                self.endpoint["status"] = body["status"]
            case Patch(resource, change=change) if resource is ENDPOINTS:
                self.finalize(change["metadata"]["finalizers"])
            case Patch(_, change=change):
                assert self.replica is not None
                self.replica["spec"].update(change["spec"])
            case Delete(resource, name=name) if resource is REPLICAS:
                assert self.replica is not None
                assert self.phase in (Phase.RELEASED, Phase.FAILED), "deleted while it has GPUs"
                self.replica = None
            case Delete(resource) if resource is ENDPOINTS:
                self.delete()
            case Delete(resource, name=name) if resource is SERVICES:
                del self.ports[name.removeprefix("dev-")]

    def make(self, action: Create | Apply) -> None:
        assert self.endpoint is not None
        assert "deletionTimestamp" not in self.endpoint["metadata"], "made while being deleted"
        assert not self.terminating, "made in a namespace that goes"
        resource, body = action.resource, action.body
        if resource is REPLICAS:
            assert isinstance(action, Create)
            assert self.replica is None, "a second lease"
            self.replica = copy.deepcopy(body)
            self.replica["metadata"]["uid"] = f"r{next(self.uids)}"
        elif resource is VOLUME_CLAIMS:
            self.volume = True
        elif resource is SERVICES:
            label = body["metadata"]["labels"]["flashplane.io/port"]
            self.ports[label] = body["spec"]["ports"][0]["targetPort"]

    def finalize(self, finalizers: list[str]) -> None:
        assert self.endpoint is not None
        self.endpoint["metadata"]["finalizers"] = finalizers
        if not finalizers and "deletionTimestamp" in self.endpoint["metadata"]:
            self.endpoint = None

    @property
    def phase(self) -> Phase | None:
        return Replica.of(self.replica).status.phase if self.replica else None

    def become(self, phase: Phase, **status: Any) -> None:
        assert self.replica is not None
        self.replica["status"] = {"phase": phase, **status}

    def delete(self) -> None:
        assert self.endpoint is not None
        self.endpoint["metadata"]["deletionTimestamp"] = timestamp(self.now)
        if not self.endpoint["metadata"].get("finalizers"):
            self.endpoint = None

    @property
    def status(self) -> Object:
        assert self.endpoint is not None
        return self.endpoint["status"]

    def ready(self) -> tuple[str, str]:
        found = next(it for it in self.status["conditions"] if it["type"] == "Ready")
        return found["status"], found["reason"]


def test_without_an_image_for_the_proof_no_lease_is_made_and_the_fix_is_named() -> None:
    world = World.of()
    world.provable = False
    world.settle()
    assert world.replica is None
    assert world.ready() == ("False", "ImageUnavailable")
    accepted = next(it for it in world.status["conditions"] if it["type"] == "Accepted")
    assert "FLASHPLANE_TOOLS_IMAGE" in accepted["message"]


def test_a_lease_that_runs_stays_when_the_image_is_taken_from_the_settings() -> None:
    world = World.of()
    world.settle()
    world.become(Phase.SERVING)
    world.provable = False
    world.settle()
    assert world.phase is Phase.SERVING
    assert world.replica is not None
    assert not world.replica["spec"].get("drain")


def test_an_endpoint_gets_a_volume_and_a_lease_of_its_first_configuration() -> None:
    world = World.of(volume={"sizeGiB": 10}, image="me/it:1")
    world.settle()
    assert world.volume
    assert world.replica is not None
    lease = Replica.of(world.replica)
    assert (lease.name, lease.spec.configuration.id) == ("dev-0", "h200-spot")
    assert lease.spec.bare is not None
    assert lease.spec.bare.image == "me/it:1"
    assert world.endpoint is not None
    assert world.endpoint["metadata"]["finalizers"] == [FINALIZER]
    assert world.ready() == ("False", "WaitingForCapacity")


def test_a_ready_endpoint_tells_how_to_get_in_and_writes_nothing_more() -> None:
    world = World.of(ports=[{"name": "web", "port": 8888}])
    world.settle()
    world.become(Phase.SERVING, servingSince="2026-01-01T00:00:00Z")
    world.settle()
    assert world.status["phase"] == "Ready"
    assert world.status["host"] == "ssh.example.org"
    assert world.status["gpuUUIDs"] == ["GPU-a"]
    assert world.status["urls"] == {"web": f"https://web-dev-{NAMESPACE}.gpu.example.org"}
    assert world.status["billedSince"] == "2026-01-01T00:00:00Z"
    assert world.ready() == ("True", "AsWanted")
    before = world.writes
    world.now += 3600
    world.step()
    assert world.writes == before


def test_keys_and_ports_change_without_a_new_lease() -> None:
    world = World.of(ports=[{"name": "web", "port": 80}])
    world.settle()
    world.become(Phase.SERVING)
    world.settle()
    assert world.endpoint is not None
    world.endpoint["spec"]["sshKeys"] = [{"name": "k", "publicKey": "ssh-ed25519 AAAA"}]
    world.endpoint["spec"]["ports"] = [{"name": "web", "port": 81}, {"name": "tb", "port": 6006}]
    world.settle()
    assert world.ports == {"web": 81, "tb": 6006}
    world.endpoint["spec"]["ports"] = []
    world.settle()
    assert world.ports == {}
    assert world.replica is not None
    assert not Replica.of(world.replica).spec.drain


def test_another_image_ends_the_lease_and_makes_another() -> None:
    world = World.of()
    world.settle()
    world.become(Phase.SERVING)
    assert world.endpoint is not None
    assert world.replica is not None
    first = world.replica["metadata"]["uid"]
    world.endpoint["spec"]["image"] = "me/other:2"
    world.settle()
    assert Replica.of(world.replica).spec.drain == "Changed"
    world.become(Phase.RELEASED)
    world.settle()
    assert world.replica["metadata"]["uid"] != first


def test_stopping_gives_the_gpus_back_and_keeps_the_volume() -> None:
    world = World.of(volume={"sizeGiB": 10}, ports=[{"name": "web", "port": 80}])
    world.settle()
    world.become(Phase.SERVING)
    world.settle()
    assert world.endpoint is not None
    world.endpoint["spec"]["state"] = "Stopped"
    world.settle()
    assert world.replica is not None
    assert Replica.of(world.replica).spec.drain == "Stopped"
    assert world.ports == {}
    world.become(Phase.RELEASED)
    world.settle()
    assert world.replica is None
    assert world.volume
    assert (world.status["phase"], world.ready()) == ("Stopped", ("False", "Stopped"))
    world.endpoint["spec"]["state"] = "Running"
    world.settle()
    assert world.replica is not None


def test_a_suspended_namespace_stops_it_and_keeps_its_volume_until_it_is_no_more() -> None:
    world = World.of(volume={"sizeGiB": 10})
    world.settle()
    world.become(Phase.SERVING)
    world.settle()
    world.suspended = "insufficient_balance"
    world.settle()
    assert world.replica is not None
    assert Replica.of(world.replica).spec.drain == "Stopped"
    world.become(Phase.RELEASED)
    world.settle()
    assert (world.replica, world.volume) == (None, True)
    assert (world.status["phase"], world.ready()) == ("Stopped", ("False", "Stopped"))
    world.suspended = ""
    world.settle()
    assert world.replica is not None


def test_the_next_configuration_is_tried_when_one_has_no_gpus() -> None:
    world = World.of()
    tried = []
    for _ in range(3):
        world.settle()
        assert world.replica is not None
        tried.append(Replica.of(world.replica).spec.configuration.id)
        failure = {"reason": "PendingTooLong", "at": timestamp(world.now)}
        world.become(Phase.FAILED, failure=failure)
    assert tried == ["h200-spot", "h200", "h200-spot"]


def test_an_endpoint_ends_with_its_time() -> None:
    world = World.of(ttlSeconds=60)
    world.settle()
    assert world.step().again_in_seconds == 60
    assert world.status["expiresAt"] == timestamp(1060)
    world.now = 1060
    world.settle()
    assert world.replica is not None
    assert Replica.of(world.replica).spec.drain == "Deleted"
    world.become(Phase.RELEASED)
    world.settle()
    assert world.endpoint is None


def test_gpus_that_cannot_be_proven_clean_stay_and_the_deletion_still_ends() -> None:
    world = World.of()
    world.settle()
    world.delete()
    world.settle()
    world.become(Phase.QUARANTINED, scrub={"at": timestamp(0), "ok": False, "message": "dirty"})
    world.settle()
    assert world.endpoint is None
    assert world.replica is not None


@pytest.mark.parametrize(
    ("changes", "reason", "fix"),
    [
        ({"tenant": "other"}, "NamespaceNotTenant", "label namespace"),
        ({"catalogue": {}}, "UnknownConfiguration", "which has: none"),
        ({"catalogue": UNCONFINED}, "UnknownConfiguration", "a Kubernetes cluster with GPUs"),
    ],
)
def test_what_cannot_be_done_here_is_told_and_nothing_made(
    changes: dict[str, Any], reason: str, fix: str
) -> None:
    world = World.of()
    for name, value in changes.items():
        setattr(world, name, value)
    world.settle()
    assert world.replica is None
    assert world.ready() == ("False", reason)
    accepted = next(it for it in world.status["conditions"] if it["type"] == "Accepted")
    assert accepted["status"] == "False"
    assert fix in accepted["message"]


class Life(RuleBasedStateMachine):
    """Any order of events: never two leases, none deleted with GPUs, every deletion ends."""

    @initialize(volume=st.booleans(), ttl=st.sampled_from([None, 100.0]))
    def begin(self, volume: bool, ttl: float | None) -> None:
        spec: dict[str, Any] = {"volume": {"sizeGiB": 1}} if volume else {}
        self.world = World.of(**spec, **({"ttlSeconds": ttl} if ttl else {}))

    @property
    def endpoint(self) -> Object | None:
        return self.world.endpoint

    @rule()
    def reconcile(self) -> None:
        if self.endpoint is not None:
            self.world.step()

    @rule(seconds=st.sampled_from([1.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(phase=st.sampled_from(sorted(Phase)))
    def the_lease_moves(self, phase: Phase) -> None:
        lease = self.world.replica
        if lease is None or self.world.phase is Phase.QUARANTINED:
            return
        if phase in (Phase.RELEASED, Phase.QUARANTINED) and not lease["spec"].get("drain"):
            return
        failure = {"failure": {"reason": "PendingTooLong", "at": timestamp(0)}}
        self.world.become(phase, **(failure if phase is Phase.FAILED else {}))

    @rule(state=st.sampled_from(["Running", "Stopped"]))
    def the_customer_stops_or_starts(self, state: str) -> None:
        if self.endpoint is not None:
            self.endpoint["spec"]["state"] = state

    @rule(image=st.sampled_from(["", "a", "b"]))
    def the_customer_changes_the_image(self, image: str) -> None:
        if self.endpoint is not None:
            self.endpoint["spec"]["image"] = image

    @rule()
    def the_customer_deletes(self) -> None:
        if self.endpoint is not None and "deletionTimestamp" not in self.endpoint["metadata"]:
            self.world.delete()

    @rule()
    def the_namespace_goes(self) -> None:
        self.world.terminating = True

    @invariant()
    def it_comes_to_rest(self) -> None:
        if hasattr(self, "world") and self.endpoint is not None:
            copy.deepcopy(self.world).settle()

    def teardown(self) -> None:
        if not hasattr(self, "world") or self.endpoint is None:
            return
        if "deletionTimestamp" not in self.endpoint["metadata"]:
            self.world.delete()
        for _ in range(3):
            if self.endpoint is not None:
                self.world.settle()
            if self.world.replica is not None and self.world.phase is not Phase.QUARANTINED:
                self.world.become(Phase.RELEASED)
        assert self.endpoint is None, "its deletion does not end"


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
