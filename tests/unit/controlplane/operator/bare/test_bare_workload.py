"""A customer's pod from the outside: its manifest, how far it is, what the scrub says."""

from typing import Any

import kubernetes_validate
import pytest

from controlplane.cluster import Object
from controlplane.crd.conditions import Reason
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.bare.pods import BareSettings
from controlplane.operator.bare.proof import Report
from controlplane.operator.bare.workload import BareWorkload
from controlplane.operator.capacity.demand import tolerations

WORKLOAD = BareWorkload(BareSettings(tools_image="example.org/flashplane@sha256:00"))
H200 = GPUConfiguration(id="h200-x2", gpu="H200", count=2, memory_gib=139.8)


def lease(**bare: Any) -> Replica:
    spec = {
        "ownerKind": "GPUEndpoint",
        "owner": "dev",
        "path": "bare",
        "revision": "r",
        "configuration": H200.wire(),
        "bare": {"tenant": "t", "configurations": ["h200-x2"], **bare},
    }
    metadata = {"name": "dev-0", "namespace": "fp-t", "uid": "u"}
    placed = {"phase": "Reserved", "placements": [{"node": "n1", "gpus": 2}]}
    return Replica.of({"metadata": metadata, "spec": spec, "status": placed})


def pods(replica: Replica) -> list[Object]:
    made = WORKLOAD.manifests(replica) + WORKLOAD.scrub_manifests(replica)
    return [body for _, body in made]


def test_pods_are_what_current_kubernetes_takes() -> None:
    volume = {"sizeGiB": 5, "mountPath": "/data"}
    replica = lease(volume=volume, ports=[{"name": "web", "port": 80}], env={"A": "b"})
    for pod in pods(replica):
        kubernetes_validate.validate(pod, "1.34", strict=True)


def test_every_container_is_confined_as_restricted_namespaces_demand() -> None:
    for pod in pods(lease()):
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
            context = container["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_its_pods_go_where_it_was_placed_whatever_taints_are_there() -> None:
    for pod in pods(lease()):
        assert pod["spec"]["tolerations"] == tolerations(lease().spec)


def test_the_check_sees_the_same_gpus_as_the_customer() -> None:
    workspace, scrub = pods(lease())
    for container in (
        workspace["spec"]["initContainers"][0],
        workspace["spec"]["containers"][0],
        scrub["spec"]["containers"][0],
    ):
        assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    for pod in (workspace, scrub):
        term = pod["spec"]["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]["nodeSelectorTerms"][0]["matchExpressions"][0]
        assert term["values"] == ["n1"]


def test_the_default_image_is_for_the_cuda_that_was_chosen() -> None:
    container = pods(lease(cuda="13.0"))[0]["spec"]["containers"][0]
    assert "cuda:13.0" in container["image"]
    assert container["command"] == ["sleep", "infinity"]
    own = pods(lease(image="me/it@sha256:1"))[0]["spec"]["containers"][0]
    assert "command" not in own


def seen(*, check: Object | None = None, workspace: Object | None = None, **more: Any) -> Object:
    status: Object = dict(more)
    if check is not None:
        status["initContainerStatuses"] = [{"name": "sanitize", **check}]
    if workspace is not None:
        status["containerStatuses"] = [{"name": "workspace", **workspace}]
    return {"metadata": {"name": "dev-0-0"}, "spec": {"nodeName": "n1"}, "status": status}


PASSED: Object = {"state": {"terminated": {"exitCode": 0}}}
DIRTY = Report(["a", "b"], 1, 0, "absent").encode()
READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("pod", "phase", "reason"),
    [
        (seen(), Phase.SCHEDULED, None),
        (seen(check={"state": {"running": {}}}), Phase.FETCHING, None),
        (
            seen(check={"state": {"terminated": {"exitCode": 1, "message": DIRTY}}}),
            Phase.FETCHING,
            Reason.SCRUB_FAILED,
        ),
        (
            seen(
                check={
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 1, "message": DIRTY}},
                }
            ),
            Phase.FETCHING,
            Reason.SCRUB_FAILED,
        ),
        (
            seen(check=PASSED, workspace={"state": {"waiting": {"reason": "ErrImagePull"}}}),
            Phase.LOADING,
            Reason.IMAGE_UNAVAILABLE,
        ),
        (seen(check=PASSED, workspace={"state": {"running": {}}}), Phase.LOADING, None),
        (
            seen(check=PASSED, workspace={"state": {"running": {}}}, conditions=READY),
            Phase.PROBING,
            None,
        ),
        (
            seen(
                check=PASSED,
                workspace={
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 2}},
                },
            ),
            Phase.LOADING,
            Reason.ENGINE_FAILED,
        ),
        (seen(phase="Failed", reason="Evicted"), Phase.SCHEDULED, Reason.PREEMPTED),
        (
            seen(phase="Failed", reason="UnexpectedAdmissionError"),
            Phase.SCHEDULED,
            Reason.WAITING_FOR_CAPACITY,
        ),
        (seen(phase="Failed", workspace={"state": {}}), Phase.SCHEDULED, Reason.ENGINE_FAILED),
    ],
)
def test_how_far_a_pod_is(pod: Object, phase: Phase, reason: Reason | None) -> None:
    progress = WORKLOAD.stage(lease(), [pod])
    assert (progress.phase, progress.reason) == (phase, reason)


def test_gpus_are_free_only_after_a_good_report() -> None:
    def scrub(state: Object, **status: Any) -> list[Object]:
        containers = [{"name": "scrub", "state": state}]
        return [{"status": {"containerStatuses": containers, **status}}]

    clean = Report(["a", "b"], 0, 3, "passed").encode()
    assert WORKLOAD.scrub_proof(lease(), scrub({"running": {}}), 0) is None
    good = WORKLOAD.scrub_proof(lease(), scrub({"terminated": {"message": clean}}), 0)
    assert good is not None
    assert good.ok
    for message in (DIRTY, "", "nonsense"):
        bad = WORKLOAD.scrub_proof(lease(), scrub({"terminated": {"message": message}}), 0)
        assert bad is not None
        assert not bad.ok
    late = WORKLOAD.scrub_proof(lease(), scrub({}, phase="Failed"), 0)
    assert late is not None
    assert not late.ok
