"""`Kube` applies and patches on a real API server as `Cluster` says."""

import pytest
from support.kube_objects import a_replica, settings_map

from controlplane import cluster as words
from controlplane.cluster import CONFIG_MAPS, NAMESPACES
from controlplane.crd.base import REPLICAS
from controlplane.kube import Kube


def test_nothing_is_let_into_a_namespace_that_ends(kube: Kube, namespace: str) -> None:
    ending = f"{namespace}-ending"
    body = {"metadata": {"name": ending}}
    kube.create(NAMESPACES, body)
    held = settings_map(ending, "held")
    held["metadata"]["finalizers"] = ["example.org/hold"]
    kube.create(CONFIG_MAPS, held)
    kube.delete(NAMESPACES, ending)
    with pytest.raises(words.NamespaceTerminating):
        kube.create(CONFIG_MAPS, settings_map(ending, "late"))
    kube.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, namespace=ending)


def test_a_status_is_written_beside_the_spec(cluster: Kube, namespace: str) -> None:
    body = a_replica(namespace, "r")
    cluster.apply(REPLICAS, body)
    written = cluster.apply_status(REPLICAS, {**body, "status": {"phase": "Reserved"}})
    assert (written["status"]["phase"], written["metadata"]["generation"]) == ("Reserved", 1)
    assert cluster.apply(REPLICAS, body)["status"]["phase"] == "Reserved"
    stale = {**body["metadata"], "resourceVersion": "1"}
    with pytest.raises(words.Conflict):
        cluster.apply_status(REPLICAS, {"metadata": stale, "status": {"phase": "Failed"}})


def test_what_a_manager_leaves_out_goes_and_what_others_own_stays(
    cluster: Kube, namespace: str
) -> None:
    cluster.apply(CONFIG_MAPS, settings_map(namespace, "a", mine="1", gone="1"))
    cluster.apply(CONFIG_MAPS, settings_map(namespace, "a", theirs="2"), manager="other")
    applied = cluster.apply(CONFIG_MAPS, settings_map(namespace, "a", mine="3"))
    assert applied["data"] == {"mine": "3", "theirs": "2"}


def test_applying_the_same_again_writes_nothing(cluster: Kube, namespace: str) -> None:
    body = a_replica(namespace, "r")
    versions = {
        cluster.apply(REPLICAS, body)["metadata"]["resourceVersion"],
        cluster.apply(REPLICAS, body)["metadata"]["resourceVersion"],
    }
    assert len(versions) == 1
