"""A replica's plans on a real API server: it takes the statuses, the pods and the end."""

from dataclasses import replace

import pytest
from support.kube_objects import a_replica
from support.replica_world import node_body

from controlplane.cluster import PODS, SERVICE_ACCOUNTS, Conflict, NotFound
from controlplane.crd.base import FINALIZER, REPLICAS
from controlplane.crd.replica import Phase, Placement, Replica
from controlplane.kube import Kube
from controlplane.operator.capacity.nodes import Node
from controlplane.operator.manifests.settings import SERVICE_ACCOUNT, PodSettings
from controlplane.operator.manifests.workload import EngineWorkload
from controlplane.operator.replica.observed import Observed
from controlplane.operator.replica.plan import plan
from controlplane.operator.runtime.executor import Executor

NOW = 1_800_000_000.0


def observed(cluster: Kube, namespace: str) -> Observed:
    replica = Replica.of(cluster.get(REPLICAS, "shop-0", namespace=namespace))
    return Observed(
        replica=replica,
        workload=EngineWorkload(PodSettings(images={"flash": "registry/flash@sha256:0"})),
        all_pods=tuple(cluster.list(PODS, namespace=namespace).items),
        nodes={"n1": Node.of(node_body("n1"))},
        offer=(Placement(node="n1", gpus=1),) if replica.status.phase is Phase.PENDING else (),
    )


@pytest.fixture
def made(cluster: Kube, namespace: str) -> None:
    """A dedicated replica in the namespace."""
    body = a_replica(namespace, "shop-0")
    body["metadata"]["finalizers"] = [FINALIZER]
    engine = {
        "ownerKind": "InferenceDeployment",
        "owner": "shop",
        "path": "dedicated",
        "tenant": "acme",
        "model": "flash@shop",
        "engine": {},
        "weights": {"pvc": {"claim": "weights"}},
    }
    body["spec"] |= engine
    body["spec"]["configuration"] |= {"architecture": "cpu"}
    account = {"metadata": {"namespace": namespace, "name": SERVICE_ACCOUNT}}
    cluster.create(SERVICE_ACCOUNTS, account)
    cluster.create(REPLICAS, body)


def test_it_is_reserved_started_and_let_go(cluster: Kube, namespace: str, made: None) -> None:
    executor = Executor(cluster, [])
    seen = observed(cluster, namespace)
    refusal = seen.at(seen.status.model_copy(update={"placements": list(seen.offer)})).refusal
    assert refusal is None
    executor.execute(plan(seen, NOW))
    seen = observed(cluster, namespace)
    assert seen.status.phase is Phase.RESERVED
    assert seen.status.placements == [Placement(node="n1", gpus=1)]
    assert [pod["metadata"]["name"] for pod in seen.all_pods] == ["shop-0-0"]
    assert plan(seen, NOW).actions == ()
    cluster.delete(REPLICAS, "shop-0", namespace=namespace)
    for _ in range(4):
        try:
            executor.execute(plan(observed(cluster, namespace), NOW))
        except NotFound:
            break
    with pytest.raises(NotFound):
        cluster.get(REPLICAS, "shop-0", namespace=namespace)


def test_a_status_planned_on_an_old_object_is_refused(
    cluster: Kube, namespace: str, made: None
) -> None:
    seen = observed(cluster, namespace)
    cluster.patch(REPLICAS, "shop-0", {"spec": {"drain": "enough"}}, namespace=namespace)
    with pytest.raises(Conflict):
        Executor(cluster, []).execute(plan(replace(seen), NOW))
    assert cluster.list(PODS, namespace=namespace).items == []
