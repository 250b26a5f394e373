"""The controller over objects in memory: rounds, what they remember, what gateways are told."""

from collections.abc import Iterator

import pytest
from support.deployment_loop import TINY, DeploymentLoop
from support.polling import until

from controlplane.cluster import NAMESPACES, SERVICE_ACCOUNTS, NotFound, Object
from controlplane.crd.base import DEPLOYMENTS, REPLICAS, SUSPENDED_LABEL, TENANT_LABEL
from controlplane.local.objects import LocalCluster
from controlplane.operator.signals import Signals
from controlplane.operator.tenants.reading import quota
from controlplane.registry.gateways import GatewayReport


@pytest.fixture
def loop() -> Iterator[DeploymentLoop]:
    cluster = LocalCluster()
    cluster.create(NAMESPACES, {"metadata": {"name": "fp", "labels": {}}})
    running = DeploymentLoop(cluster, "fp")
    yield running
    running.stop()


def held(count: int, now: float) -> Signals:
    return Signals((GatewayReport("g", now, held={"fp/chat": count} if count else {}),))


def test_a_pool_at_zero_is_woken_by_a_held_request(loop: DeploymentLoop) -> None:
    loop.create("chat", scaling={"min": 0, "max": 2})
    until(lambda: loop.condition("chat", "Ready") == ("True", "Idle"), seconds=5, what="idle")
    told = loop.rounds.records()["fp/chat"]
    assert (told.phase, told.serving, told.desired, told.startable) == ("Idle", 0, 0, True)
    assert told.eta_seconds is not None
    assert told.max_model_len > 0
    loop.signals = held(1, loop.rounds.clock())
    until(lambda: loop.serves("chat", 1), seconds=5, what="the first replica")
    told = loop.rounds.records()["fp/chat"]
    assert (told.phase, told.serving, told.eta_seconds) == ("Serving", 1, 0.0)


def test_a_pool_where_nothing_may_run_is_not_told_as_startable(loop: DeploymentLoop) -> None:
    loop.create("chat", scaling={"min": 0, "max": 2})
    until(lambda: loop.condition("chat", "Ready") == ("True", "Idle"), seconds=5, what="idle")
    mark: Object = {"metadata": {"labels": {SUSPENDED_LABEL: "insufficient_balance"}}}
    loop.cluster.patch(NAMESPACES, "fp", mark)
    until(lambda: not loop.rounds.records()["fp/chat"].startable, seconds=5, what="the pool's news")
    assert loop.rounds.records()["fp/chat"].eta_seconds is None


def test_a_replica_whose_object_cannot_be_read_keeps_its_slot(loop: DeploymentLoop) -> None:
    loop.create("chat")
    until(lambda: loop.serves("chat", 1), seconds=5, what="a replica")
    caches = loop.rounds.caches
    body = dict(caches.replicas.body("fp", "chat-0") or {})
    body["metadata"] = {**body["metadata"], "resourceVersion": "1000000"}
    caches.replicas.assume({**body, "spec": {**body["spec"], "path": "unheard-of"}})
    until(lambda: len(loop.replicas()) == 2, seconds=5, what="another")
    assert [it.name for it in loop.replicas()] == ["chat-0", "chat-1"]


def test_a_deployment_that_cannot_be_read_keeps_what_it_has_and_can_be_deleted(
    loop: DeploymentLoop,
) -> None:
    loop.create("chat")
    until(lambda: loop.serves("chat", 1), seconds=5, what="a replica")
    caches = loop.rounds.caches.deployments
    body = dict(caches.body("fp", "chat") or {})
    body["metadata"] = {**body["metadata"], "resourceVersion": "1000000"}
    caches.assume({**body, "spec": {**body["spec"], "path": "unheard-of"}})
    until(
        lambda: loop.condition("chat", "Accepted") == ("False", "InvalidSpec"), seconds=5, what=""
    )
    assert [it.spec.drain for it in loop.replicas()] == [""]


def test_a_catalogue_that_changes_is_taken_up(loop: DeploymentLoop) -> None:
    loop.catalogue = {}
    loop.create("chat")
    refused = ("False", "UnknownConfiguration")
    until(lambda: loop.condition("chat", "Accepted") == refused, seconds=5, what="the refusal")
    loop.catalogue = {TINY.id: TINY}
    loop.rounds.ask_all()
    until(lambda: loop.serves("chat", 1), seconds=5, what="a replica")


def test_a_deleted_deployment_ends_with_its_last_replica(loop: DeploymentLoop) -> None:
    loop.create("chat", replicas=2)
    until(lambda: loop.serves("chat", 2), seconds=5, what="two replicas")
    loop.cluster.delete(DEPLOYMENTS, "chat", namespace="fp")

    def gone() -> bool:
        loop.live_on()
        try:
            return not loop.deployment("chat")
        except NotFound:
            return not loop.cluster.list(REPLICAS).items

    until(gone, seconds=5, what="the end")
    until(lambda: "fp/chat" not in loop.rounds.records(), seconds=5, what="its pool's end")


def test_replicas_of_a_pool_have_an_identity_in_its_namespace(loop: DeploymentLoop) -> None:
    loop.create("chat")
    until(lambda: loop.serves("chat", 1), seconds=5, what="a replica")
    assert loop.cluster.list(SERVICE_ACCOUNTS, namespace="fp").items


def test_a_tenant_of_two_deployments_has_the_quota_of_both() -> None:
    cluster = LocalCluster()
    cluster.create(NAMESPACES, {"metadata": {"name": "fp", "labels": {TENANT_LABEL: "acme"}}})
    loop = DeploymentLoop(cluster, "fp")
    try:
        parts = {"path": "dedicated", "tenant": "acme"}
        loop.create("one", replicas=2, **parts)
        loop.create("two", scaling={"max": 5}, budgetGPUs=3, **parts)
        deployments = [loop.deployment("one"), loop.deployment("two")]
        assert quota(deployments, [], loop.catalogue) == {"flashplane.io/tiny": 3 + 3}
    finally:
        loop.stop()
