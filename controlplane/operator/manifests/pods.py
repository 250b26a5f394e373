"""The pods of an engine replica, as plain data.

A replica on one node is one pod with all its GPUs, `<replica>-0`; one on several nodes is a
LeaderWorkerSet, see `nodes`. Its placements say where: the pods are pinned there, though the
scheduler still binds them and counts their GPUs.
"""

from math import ceil

from controlplane.cluster import Object
from controlplane.crd.base import GROUP
from controlplane.crd.replica import Replica
from controlplane.operator.engines.place import Place
from controlplane.operator.engines.profile import ENGINES
from controlplane.operator.manifests.base import pod, pod_labels, pod_spec, resources
from controlplane.operator.manifests.security import confined, pod_confined
from controlplane.operator.manifests.settings import (
    ENGINE_PORT,
    SERVICE_ACCOUNT,
    TOKEN_KEY,
    TOKEN_SECRET,
    PodSettings,
)
from controlplane.operator.manifests.weights import Weights, weights_part
from controlplane.planner.estimate import start_limit_seconds
from controlplane.planner.launch import Launch, plan_launch

ENGINE = "engine"  # the container
FETCHES_LABEL = f"{GROUP}/fetches-weights"  # on pods that may go out for them
GRACE_SECONDS = 30  # beyond the drain, for the process to end


def launch_of(replica: Replica) -> Launch:
    """Return how a replica's engine is started.

    Raises:
        Refused: it cannot run on its configuration.
    """
    spec = replica.spec
    assert spec.engine is not None
    assert spec.weights is not None
    return plan_launch(spec.engine, spec.configuration, weights_bytes=spec.weights.size_bytes)


def engine_pods(replica: Replica, settings: PodSettings) -> list[Object]:
    """Return the pods of a replica on one node.

    Without its placement they are pinned nowhere, which no API server takes; they still tell names
    and whether the replica can run at all.

    Raises:
        Refused: its engine cannot run on its configuration.
    """
    assert replica.spec.configuration.nodes == 1, "several nodes need nodes.leader_worker_set"
    template = pod_template(replica, settings, launch_of(replica))
    labels = template["metadata"]["labels"]
    return [pod(replica, f"{replica.name}-0", labels, template["spec"])]


def pod_template(
    replica: Replica, settings: PodSettings, launch: Launch, *, leader: bool = True
) -> Object:
    """Return `metadata` (labels) and `spec` of a replica's pod on one of its nodes."""
    assert replica.spec.weights is not None
    weights = weights_part(replica.spec.weights, settings, replica.namespace)
    labels = pod_labels(replica, ENGINE)
    if weights.from_network:
        labels[FETCHES_LABEL] = "true"
    spec = pod_spec(replica, settings.image_pull_secrets) | {
        "containers": [_container(replica, settings, launch, weights, leader)],
        "restartPolicy": "Always",  # an engine that crashes starts again over the same weights
        "securityContext": pod_confined(),
        "serviceAccountName": SERVICE_ACCOUNT,
        "terminationGracePeriodSeconds": _drain_seconds(replica) + GRACE_SECONDS,
        "volumes": [
            *weights.volumes,
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if weights.init_containers:
        spec["initContainers"] = weights.init_containers
    return {"metadata": {"labels": labels}, "spec": spec}


def _container(
    replica: Replica, settings: PodSettings, launch: Launch, weights: Weights, leader: bool
) -> Object:
    engine = replica.spec.engine
    assert engine is not None
    profile = ENGINES[engine.name]
    place = Place(
        model=replica.spec.model,
        directory=weights.directory,
        port=ENGINE_PORT,
        drain_seconds=_drain_seconds(replica),
        token=profile.token_variable if settings.engine_token else "",
        leader=leader,
    )
    container: Object = {
        "name": ENGINE,
        "image": engine.image or settings.image(engine.name),
        "command": profile.command(launch, place),
        "env": _environment(place),
        "ports": [{"name": "http", "containerPort": ENGINE_PORT}],
        "resources": resources(replica.spec.configuration),
        "securityContext": confined(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            *weights.mounts,
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    # A node behind the leader's has no HTTP server; the leader is not up without it.
    return container | (_probes(replica, launch, profile.health_path) if leader else {})


def _environment(place: Place) -> list[Object]:
    environment: list[Object] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        # Caches of compiled kernels go where there is something to write on; the image may know no
        # user of our number, and some libraries ask for the name.
        {"name": "HOME", "value": "/tmp"},
        {"name": "USER", "value": "flashplane"},
        # Everything it needs is in the folder; asking a hub would end in the network policy.
        {"name": "HF_HUB_OFFLINE", "value": "1"},
    ]
    if place.token:
        reference = {"name": TOKEN_SECRET, "key": TOKEN_KEY}
        environment.append({"name": place.token, "valueFrom": {"secretKeyRef": reference}})
    return environment


def _probes(replica: Replica, launch: Launch, path: str) -> Object:
    """Loading is given the time its size explains; liveness begins only after it."""
    check = {"httpGet": {"path": path, "port": ENGINE_PORT}, "timeoutSeconds": 5}
    limit_seconds = start_limit_seconds(launch, replica.spec.configuration)
    period_seconds = 1 if launch.device == "cpu" else 5
    return {
        "startupProbe": check
        | {
            "periodSeconds": period_seconds,
            "failureThreshold": ceil(limit_seconds / period_seconds),
        },
        "readinessProbe": check | {"periodSeconds": 2, "failureThreshold": 3},
        "livenessProbe": check | {"periodSeconds": 10, "failureThreshold": 6},
    }


def _drain_seconds(replica: Replica) -> int:
    """Requests are drained before a pod is deleted; this is for who deletes it by hand."""
    return ceil(replica.spec.drain_timeout_seconds)
