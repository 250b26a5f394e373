"""What runs in a bare lease, as the replica's controller sees it: a customer's container; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.cluster import PODS, Object
from controlplane.crd.conditions import Reason
from controlplane.crd.endpoint import ScrubProof
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.bare.pods import (
    SANITIZE,
    SCRUB,
    WORKSPACE,
    BareSettings,
    scrub_pod,
    workspace_pod,
)
from controlplane.operator.bare.proof import decode, judge
from controlplane.operator.replica.workload import Manifest, Progress

_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_NOT_STARTED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class BareWorkload:
    """A `Workload`. Without an engine there is nothing to probe: a container that runs serves."""

    settings: BareSettings
    probed: bool = False
    needs_scrub: bool = True

    def manifests(self, replica: Replica) -> list[Manifest]:
        return [(PODS, workspace_pod(replica, self.settings))]

    def scrub_manifests(self, replica: Replica) -> list[Manifest]:
        return [(PODS, scrub_pod(replica, self.settings))]

    def stage(self, replica: Replica, pods: Sequence[Object]) -> Progress:
        if not pods or not pods[0].get("spec", {}).get("nodeName"):
            return Progress(Phase.RESERVED)
        status = pods[0].get("status", {})
        if status.get("phase") == "Failed":
            message = status.get("message") or status.get("reason", "the pod failed")
            return Progress(Phase.SCHEDULED, Reason.ENGINE_FAILED, message)
        return _sanitizing(replica, status) or _booting(status) or Progress(Phase.SCHEDULED)

    def scrub_proof(
        self, replica: Replica, pods: Sequence[Object], now: float
    ) -> ScrubProof | None:
        for pod in pods:
            ended = _container(pod.get("status", {}), "containerStatuses", SCRUB).get("terminated")
            if ended is not None:
                report = decode(ended.get("message", ""))
                return judge(report, gpus=_gpus(replica), now=now)
            if pod.get("status", {}).get("phase") == "Failed":
                return judge(None, gpus=_gpus(replica), now=now)
        return None


def _sanitizing(replica: Replica, status: Object) -> Progress | None:
    """Return how the check before the customer's container is doing; None once it has passed."""
    check = _container(status, "initContainerStatuses", SANITIZE)
    ended = check.get("terminated")
    if ended is not None and ended.get("exitCode") == 0:
        return None
    # A check that failed is run again by Kubernetes: it waits in between with what it found last.
    last = ended or _container(status, "initContainerStatuses", SANITIZE, "lastState").get(
        "terminated"
    )
    if last is not None:
        proof = judge(decode(last.get("message", "")), gpus=_gpus(replica), now=0.0)
        message = f"the GPUs are not clean: {proof.message}"
        return Progress(Phase.FETCHING, Reason.SCRUB_FAILED, message)
    return _stuck(check, Phase.FETCHING) or (Progress(Phase.FETCHING) if check else None)


def _booting(status: Object) -> Progress | None:
    container = _container(status, "containerStatuses", WORKSPACE)
    if "running" in container:
        return Progress(Phase.PROBING if _is_ready(status) else Phase.LOADING)
    stuck = _stuck(container, Phase.LOADING)
    if stuck is not None:
        return stuck
    ended = _container(status, "containerStatuses", WORKSPACE, "lastState").get("terminated")
    if ended is not None:
        message = f"its container ends with exit code {ended.get('exitCode')}"
        return Progress(Phase.LOADING, Reason.ENGINE_FAILED, message)
    return Progress(Phase.LOADING) if container else None


def _stuck(state: Object, phase: Phase) -> Progress | None:
    waiting = state.get("waiting", {})
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _NO_IMAGE:
        return Progress(phase, Reason.IMAGE_UNAVAILABLE, message or reason)
    if reason in _NOT_STARTED:
        return Progress(phase, Reason.ENGINE_FAILED, message or reason, retryable=False)
    return None


def _is_ready(status: Object) -> bool:
    conditions = {it["type"]: it["status"] for it in status.get("conditions", ())}
    return conditions.get("Ready") == "True"


def _container(status: Object, kind: str, name: str, word: str = "state") -> Object:
    for it in status.get(kind, ()):
        if it["name"] == name:
            state: Object = it.get(word, {})
            return state
    return {}


def _gpus(replica: Replica) -> int:
    configuration = replica.spec.configuration
    return 0 if configuration.architecture == "cpu" else configuration.gpus_per_node
