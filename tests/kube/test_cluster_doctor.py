"""`flashplane doctor --cluster` against a real API server, before and after the chart."""

import json
from contextlib import suppress
from typing import Any

import pytest
from support import release
from support.kube_server import KubeServer
from support.polling import until
from support.release import NAMESPACE
from typer.testing import CliRunner

from controlplane.cli.commands import app
from controlplane.cluster import NotFound
from controlplane.crd.base import REPLICAS
from controlplane.kube import Kube


def examined(server: KubeServer) -> dict[str, Any]:
    environment = {"KUBECONFIG": str(server.kubeconfig), "DATABASE_URL": "", "REDIS_URL": ""}
    words = ["doctor", "--cluster", "--namespace", NAMESPACE, "--json"]
    result = CliRunner().invoke(app, words, env=environment)
    return {it["check"]: it for it in json.loads(result.output)}


@pytest.fixture
def without_replicas(kube_server: KubeServer) -> None:
    """Take away the replicas that other tests of the same server have left, broken ones too."""
    kube = Kube(kube_server.kubeconfig)
    try:
        for left in kube.list(REPLICAS).items:
            name, namespace = left["metadata"]["name"], left["metadata"]["namespace"]
            with suppress(NotFound):
                loose = {"metadata": {"finalizers": None}}
                kube.patch(REPLICAS, name, loose, namespace=namespace)
                kube.delete(REPLICAS, name, namespace=namespace)
        until(lambda: not kube.list(REPLICAS).items, seconds=20, what="a server without replicas")
    finally:
        kube.close()


@pytest.mark.usefixtures("without_replicas")
def test_a_cluster_is_judged_before_and_after_an_install(kube_server: KubeServer) -> None:
    before = examined(kube_server)
    assert before["API server"]["ok"]
    assert before["Permissions"]["ok"]
    assert before["Definitions"]["ok"]
    assert not before["GPUs"]["ok"]  # no node at all
    assert before["Release"]["detail"] == f"not installed in {NAMESPACE}"
    release.install(kube_server)
    try:
        after = examined(kube_server)
        assert "fp-flashplane-operator 0/2" in after["Processes"]["detail"]
        assert not after["Operator"]["ok"]
        assert after["Replicas"]["ok"]
    finally:
        release.uninstall(kube_server)
