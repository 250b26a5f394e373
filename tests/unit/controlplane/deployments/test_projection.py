"""Rows become custom resources and come back with what the cluster says, in memory."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from support.orders import H200, SMALL
from support.projecting import Projector
from support.shop import Shop

from controlplane.cluster import NAMESPACES, Invalid, NotFound, Object, Unreachable
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, FINALIZER, TENANT_LABEL
from controlplane.deployments import rows
from controlplane.deployments.models import Deployment, OfferedConfiguration
from controlplane.deployments.projection import observe, project
from controlplane.local.objects import Call, LocalCluster, Moment
from controlplane.tenants import tenants

NAME = "bot"


class Faults:
    """Counts writes and fails what it is told to."""

    def __init__(self) -> None:
        self.writes = 0
        self.fail: Callable[[Call], Exception | None] = lambda call: None

    def __call__(self, call: Call, moment: Moment) -> None:
        if moment == "before" and call.verb not in ("list", "get", "watch"):
            self.writes += 1
            error = self.fail(call)
            if error is not None:
                raise error


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def projector(shop: Shop, faults: Faults) -> Projector:
    cluster = LocalCluster(faults=faults)
    cluster.create(NAMESPACES, {"metadata": {"name": "flashplane"}})
    return Projector(shop, cluster)


def suspend(projector: Projector, status: str) -> None:
    with projector.shop.sessions.begin() as session:
        tenants.set_status(session, tenant_id=projector.customer.tenant_id, status=status)


def spec_of(projector: Projector, row: Deployment) -> Object:
    spec: Object = projector.cluster.get(DEPLOYMENTS, row.name, namespace=row.namespace)["spec"]
    return spec


def test_an_order_becomes_an_object_in_its_tenants_namespace(projector: Projector) -> None:
    row = projector.order()
    assert projector.project() == 1
    found = projector.cluster.get(DEPLOYMENTS, NAME, namespace=row.namespace)
    assert found["spec"]["tenant"] == str(row.tenant_id)
    labels = projector.cluster.get(NAMESPACES, row.namespace)["metadata"]["labels"]
    assert labels[TENANT_LABEL] == str(row.tenant_id)


def test_where_nothing_differs_nothing_is_written(projector: Projector, faults: Faults) -> None:
    projector.order()
    projector.order("bare", name="gpu")
    projector.pool()
    assert projector.project() == 3
    projector.observe()
    writes = faults.writes
    assert [projector.project(), projector.observe()] == [0, 0]
    assert faults.writes == writes


def test_a_change_reaches_the_object_and_the_answer_comes_back(projector: Projector) -> None:
    row = projector.order()
    projector.project()
    projector.change(row, {"replicas": 3})
    projector.project()
    found = projector.cluster.get(DEPLOYMENTS, NAME, namespace=row.namespace)
    assert found["spec"]["replicas"] == 3
    projector.say(DEPLOYMENTS, row, {"observedGeneration": 1, "phase": "Serving"})
    projector.observe()
    assert (projector.row(row).status["phase"], projector.row(row).observed_generation) == (
        "Serving",
        0,
    )
    generation = found["metadata"]["generation"]
    projector.say(DEPLOYMENTS, row, {"observedGeneration": generation, "phase": "Serving"})
    projector.observe()
    assert projector.row(row).observed_generation == 2


def test_a_row_without_money_is_stopped_in_the_cluster(projector: Projector) -> None:
    dedicated, bare = projector.order(), projector.order("bare", name="gpu")
    projector.project()
    with projector.shop.sessions.begin() as session:
        rows.stop_for_funds(session, {dedicated.id, bare.id})
    assert projector.project() == 2
    found = projector.cluster.get(DEPLOYMENTS, NAME, namespace=dedicated.namespace)
    assert found["spec"]["stopped"] is True
    found = projector.cluster.get(ENDPOINTS, "gpu", namespace=bare.namespace)
    assert found["spec"]["state"] == "Stopped"
    assert projector.row(dedicated).spec["stopped"] is False


def test_a_suspended_tenants_deployments_are_stopped_and_start_again(projector: Projector) -> None:
    row, _ = projector.order(), projector.order("bare", name="gpu")
    pool = projector.pool()
    projector.project()
    suspend(projector, "suspended")
    assert [projector.project(), projector.project()] == [2, 0]
    assert spec_of(projector, row)["stopped"] is True
    found = projector.cluster.get(ENDPOINTS, "gpu", namespace=row.namespace)
    assert found["spec"]["state"] == "Stopped"
    assert spec_of(projector, pool)["stopped"] is False
    suspend(projector, "active")
    assert [projector.project(), projector.project()] == [2, 0]
    assert spec_of(projector, row)["stopped"] is False


def test_a_row_that_gets_no_answer_keeps_no_other_waiting(
    projector: Projector, faults: Faults
) -> None:
    silent, other = projector.order(), projector.order(name="other")

    def fail(call: Call) -> Exception | None:
        return Unreachable("timed out") if call.name == silent.name else None

    faults.fail = fail
    assert projector.project() == 1
    assert spec_of(projector, other)
    assert projector.row(silent).refusal == "timed out"


def test_a_cluster_that_begins_anew_gets_everything_again(projector: Projector) -> None:
    row = projector.order()
    projector.project()
    projector.cluster = LocalCluster()
    assert projector.project() == 1
    assert projector.cluster.get(DEPLOYMENTS, NAME, namespace=row.namespace)


def test_what_was_changed_by_hand_is_put_right(projector: Projector) -> None:
    row = projector.order()
    projector.project()
    change: Object = {"spec": {"replicas": 7}}
    projector.cluster.patch(DEPLOYMENTS, NAME, change, namespace=row.namespace)
    assert projector.project() == 1
    found = projector.cluster.get(DEPLOYMENTS, NAME, namespace=row.namespace)
    assert found["spec"]["replicas"] == 1


def test_a_deleted_row_is_gone_when_its_object_is(projector: Projector) -> None:
    row = projector.order()
    projector.project()
    held = {"metadata": {"finalizers": [FINALIZER]}}
    projector.cluster.patch(DEPLOYMENTS, NAME, held, namespace=row.namespace)
    projector.delete(row)
    assert [projector.project(), projector.project()] == [1, 0]
    assert projector.row(row).state == "deleting"
    freed: Object = {"metadata": {"finalizers": None}}
    projector.cluster.patch(DEPLOYMENTS, NAME, freed, namespace=row.namespace)
    projector.project()
    assert projector.row(row).state == "deleted"
    assert projector.order().id != row.id


def test_a_refusal_is_told_and_not_repeated_at_once(projector: Projector, faults: Faults) -> None:
    row = projector.order()
    other = projector.order(name="other")
    faults.fail = lambda call: Invalid("spec.x: bad") if call.name == NAME else None
    assert projector.project() == 1
    assert projector.row(row).refusal == "spec.x: bad"
    assert projector.row(other).refusal is None
    writes = faults.writes
    projector.project()
    assert faults.writes == writes
    faults.fail = lambda call: None
    projector.change(row, {"replicas": 2})
    assert projector.project() == 1
    assert projector.row(row).refusal is None


def test_a_row_that_no_longer_makes_sense_holds_up_no_other(projector: Projector) -> None:
    row, other = projector.order(), projector.order(name="other")
    with projector.shop.sessions.begin() as session:
        session.get_one(Deployment, row.id).spec = {"path": "dedicated", "gone": 1}
    assert projector.project() == 1
    assert "gone" in (projector.row(row).refusal or "")
    assert projector.row(other).refusal is None


def test_an_unreachable_cluster_changes_no_row(projector: Projector, faults: Faults) -> None:
    row = projector.order()
    projector.project()
    projector.delete(row)
    faults.fail = lambda call: Unreachable("away")
    with pytest.raises(Unreachable):
        projector.project()
    assert projector.row(row).state == "deleting"
    faults.fail = lambda call: None
    projector.project()
    projector.project()
    assert projector.row(row).state == "deleted"


def test_a_write_that_was_done_after_all_does_not_outlive_its_row(projector: Projector) -> None:
    row = projector.order()
    projector.project()
    late = projector.cluster.get(DEPLOYMENTS, NAME, namespace=row.namespace)
    projector.delete(row)
    projector.project()
    projector.project()
    assert projector.row(row).state == "deleted"
    metadata = {name: late["metadata"][name] for name in ("namespace", "name", "annotations")}
    projector.cluster.create(DEPLOYMENTS, {**late, "metadata": metadata})
    assert projector.project() == 1
    with pytest.raises(NotFound):
        projector.cluster.get(DEPLOYMENTS, NAME, namespace=row.namespace)


def by_hand(projector: Projector, namespace: str = "gitops", tenant: str = "") -> Object:
    if namespace == "gitops":
        projector.cluster.create(NAMESPACES, {"metadata": {"name": namespace}})
    spec: dict[str, Any] = {
        "path": "dedicated",
        "tenant": tenant or str(projector.customer.tenant_id),
        "configurations": ["h200-x4"],
        "replicas": 1,
        "weights": {"pvc": {"claim": "w"}},
    }
    body = {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": {"namespace": namespace, "name": NAME},
        "spec": spec,
    }
    return projector.cluster.create(DEPLOYMENTS, body)


def external(projector: Projector) -> list[Deployment]:
    with projector.shop.sessions.begin() as session:
        query = select(Deployment).where(Deployment.managed == "external")
        return list(session.scalars(query.where(Deployment.state != "deleted")))


def test_a_hand_written_object_shows_up_follows_and_disappears(projector: Projector) -> None:
    by_hand(projector)
    assert projector.observe() == 1
    (row,) = external(projector)
    assert (row.tenant_id, row.name) == (projector.customer.tenant_id, NAME)
    projector.cluster.patch(DEPLOYMENTS, NAME, {"spec": {"replicas": 4}}, namespace="gitops")
    assert [projector.observe(), projector.observe()] == [1, 0]
    (row,) = external(projector)
    assert row.spec["replicas"] == 4
    assert projector.project() == 0
    projector.cluster.delete(DEPLOYMENTS, NAME, namespace="gitops")
    assert projector.observe() == 1
    assert external(projector) == []


def test_a_hand_written_object_of_nobody_we_know_is_shown_to_admins_only(
    projector: Projector,
) -> None:
    by_hand(projector, tenant=str(uuid.uuid4()))
    projector.observe()
    (row,) = external(projector)
    assert row.tenant_id is None


def test_a_hand_written_object_is_never_taken_over(projector: Projector, faults: Faults) -> None:
    row = projector.order()
    body = {"metadata": {"name": row.namespace}}
    projector.cluster.create(NAMESPACES, body)
    by_hand(projector, namespace=row.namespace)
    writes = faults.writes
    projector.project()
    projector.observe()
    assert faults.writes == writes
    assert "by hand" in (projector.row(row).refusal or "")
    projector.delete(row)
    projector.project()
    assert projector.row(row).state == "deleted"
    assert projector.cluster.get(DEPLOYMENTS, NAME, namespace=row.namespace)


def test_the_catalogue_is_copied_with_its_stock(projector: Projector) -> None:
    projector.offer(H200, SMALL)
    projector.node("n1", 8)
    projector.node("n2", 3)
    assert [projector.observe(), projector.observe()] == [2, 0]
    with projector.shop.sessions.begin() as session:
        offered = {it.id: it.free_replicas for it in session.scalars(select(OfferedConfiguration))}
    assert offered == {"h200-x4": 2, "rtx-4090": 11}
    projector.offer(SMALL)
    assert projector.observe() == 1 + 1


def test_one_works_at_a_time(projector: Projector) -> None:
    projector.order()
    sessions, cluster = projector.shop.sessions, projector.cluster
    with sessions.begin() as first, sessions.begin() as second:
        assert project(first, cluster) == 1
        assert project(second, cluster) == 0
        assert observe(second, cluster) == 0
