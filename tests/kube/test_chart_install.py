"""The charts on a real API server: install, change, roll back, leave; old definitions to new."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import helm, release
from support.kube_server import KubeServer
from support.polling import until
from support.release import NAME, NAMESPACE, installed, kubectl

from controlplane.crd.schema import HASH_ANNOTATION, schema_hash

POOL = {
    "apiVersion": "flashplane.io/v1alpha1",
    "kind": "InferenceDeployment",
    "metadata": {"name": "flash", "namespace": NAMESPACE},
    "spec": {
        "path": "serverless",
        "configurations": ["h200-x4"],
        "weights": {"pvc": {"claim": "weights"}},
        "scaling": {"max": 2},
        "holdTimeoutSeconds": 60,
    },
}


@pytest.fixture(scope="module")
def server(kube_server: KubeServer) -> Iterator[KubeServer]:
    """The server with both charts installed."""
    release.install(kube_server)
    yield kube_server
    release.uninstall(kube_server)


def read(server: KubeServer, kind: str, name: str) -> dict[str, Any]:
    words = ("get", kind, name, "--namespace", NAMESPACE, "--output", "yaml")
    body: dict[str, Any] = yaml.safe_load(kubectl(server, *words).stdout)
    return body


def test_every_object_passes_the_servers_own_checks(server: KubeServer) -> None:
    objects = helm.render(
        version=helm.OLDEST,
        values={
            "gateway": {
                "autoscaling": {
                    "minReplicas": 2,
                    "maxReplicas": 4,
                    "targetCPUUtilizationPercentage": 60,
                }
            },
            "ingress": {"enabled": True, "host": "api.example.com"},
        },
    )
    words = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename", "-")
    told = kubectl(server, *words, given=objects).stdout
    assert len(told.splitlines()) == len(objects)


def test_a_change_is_applied_and_taken_back(server: KubeServer) -> None:
    base = (str(helm.CHART), "--namespace", NAMESPACE, "--no-hooks")
    installed(server, "upgrade", NAME, *base, values={"api": {"replicas": 5}})
    assert read(server, "deployment", "fp-flashplane-api")["spec"]["replicas"] == 5
    installed(server, "rollback", NAME, "--namespace", NAMESPACE, "--no-hooks")
    assert read(server, "deployment", "fp-flashplane-api")["spec"]["replicas"] == 2


def test_a_refused_upgrade_changes_nothing(server: KubeServer) -> None:
    before = read(server, "statefulset", "fp-flashplane-gateway")
    result = helm.run(
        *("upgrade", NAME, str(helm.CHART), "--namespace", NAMESPACE, "--no-hooks"),
        values={**helm.GIVEN, "gateway": {"replica": 9}},
        kubeconfig=server.kubeconfig,
    )
    assert result.returncode != 0
    after = read(server, "statefulset", "fp-flashplane-gateway")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_the_same_release_again_changes_nothing(server: KubeServer) -> None:
    before = read(server, "statefulset", "fp-flashplane-gateway")["metadata"]["generation"]
    release.install(server)
    after = read(server, "statefulset", "fp-flashplane-gateway")["metadata"]["generation"]
    assert after == before


@pytest.mark.parametrize(
    ("path", "taught"),
    [
        ("inferencedeployments.spec.path", "billed by GPU-second"),
        ("inferencedeployments.spec.scaling.kvSpare", "Another replica when less"),
        ("inferencedeployments.spec.weights.digest", "SHA-256"),
        ("gpuendpoints.spec.sshKeys", "Who may log in"),
        ("replicas.spec.drain", "Why it is to end"),
    ],
)
def test_explain_teaches(server: KubeServer, path: str, taught: str) -> None:
    words = ("explain", path, "--api-version", "flashplane.io/v1alpha1")
    assert taught in " ".join(kubectl(server, *words).stdout.split())


def test_short_names_and_columns_show_a_pool(server: KubeServer) -> None:
    kubectl(server, "apply", "--server-side", "--filename", "-", given=POOL)
    told = kubectl(server, "get", "infd", "--namespace", NAMESPACE).stdout
    assert {"READY", "PATH", "SERVING", "DESIRED", "GPUS"} <= set(told.splitlines()[0].split())
    assert "serverless" in told
    kubectl(server, "delete", "infd", "flash", "--namespace", NAMESPACE)


def old_chart(folder: Path) -> Path:
    """Return an earlier version of the definitions: it knows no `holdTimeoutSeconds`."""
    chart = folder / "flashplane-crds"
    shutil.copytree(helm.CRDS_CHART, chart)
    file = chart / "files/inferencedeployments.yaml"
    body = yaml.safe_load(file.read_text())
    body["metadata"]["annotations"][HASH_ANNOTATION] = "older"
    (version,) = body["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["holdTimeoutSeconds"]
    file.write_text(yaml.safe_dump(body))
    return chart


def test_definitions_are_upgraded_and_objects_stay(server: KubeServer, tmp_path: Path) -> None:
    # The server's own set-up applied the definitions before helm did.
    base = ("--namespace", NAMESPACE, "--force-conflicts")
    name = "inferencedeployments.flashplane.io"
    installed(server, "upgrade", "crds", str(old_chart(tmp_path)), *base)
    try:
        kubectl(server, "wait", "--for=condition=Established", f"crd/{name}")
        without = {**POOL, "spec": {**POOL["spec"]}}
        del without["spec"]["holdTimeoutSeconds"]
        kubectl(server, "apply", "--server-side", "--filename", "-", given=without)
        uid = read(server, "infd", "flash")["metadata"]["uid"]
        assert "holdTimeoutSeconds" not in read(server, "infd", "flash")["spec"]
    finally:
        installed(server, "upgrade", "crds", str(helm.CRDS_CHART), *base)
    stored = read(server, "infd", "flash")
    assert stored["metadata"]["uid"] == uid
    assert stored["spec"]["holdTimeoutSeconds"] == 120  # the new default
    definition = read(server, "crd", name)
    assert definition["metadata"]["annotations"][HASH_ANNOTATION] == schema_hash()
    kubectl(server, "delete", "infd", "flash", "--namespace", NAMESPACE)


def test_leaving_takes_all_but_definitions_and_journals(kube_server: KubeServer) -> None:
    release.install(kube_server)
    claim = ("get", "pvc", "journal-fp-flashplane-gateway-0", "--namespace", NAMESPACE)

    def has_journal() -> bool:
        return kubectl(kube_server, *claim, check=False).returncode == 0

    until(has_journal, seconds=20, what="the StatefulSet's claim of a journal")
    release.uninstall(kube_server)
    installed(kube_server, "uninstall", "crds", "--namespace", NAMESPACE)
    try:
        labelled = ("--selector", f"app.kubernetes.io/instance={NAME}", "--output", "name")
        kinds = "statefulsets,deployments,services,serviceaccounts,networkpolicies,configmaps"
        left = kubectl(kube_server, "get", kinds, "--namespace", NAMESPACE, *labelled).stdout
        assert left == ""
        wide = kubectl(kube_server, "get", "clusterroles,clusterrolebindings", *labelled).stdout
        assert wide == ""
        assert kubectl(kube_server, "get", "crd", "replicas.flashplane.io").returncode == 0
        assert has_journal()
    finally:
        release.install(kube_server)
