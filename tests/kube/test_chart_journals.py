"""A scale-down leaves a claim; its journal is replayed, with the rights of the chart's account."""

from collections.abc import Iterator

import pytest
import yaml
from support import release
from support.kube_server import KubeServer
from support.polling import until
from support.release import NAMESPACE, kubectl

from controlplane.cli.journals import JOBS, replay_orphans
from controlplane.cluster import Forbidden
from controlplane.kube import Kube

SET = "fp-flashplane-gateway"


@pytest.fixture
def finder(kube_server: KubeServer) -> Iterator[Kube]:
    """A client with the token of the chart's own ServiceAccount, after an install."""
    release.install(kube_server)
    client = Kube(release.kubeconfig(kube_server, "orphans"))
    yield client
    client.close()
    kubectl(kube_server, "delete", "jobs", "--all", "--namespace", NAMESPACE)
    release.uninstall(kube_server)


def left_behind(server: KubeServer) -> None:
    """Scale down, and wait until the claim has no pod any more."""
    words = ("--namespace", NAMESPACE)

    def pods() -> set[str]:
        return set(kubectl(server, "get", "pods", *words, "--output", "name").stdout.split())

    until(lambda: f"pod/{SET}-1" in pods(), seconds=20, what="the second gateway's pod")
    kubectl(server, "scale", "statefulset", SET, "--replicas=1", *words)
    until(lambda: f"pod/{SET}-1" not in pods(), seconds=20, what="the second gateway's end")


def test_a_scale_down_strands_no_journal(kube_server: KubeServer, finder: Kube) -> None:
    words = ("get", "configmap", "fp-flashplane-orphans", "--namespace", NAMESPACE)
    kept = yaml.safe_load(kubectl(kube_server, *words, "--output", "yaml").stdout)
    template = yaml.safe_load(kept["data"]["job.yaml"])
    assert list(replay_orphans(finder, NAMESPACE, SET, template)) == []
    left_behind(kube_server)
    assert list(replay_orphans(finder, NAMESPACE, SET, template)) == [f"{SET}-1"]
    assert list(replay_orphans(finder, NAMESPACE, SET, template)) == []
    (job,) = finder.list(JOBS, namespace=NAMESPACE).items
    pod = job["spec"]["template"]["spec"]
    claims = [it["persistentVolumeClaim"] for it in pod["volumes"] if it["name"] == "journal"]
    assert claims == [{"claimName": f"journal-{SET}-1"}]
    with pytest.raises(Forbidden):
        finder.list(JOBS, namespace="kube-system")
