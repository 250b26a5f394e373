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
from controlplane.operator.manifests.containers import find, last_end, lost, no_start
from controlplane.operator.replica.workload import Manifest, Progress


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
        taken = lost(status, Phase.SCHEDULED)
        if taken is not None:
            return taken
        if status.get("phase") == "Failed":
            message = status.get("message") or status.get("reason", "the pod failed")
            return Progress(Phase.SCHEDULED, Reason.ENGINE_FAILED, message)
        return _sanitizing(replica, status) or _booting(status) or Progress(Phase.SCHEDULED)

    def scrub_proof(
        self, replica: Replica, pods: Sequence[Object], now: float
    ) -> ScrubProof | None:
        for pod in pods:
            scrub = find(pod.get("status", {}), "containerStatuses", SCRUB)
            ended = last_end(scrub) if scrub is not None else None
            if ended is not None:
                report = decode(ended.get("message", ""))
                return judge(report, gpus=_gpus(replica), now=now)
            if pod.get("status", {}).get("phase") == "Failed":
                return judge(None, gpus=_gpus(replica), now=now)
        return None


def _sanitizing(replica: Replica, status: Object) -> Progress | None:
    """Return how the check before the customer's container is doing; None once it has passed."""
    check = find(status, "initContainerStatuses", SANITIZE)
    if check is None:
        return None
    # A check that failed is run again by Kubernetes: it waits in between with what it found last.
    ended = last_end(check)
    if ended is not None and ended.get("exitCode") == 0:
        return None
    if ended is not None:
        proof = judge(decode(ended.get("message", "")), gpus=_gpus(replica), now=0.0)
        message = f"the GPUs are not clean: {proof.message}"
        return Progress(Phase.FETCHING, Reason.SCRUB_FAILED, message)
    return no_start(check, Phase.FETCHING, Reason.ENGINE_FAILED) or Progress(Phase.FETCHING)


def _booting(status: Object) -> Progress | None:
    container = find(status, "containerStatuses", WORKSPACE)
    if container is None:
        return None
    if "running" in container.get("state", {}):
        return Progress(Phase.PROBING if _is_ready(status) else Phase.LOADING)
    stuck = no_start(container, Phase.LOADING, Reason.ENGINE_FAILED)
    if stuck is not None:
        return stuck
    ended = last_end(container)
    if ended is not None:
        message = f"its container ends with exit code {ended.get('exitCode')}"
        return Progress(Phase.LOADING, Reason.ENGINE_FAILED, message)
    return Progress(Phase.LOADING)


def _is_ready(status: Object) -> bool:
    conditions = {it["type"]: it["status"] for it in status.get("conditions", ())}
    return conditions.get("Ready") == "True"


def _gpus(replica: Replica) -> int:
    configuration = replica.spec.configuration
    return 0 if configuration.architecture == "cpu" else configuration.gpus_per_node
