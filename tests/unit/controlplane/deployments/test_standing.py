"""Namespaces of hand-written objects say when their tenants may run nothing."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import select
from support.projecting import Projector
from support.shop import Shop

from controlplane.cluster import NAMESPACES
from controlplane.crd.base import DEPLOYMENTS, SUSPENDED_LABEL, TENANT_LABEL, Suspension
from controlplane.deployments import standing
from controlplane.deployments.models import Deployment, FundState
from controlplane.local.objects import LocalCluster
from controlplane.tenants import tenants


@pytest.fixture
def projector(shop: Shop) -> Projector:
    """A tenant with an object written by hand, seen already."""
    cluster = LocalCluster()
    cluster.create(NAMESPACES, {"metadata": {"name": "flashplane"}})
    projector = Projector(shop, cluster)
    tenant = str(projector.customer.tenant_id)
    namespace = {"metadata": {"name": "gitops", "labels": {TENANT_LABEL: tenant}}}
    cluster.create(NAMESPACES, namespace)
    spec = {
        "path": "dedicated",
        "tenant": tenant,
        "configurations": ["h200-x4"],
        "replicas": 1,
        "weights": {"pvc": {"claim": "w"}},
    }
    body = {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": {"namespace": "gitops", "name": "bot"},
        "spec": spec,
    }
    cluster.create(DEPLOYMENTS, body)
    projector.observe()
    return projector


def labels(projector: Projector) -> dict[str, str]:
    found: dict[str, str] = projector.cluster.get(NAMESPACES, "gitops")["metadata"]["labels"]
    return found


def sink(projector: Projector, level: str) -> None:
    tenant_id = projector.customer.tenant_id
    with projector.shop.sessions.begin() as session:
        row = session.get(FundState, tenant_id) or FundState(tenant_id=tenant_id)
        row.level, row.seen_p, row.refilled = level, 0, False
        row.empty_since = datetime.now(UTC) if level == "empty" else None
        session.add(row)


def set_status(projector: Projector, status: str) -> None:
    with projector.shop.sessions.begin() as session:
        tenants.set_status(session, tenant_id=projector.customer.tenant_id, status=status)


def stopped(projector: Projector) -> list[Suspension]:
    """Why the deployments that there are are stopped whatever their specs say."""
    with projector.shop.sessions.begin() as session:
        rows = session.scalars(select(Deployment)).all()
        assert len(rows) == 1
        return list(standing.why_stopped(session, rows).values())


def test_a_namespace_says_that_the_money_is_used_up_until_some_comes_in(
    projector: Projector,
) -> None:
    assert projector.project() == 0
    sink(projector, "hour")
    assert projector.project() == 0
    sink(projector, "empty")
    assert [projector.project(), projector.project()] == [1, 0]
    assert labels(projector)[SUSPENDED_LABEL] == "insufficient_balance"
    sink(projector, "enough")
    assert [projector.project(), projector.project()] == [1, 0]
    assert labels(projector) == {TENANT_LABEL: str(projector.customer.tenant_id)}


@pytest.mark.parametrize("why", sorted(Suspension))
def test_an_object_written_by_hand_is_told_as_stopped_and_why(
    projector: Projector, why: Suspension
) -> None:
    assert stopped(projector) == []
    if why is Suspension.FUNDS:
        sink(projector, "empty")
    else:
        set_status(projector, "suspended")
    assert stopped(projector) == [why]


def test_a_namespace_says_that_its_tenant_is_suspended(projector: Projector) -> None:
    set_status(projector, "suspended")
    projector.project()
    assert labels(projector)[SUSPENDED_LABEL] == "tenant_suspended"
    set_status(projector, "active")
    projector.project()
    assert SUSPENDED_LABEL not in labels(projector)


def test_what_is_taken_off_by_hand_is_put_back(projector: Projector) -> None:
    set_status(projector, "suspended")
    projector.project()
    change = {"metadata": {"labels": {SUSPENDED_LABEL: None}}}
    projector.cluster.patch(NAMESPACES, "gitops", change)
    assert projector.project() == 1


def test_a_namespace_of_somebody_else_is_left_alone(projector: Projector) -> None:
    change = {"metadata": {"labels": {TENANT_LABEL: "another"}}}
    projector.cluster.patch(NAMESPACES, "gitops", change)
    set_status(projector, "suspended")
    assert projector.project() == 0
