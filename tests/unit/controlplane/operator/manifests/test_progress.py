"""How far pods are, from statuses as kubelets write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.configurations import configuration, replica

from controlplane.cluster import Object
from controlplane.crd.base import timestamp
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase
from controlplane.operator.manifests.pods import engine_pods
from controlplane.operator.manifests.progress import stage
from controlplane.operator.manifests.settings import PodSettings
from controlplane.operator.manifests.workload import EngineWorkload

HUB = {"hub": {"repo": "o/n"}}
(POD,) = engine_pods(replica(weights=HUB), PodSettings())
PROBE = POD["spec"]["containers"][0]["startupProbe"]
ALLOWED = PROBE["periodSeconds"] * PROBE["failureThreshold"]
RUNNING = {"running": {"startedAt": timestamp(0)}}
DONE = {"terminated": {"exitCode": 0}}


def pod(
    *,
    fetch: Object | None = None,
    engine: Object | None = None,
    ready: bool = False,
    node: str = "a",
    **status: Any,
) -> Object:
    if fetch is not None:
        status["initContainerStatuses"] = [{"name": "fetch", "restartCount": 0} | fetch]
    if engine is not None:
        status["containerStatuses"] = [{"name": "engine", "restartCount": 0} | engine]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status["conditions"] = conditions + status.get("conditions", [])
    return {**POD, "spec": POD["spec"] | ({"nodeName": node} if node else {}), "status": status}


def waiting(reason: str, message: str = "") -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(code: int, seconds: float = 5.0, **more: Any) -> Object:
    times = {"startedAt": timestamp(1000), "finishedAt": timestamp(1000 + seconds)}
    return {"terminated": {"exitCode": code, **times, **more}}


@pytest.mark.parametrize(
    ("what", "phase"),
    [
        (pod(node=""), Phase.RESERVED),
        (pod(), Phase.SCHEDULED),
        (pod(fetch=waiting("PodInitializing")), Phase.SCHEDULED),
        (pod(fetch={"state": RUNNING}, engine=waiting("PodInitializing")), Phase.FETCHING),
        (pod(fetch={"state": DONE}, engine=waiting("PodInitializing")), Phase.SCHEDULED),
        (pod(fetch={"state": DONE}, engine={"state": RUNNING}), Phase.LOADING),
        (pod(fetch={"state": DONE}, engine={"state": RUNNING}, ready=True), Phase.PROBING),
    ],
)
def test_phases_follow_the_containers(what: Object, phase: Phase) -> None:
    progress = stage([what])
    assert (progress.phase, progress.reason) == (phase, None)


def test_the_pod_that_is_least_far_counts_and_a_missing_one_most() -> None:
    ready, loading = pod(engine={"state": RUNNING}, ready=True), pod(engine={"state": RUNNING})
    assert stage([ready, loading], expected=2).phase is Phase.LOADING
    assert stage([ready], expected=2).phase is Phase.RESERVED
    assert stage([]).phase is Phase.RESERVED


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_told(reason: str) -> None:
    for what in (pod(engine=waiting(reason, "no such image")), pod(fetch=waiting(reason, "no"))):
        progress = stage([what])
        assert progress.reason is Reason.IMAGE_UNAVAILABLE
        assert "no" in progress.message
        assert progress.retryable is (reason != "InvalidImageName")


def test_a_fetch_may_fail_twice_before_it_counts() -> None:
    failed = ended(1, message="digest differs")
    twice = pod(fetch={"state": waiting("CrashLoopBackOff")["state"], "lastState": failed})
    assert stage([twice]).reason is None
    thrice = pod(fetch={"state": failed, "restartCount": 2})
    progress = stage([thrice])
    assert progress.reason is Reason.WEIGHTS_UNAVAILABLE
    assert "digest differs" in progress.message


def test_a_fetch_between_two_attempts_is_fetching() -> None:
    again = waiting("CrashLoopBackOff") | {"restartCount": 1, "lastState": ended(1)}
    assert stage([pod(fetch=again)]).phase is Phase.FETCHING


def test_a_missing_secret_keeps_the_container_from_starting() -> None:
    why = waiting("CreateContainerConfigError", 'secret "hf" not found')
    assert stage([pod(fetch=why)]).reason is Reason.WEIGHTS_UNAVAILABLE
    assert stage([pod(engine=why)]).reason is Reason.ENGINE_FAILED


@pytest.mark.parametrize(
    "engine",
    [
        {"state": ended(1, message="ConfigError: no such file")},
        {
            "state": waiting("CrashLoopBackOff")["state"],
            "lastState": ended(1, message="ConfigError: no such file"),
            "restartCount": 3,
        },
    ],
)
def test_an_engine_that_ends_has_failed_with_its_last_words(engine: Object) -> None:
    progress = stage([pod(engine=engine)])
    assert progress.reason is Reason.ENGINE_FAILED
    assert "exit code 1: ConfigError: no such file" in progress.message


def test_an_engine_that_runs_again_is_loading() -> None:
    again = {"state": RUNNING, "lastState": ended(1), "restartCount": 1}
    assert stage([pod(engine=again)]) == stage([pod(engine={"state": RUNNING})])


def test_out_of_host_memory_is_said_plainly() -> None:
    progress = stage([pod(engine={"state": ended(137, reason="OOMKilled")})])
    assert progress.reason is Reason.ENGINE_FAILED
    assert "memory" in progress.message


@pytest.mark.parametrize("code", [0, 137, 143])
def test_one_that_was_killed_after_just_the_time_it_had_has_timed_out(code: int) -> None:
    progress = stage([pod(engine={"state": ended(code, ALLOWED + 3)})])
    assert progress.reason is Reason.START_TIMED_OUT


@pytest.mark.parametrize("seconds", [ALLOWED / 2, ALLOWED * 3 + 2000])
def test_one_that_was_killed_sooner_or_much_later_has_failed(seconds: float) -> None:
    progress = stage([pod(engine={"state": ended(137, seconds)})])
    assert progress.reason is Reason.ENGINE_FAILED


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "low disk"}, Reason.PREEMPTED),
        ({"phase": "Failed", "reason": "Terminated"}, Reason.PREEMPTED),
        ({"phase": "Failed", "reason": "NodeLost"}, Reason.NODE_LOST),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, Reason.START_TIMED_OUT),
        ({"phase": "Failed", "reason": "OutOfnvidia.com/gpu"}, Reason.WAITING_FOR_CAPACITY),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, Reason.WAITING_FOR_CAPACITY),
    ],
)
def test_a_pod_that_the_cluster_took_away_says_why(status: Object, reason: Reason) -> None:
    assert stage([pod(**status)]).reason is reason


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("PreemptionByScheduler", Reason.PREEMPTED),
        ("EvictionByEvictionAPI", Reason.PREEMPTED),
        ("DeletionByTaintManager", Reason.NODE_LOST),
    ],
)
def test_a_disruption_is_read_from_its_condition(why: str, reason: Reason) -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": why}
    what = pod(engine={"state": RUNNING}, ready=True, conditions=[condition])
    progress = stage([what])
    assert progress.reason is reason
    assert why in progress.message


def test_the_engines_workload_expects_a_pod_on_each_node() -> None:
    workload = EngineWorkload(PodSettings())
    both = replica(where=configuration(count=16, nodes=2), nodes=("a", "b"))
    ready = pod(engine={"state": RUNNING}, ready=True)
    assert workload.probed
    assert not workload.needs_scrub
    assert workload.stage(both, [ready]).phase is Phase.RESERVED
    assert workload.stage(replica(), [ready]).phase is Phase.PROBING


STATES: list[Object] = [
    {},
    RUNNING,
    DONE,
    ended(1),
    ended(137, ALLOWED + 1),
    {"terminated": {"exitCode": 2}},
    {"terminated": {"exitCode": 0, "startedAt": None, "finishedAt": None}},
    *[waiting(it)["state"] for it in ("", "PodInitializing", "CrashLoopBackOff", "ErrImagePull")],
    {"waiting": {}},
]
CONTAINERS = st.none() | st.builds(
    lambda state, last, count: {"state": state, "lastState": last, "restartCount": count},
    st.sampled_from(STATES),
    st.sampled_from(STATES),
    st.integers(0, 4),
)


@given(
    fetch=CONTAINERS,
    engine=CONTAINERS,
    ready=st.booleans(),
    node=st.sampled_from(["", "a"]),
    phase=st.sampled_from(["Pending", "Running", "Failed", "Succeeded", "Unknown"]),
)
def test_any_status_is_read_and_none_makes_a_phase_of_its_own(
    fetch: Object | None, engine: Object | None, ready: bool, node: str, phase: str
) -> None:
    what = pod(fetch=fetch, engine=engine, ready=ready, node=node, phase=phase)
    progress = stage([what, what], expected=2)
    assert progress.phase in (
        Phase.RESERVED,
        Phase.SCHEDULED,
        Phase.FETCHING,
        Phase.LOADING,
        Phase.PROBING,
    )
    assert node or progress.phase is Phase.RESERVED
