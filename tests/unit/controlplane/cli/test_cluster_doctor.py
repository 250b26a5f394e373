"""What the doctor says of a cluster's parts: each verdict, with what to do."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from controlplane.cli import cluster_doctor as doctor
from controlplane.cli.commands import app
from controlplane.crd.base import timestamp

NOW = 1_800_000_000.0


def node(*, ready: bool = True, labels: dict[str, str] | None = None, **offers: str) -> Any:
    return {
        "metadata": {"name": "n", "labels": labels or {}},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "allocatable": {name.replace("__", "/"): amount for name, amount in offers.items()},
        },
    }


@pytest.mark.parametrize(
    ("version", "ok", "told"),
    [
        ("v1.19.3", False, "1.19"),
        ("v1.20.2", True, "checks no rules"),
        ("v1.28.0-gke.1", True, "no admission policies"),
        ("v1.34.2", True, "v1.34.2"),
        ("what?", False, "what?"),
    ],
)
def test_the_servers_version_is_judged(version: str, ok: bool, told: str) -> None:
    finding = doctor.server(version)
    assert (finding.ok, told in finding.detail) == (ok, True)
    assert ok or finding.fix


def test_gpus_of_ready_nodes_are_counted_by_product() -> None:
    h200 = {"nvidia.com/gpu.product": "NVIDIA-H200"}
    offers = {"nvidia.com__gpu": "8", "cpu": "96"}
    nodes = [node(labels=h200, **offers), node(labels=h200, **offers), node(ready=False, **offers)]
    assert doctor.gpus(nodes).detail == "16 nvidia.com/gpu NVIDIA-H200"


def test_a_cluster_without_gpus_is_told_what_to_install() -> None:
    finding = doctor.gpus([node(cpu="96")])
    assert not finding.ok
    assert "device plugin" in finding.fix


def test_a_default_storage_class_is_found() -> None:
    plain = {"metadata": {"name": "slow"}}
    chosen = {"metadata": {"name": "quick", "annotations": {doctor.DEFAULT_CLASS: "true"}}}
    assert doctor.storage([plain, chosen]).ok
    finding = doctor.storage([plain])
    assert (finding.ok, "slow" in finding.detail) == (False, True)
    assert "storageClassName" in finding.fix


def test_workloads_that_are_behind_are_named() -> None:
    well = {"metadata": {"name": "api"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 2}}
    behind = {"metadata": {"name": "operator"}, "spec": {"replicas": 2}}
    assert doctor.ready([well]).ok
    assert doctor.ready([well, behind]).detail == "operator 0/2"


def held(age_seconds: float, **spec: Any) -> Any:
    renewed = {"holderIdentity": "op-1", "renewTime": timestamp(NOW - age_seconds)}
    return {"spec": {**renewed, "leaseDurationSeconds": 15, **spec}}


def test_a_fresh_lease_names_the_leader() -> None:
    finding = doctor.lease(held(3), NOW)
    assert (finding.ok, "op-1" in finding.detail) == (True, True)


@pytest.mark.parametrize("lease", [held(60), held(1, holderIdentity="")])
def test_a_lease_that_is_old_or_nobodys_is_a_fault(lease: Any) -> None:
    assert not doctor.lease(lease, NOW).ok


def test_replicas_are_counted_and_broken_ones_are_a_fault() -> None:
    well = [{"status": {"phase": "Serving"}}, {"status": {"phase": "Loading"}}, {}]
    assert doctor.replicas(well).detail == "1 Loading, 1 Pending, 1 Serving"
    assert doctor.replicas(well).ok
    assert not doctor.replicas([*well, {"status": {"phase": "Quarantined"}}]).ok


def test_deployments_in_trouble_are_named_with_their_reason() -> None:
    condition = {"type": "Ready", "status": "False", "reason": "QuotaExceeded"}
    bad = {
        "metadata": {"namespace": "fp-acme", "name": "flash"},
        "status": {"conditions": [condition]},
    }
    finding = doctor.owners("InferenceDeployment", [bad])
    assert (finding.ok, finding.detail) == (False, "fp-acme/flash (QuotaExceeded)")
    assert doctor.owners("InferenceDeployment", []).ok


def test_without_credentials_the_doctor_says_so() -> None:
    environment = {"KUBECONFIG": "/nowhere", "DATABASE_URL": "", "REDIS_URL": ""}
    result = CliRunner().invoke(app, ["doctor", "--cluster", "--json"], env=environment)
    assert result.exit_code == 1
    (finding,) = [it for it in json.loads(result.output) if not it["ok"]]
    assert finding["check"] == "API server"
    assert "KUBECONFIG" in finding["fix"]
