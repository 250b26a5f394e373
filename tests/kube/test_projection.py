"""Rows and a real API server: its defaults and its merging leave nothing to write again."""

import os
import subprocess
import sys

import pytest
from support.kube_server import KubeServer
from support.orders import H200
from support.polling import until
from support.projecting import Projector
from support.shop import Shop, sessions, shop

from controlplane.cluster import NAMESPACES
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, TENANT_LABEL
from controlplane.kube import Kube

__all__ = ["sessions", "shop"]


@pytest.fixture
def projector(shop: Shop, cluster: Kube, namespace: str) -> Projector:
    return Projector(shop, cluster, namespace)


def test_orders_settle_on_a_real_server(projector: Projector) -> None:
    dedicated = projector.order()
    bare = projector.order("bare", name="gpu")
    pool = projector.pool()
    assert projector.project() == 3
    assert projector.project() == 0
    found = projector.cluster.get(DEPLOYMENTS, "bot", namespace=dedicated.namespace)
    labels = projector.cluster.get(NAMESPACES, dedicated.namespace)["metadata"]["labels"]
    assert labels[TENANT_LABEL] == found["spec"]["tenant"]
    projector.change(dedicated, {"replicas": None, "scaling": {"min": 1, "max": 2}})
    assert [projector.project(), projector.project()] == [1, 0]
    found = projector.cluster.get(DEPLOYMENTS, "bot", namespace=dedicated.namespace)
    assert "replicas" not in found["spec"]
    generation = found["metadata"]["generation"]
    projector.say(DEPLOYMENTS, dedicated, {"observedGeneration": generation, "phase": "Serving"})
    projector.observe()
    assert projector.row(dedicated).observed_generation == 2
    for row in (dedicated, bare, pool):
        projector.delete(row)
    assert projector.project() == 3

    def all_gone() -> bool:
        projector.project()
        return {projector.row(row).state for row in (dedicated, bare, pool)} == {"deleted"}

    until(all_gone, seconds=20, what="the objects to go")
    assert not [
        it
        for it in projector.cluster.list(ENDPOINTS).items
        if it["metadata"]["namespace"] == bare.namespace
    ]
    projector.cluster.delete(NAMESPACES, dedicated.namespace)


def test_the_jobs_project_with_the_clusters_credentials(
    projector: Projector, kube_server: KubeServer, database_url: str, redis_url: str
) -> None:
    row = projector.order()
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "KUBECONFIG": str(kube_server.kubeconfig),
        "FLASHPLANE_OPERATOR_NAMESPACE": projector.namespace,
        "FLASHPLANE_PROJECT_DEPLOYMENTS": "true",
    }
    program = (
        "from controlplane.jobs.app import app, project;"
        "assert 'project' in app.conf.beat_schedule; project()"
    )
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    assert projector.cluster.get(DEPLOYMENTS, "bot", namespace=row.namespace)
    projector.cluster.delete(NAMESPACES, row.namespace)


def test_the_catalogue_is_read_from_a_real_server(projector: Projector) -> None:
    projector.offer(H200)
    assert projector.observe() >= 1
    assert projector.observe() == 0
