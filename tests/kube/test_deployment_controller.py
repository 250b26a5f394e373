"""Deployments over a real API server: types, status and namespaces as it stores them."""

from collections.abc import Iterator

import pytest
from support.deployment_loop import DeploymentLoop
from support.kube_objects import make_namespace
from support.polling import until

from controlplane.cluster import (
    NAMESPACES,
    NETWORK_POLICIES,
    RESOURCE_QUOTAS,
    SERVICE_ACCOUNTS,
    ClusterError,
    NotFound,
)
from controlplane.crd.base import DEPLOYMENTS, TENANT_LABEL
from controlplane.kube import Kube

from .conftest import NUMBERS


@pytest.fixture
def loop(cluster: Kube, namespace: str) -> Iterator[DeploymentLoop]:
    running = DeploymentLoop(cluster, namespace)
    yield running
    running.stop()


@pytest.fixture
def tenant_loop(kube: Kube) -> Iterator[DeploymentLoop]:
    name = f"tenant-{next(NUMBERS)}"
    make_namespace(kube, name, {TENANT_LABEL: "acme"})
    running = DeploymentLoop(kube, name)
    yield running
    running.stop()


def test_a_pool_starts_and_then_nothing_is_written(loop: DeploymentLoop) -> None:
    loop.create("chat", replicas=2)
    until(lambda: loop.serves("chat", 2), seconds=15, what="two replicas")
    until(lambda: loop.condition("chat", "Ready") == ("True", "AsWanted"), seconds=5, what="Ready")
    until(lambda: loop.live_on(), seconds=5, what="rest")
    loop.operator.writes.clear()
    for _ in range(20):
        loop.queue.add((loop.namespace, "chat"))
        until(loop.queue.is_idle, seconds=5, what="the round")
    assert loop.operator.writes == []


def test_a_changed_spec_rolls_out_and_a_deletion_ends(loop: DeploymentLoop) -> None:
    loop.create("chat")
    until(lambda: loop.serves("chat", 1), seconds=15, what="a replica")
    before = loop.deployment("chat").status.current_revision
    loop.change("chat", engine={"name": "flash", "maxModelLen": 512})

    def rolled_out() -> bool:
        loop.live_on()
        status = loop.deployment("chat").status
        return status.current_revision != before and [
            it.spec.revision for it in loop.replicas()
        ] == [status.current_revision]

    until(rolled_out, seconds=20, what="the new revision")
    loop.cluster.delete(DEPLOYMENTS, "chat", namespace=loop.namespace)

    def gone() -> bool:
        loop.live_on()
        try:
            return not loop.deployment("chat")
        except NotFound:
            return not loop.replicas()

    until(gone, seconds=20, what="the end")


def test_kubectl_scale_sets_the_number(loop: DeploymentLoop) -> None:
    loop.create("chat")
    until(lambda: loop.serves("chat", 1), seconds=15, what="a replica")
    loop.change("chat", replicas=3)
    until(lambda: loop.serves("chat", 3), seconds=15, what="three replicas")
    status = loop.deployment("chat").status
    assert status.selector == "flashplane.io/owner=chat"
    assert [it.after for it in status.decisions] == [1, 3]


def test_a_tenants_namespace_is_kept_and_what_is_removed_comes_back(
    tenant_loop: DeploymentLoop,
) -> None:
    loop = tenant_loop
    loop.create("chat", path="dedicated", tenant="acme")
    enforced = ("True", "AsWanted")
    until(lambda: loop.serves("chat", 1), seconds=15, what="a replica")
    until(
        lambda: loop.condition("chat", "IsolationEnforced") == enforced,
        seconds=15,
        what="isolation",
    )
    for resource in (NETWORK_POLICIES, RESOURCE_QUOTAS, SERVICE_ACCOUNTS):
        assert loop.cluster.list(resource, namespace=loop.namespace).items
    loop.cluster.delete(NETWORK_POLICIES, "default-deny", namespace=loop.namespace)
    loop.rounds.namespaces.forget(loop.namespace)
    loop.queue.add((loop.namespace, "chat"))

    def back() -> bool:
        try:
            return bool(
                loop.cluster.get(NETWORK_POLICIES, "default-deny", namespace=loop.namespace)
            )
        except NotFound:
            return False

    until(back, seconds=10, what="the policy")
    until(
        lambda: loop.condition("chat", "IsolationEnforced") == enforced,
        seconds=15,
        what="isolation",
    )
    until(lambda: loop.live_on(), seconds=5, what="rest")
    loop.rounds.namespaces.forget(loop.namespace)
    loop.operator.writes.clear()
    loop.queue.add((loop.namespace, "chat"))
    until(loop.queue.is_idle, seconds=5, what="the round")
    assert loop.operator.writes == []


def test_a_tenants_deployment_in_a_namespace_of_nobody_makes_nothing(loop: DeploymentLoop) -> None:
    loop.create("chat", path="dedicated", tenant="acme")
    until(
        lambda: loop.condition("chat", "Accepted") == ("False", "NamespaceNotTenant"),
        seconds=10,
        what="the refusal",
    )
    assert not loop.replicas()
    assert not loop.cluster.list(NETWORK_POLICIES, namespace=loop.namespace).items


def test_a_spec_that_the_servers_schema_let_through_is_refused_in_words(
    loop: DeploymentLoop,
) -> None:
    """A server without CEL rules takes a spec with neither replicas nor scaling."""
    loop.create("chat")
    until(lambda: loop.serves("chat", 1), seconds=15, what="a replica")
    try:
        loop.change("chat", replicas=None)
    except ClusterError:
        return  # this server has the rules
    until(lambda: accepted(loop) == ("False", "InvalidSpec"), seconds=10, what="the refusal")
    assert len(loop.replicas()) == 1
    loop.change("chat", replicas=1)
    until(lambda: loop.condition("chat", "Ready")[0] == "True", seconds=10, what="Ready")


def isolation(loop: DeploymentLoop) -> tuple[str, str]:
    return loop.condition("chat", "IsolationEnforced")


def accepted(loop: DeploymentLoop) -> tuple[str, str]:
    body = loop.cluster.get(DEPLOYMENTS, "chat", namespace=loop.namespace)
    found = [it for it in body["status"]["conditions"] if it["type"] == "Accepted"]
    return found[0]["status"], found[0]["reason"]


def test_a_namespace_that_ends_takes_the_deployment_with_it(tenant_loop: DeploymentLoop) -> None:
    loop = tenant_loop
    loop.create("chat", path="dedicated", tenant="acme")
    until(lambda: loop.serves("chat", 1), seconds=15, what="a replica")
    loop.cluster.delete(NAMESPACES, loop.namespace)

    def gone() -> bool:
        loop.live_on()
        try:
            return not loop.deployment("chat")
        except NotFound:
            return not loop.replicas()

    until(gone, seconds=30, what="the end")
