"""How far a replica's pods are, read from what the kubelet tells of them; pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.cluster import Object
from controlplane.crd.base import seconds
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase
from controlplane.operator.manifests.containers import find, last_end, lost, no_start
from controlplane.operator.manifests.pods import ENGINE
from controlplane.operator.replica.workload import Progress

FETCH_ATTEMPTS = 3  # a fetch goes on where it was cut, so that a few failures are nothing
_ORDER = (Phase.RESERVED, Phase.SCHEDULED, Phase.FETCHING, Phase.LOADING, Phase.PROBING)
_KILLED = {0, 137, 143}  # exit codes of what a probe had killed


def stage(pods: Sequence[Object], expected: int = 1) -> Progress:
    """Return how far the pod that is least far is, or why one of them cannot go on."""
    each = [_of(pod) for pod in pods]
    failed = next((it for it in each if it.reason is not None), None)
    if failed is not None:
        return failed
    if len(each) < expected:
        return Progress(Phase.RESERVED)
    return min(each, key=lambda it: _ORDER.index(it.phase), default=Progress(Phase.RESERVED))


def _of(pod: Object) -> Progress:
    status = pod.get("status", {})
    phase = _phase(pod, status)
    return lost(status, phase) or _stuck(pod, status, phase) or Progress(phase)


def _phase(pod: Object, status: Object) -> Phase:
    if not pod["spec"].get("nodeName"):
        return Phase.RESERVED
    if any(it["type"] == "Ready" and it["status"] == "True" for it in status.get("conditions", ())):
        return Phase.PROBING
    engine = find(status, "containerStatuses", ENGINE)
    if engine is not None and "waiting" not in engine.get("state", {"waiting": {}}):
        return Phase.LOADING
    if engine is not None and engine.get("restartCount"):
        return Phase.LOADING  # between two attempts
    for container in status.get("initContainerStatuses", ()):
        state = container.get("state", {})
        if "running" in state or container.get("restartCount"):
            return Phase.FETCHING
    return Phase.SCHEDULED


def _stuck(pod: Object, status: Object, phase: Phase) -> Progress | None:
    for container in status.get("initContainerStatuses", ()):
        if failure := no_start(container, phase, Reason.WEIGHTS_UNAVAILABLE):
            return failure
        ended = _failed_end(container)
        if ended is not None and container.get("restartCount", 0) + 1 >= FETCH_ATTEMPTS:
            return Progress(phase, Reason.WEIGHTS_UNAVAILABLE, _end_message(container, ended))
    engine = find(status, "containerStatuses", ENGINE)
    if engine is None:
        return None
    if failure := no_start(engine, phase, Reason.ENGINE_FAILED):
        return failure
    ended = last_end(engine)
    if ended is None:
        return None
    if _timed_out(pod, engine, ended):
        ran = round(_ran_seconds(ended))
        message = f"not up after {ran} s, longer than its size explains"
        return Progress(phase, Reason.START_TIMED_OUT, message)
    return Progress(phase, Reason.ENGINE_FAILED, _end_message(engine, ended))


def _failed_end(container: Object) -> Mapping[str, Any] | None:
    ended = last_end(container)
    return ended if ended is not None and ended.get("exitCode") != 0 else None


def _end_message(container: Object, ended: Mapping[str, Any]) -> str:
    if ended.get("reason") == "OOMKilled":
        return f"{container['name']} ran out of host memory"
    tail = str(ended.get("message", "")).strip()[-500:]
    text = f"{container['name']} ended with exit code {ended.get('exitCode')}"
    return f"{text}: {tail}" if tail else text


def _timed_out(pod: Object, engine: Object, ended: Mapping[str, Any]) -> bool:
    """Whether the start-up probe had it killed: nobody writes that down, but it ran just as long
    as the probe allows. One that had been up and was killed later ran longer."""
    if ended.get("exitCode") not in _KILLED or engine.get("started"):
        return False
    spec = next(it for it in pod["spec"]["containers"] if it["name"] == ENGINE)
    probe = spec.get("startupProbe")
    if probe is None or not ended.get("startedAt") or not ended.get("finishedAt"):
        return False
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    slack = pod["spec"].get("terminationGracePeriodSeconds", 30) + 2 * probe["periodSeconds"] + 10
    return bool(allowed - probe["periodSeconds"] <= _ran_seconds(ended) <= allowed + slack)


def _ran_seconds(ended: Mapping[str, Any]) -> float:
    return seconds(ended["finishedAt"]) - seconds(ended["startedAt"])
