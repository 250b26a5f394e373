"""The pods of a bare lease: the customer's, and the one that proves the GPUs clean after it; pure.

There is no sshd and no key in the customer's container: the SSH gateway enters it through the API
server, so nothing has to be put into an image and revoking a key needs nobody's help.
"""

from dataclasses import dataclass
from typing import Any

from controlplane.cluster import Object
from controlplane.crd.base import OWNER_LABEL, REPLICA_LABEL
from controlplane.crd.replica import Replica

WORKSPACE = "workspace"  # the customer's container
SANITIZE = "sanitize"  # checks the GPUs before it starts
SCRUB = "scrub"  # checks them after it has gone
# A tenant's namespace admits no root, whatever the image's own user is.
CUSTOMER_UID = 1000
TOOLS_UID = 10001
DEFAULT_IMAGE = "docker.io/nvidia/cuda:{cuda}.0-devel-ubuntu24.04"


@dataclass(frozen=True)
class BareSettings:
    """What pods need beyond the replica. `tools_image` has the command `flashplane scrub`."""

    tools_image: str
    image_pull_secrets: tuple[str, ...] = ()


def workspace_pod(replica: Replica, settings: BareSettings) -> Object:
    """Return the pod that a customer gets."""
    spec = replica.spec.bare
    assert spec is not None
    container: Object = {
        "name": WORKSPACE,
        "image": spec.image or DEFAULT_IMAGE.format(cuda=spec.cuda),
        "env": [{"name": name, "value": value} for name, value in sorted(spec.env.items())],
        # Without names: those of a pod's ports obey other rules than ours, and nobody asks by them.
        "ports": [{"containerPort": port} for port in sorted({it.port for it in spec.ports})],
        "resources": _resources(replica),
        "securityContext": _confined(CUSTOMER_UID),
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    if spec.command:
        container["command"] = spec.command
    elif not spec.image:
        container["command"] = ["sleep", "infinity"]
    volumes: list[Object] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    if spec.volume is not None:
        mount = {"name": "volume", "mountPath": spec.volume.mount_path}
        container["volumeMounts"].append(mount)
        claim = {"claimName": claim_name(replica.spec.owner)}
        volumes.append({"name": "volume", "persistentVolumeClaim": claim})
    body = _pod(replica, f"{replica.name}-0", settings)
    body["spec"] |= {
        "initContainers": [_check(replica, settings, SANITIZE)],
        "containers": [container],
        "volumes": volumes,
        "terminationGracePeriodSeconds": 30,
        "restartPolicy": "Always",
    }
    if spec.runtime_class:
        body["spec"]["runtimeClassName"] = spec.runtime_class
    return body


def scrub_pod(replica: Replica, settings: BareSettings) -> Object:
    """Return the pod that holds the same GPUs afterwards and says whether they are clean."""
    body = _pod(replica, f"{replica.name}-{SCRUB}", settings)
    body["spec"] |= {
        "containers": [_check(replica, settings, SCRUB)],
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 600,
    }
    return body


def claim_name(endpoint: str) -> str:
    """Return the name of an endpoint's volume claim."""
    return f"{endpoint}-volume"


def _check(replica: Replica, settings: BareSettings, name: str) -> Object:
    command = ["flashplane", "scrub"]
    if replica.spec.configuration.architecture == "cpu":
        command.append("--no-gpus")
    return {
        "name": name,
        "image": settings.tools_image,
        "command": command,
        "resources": _resources(replica),
        "terminationMessagePath": "/dev/termination-log",
        "securityContext": {**_confined(TOOLS_UID), "readOnlyRootFilesystem": True},
    }


def _confined(uid: int) -> Object:
    """What Pod Security's `restricted` asks of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "runAsUser": uid,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
    }


def _resources(replica: Replica) -> Object:
    configuration = replica.spec.configuration
    limits: Object = {configuration.resource: str(configuration.gpus_per_node)}
    requests = {"cpu": configuration.cpu, "memory": configuration.memory}
    return {"limits": limits, "requests": {**requests, **limits}}


def _pod(replica: Replica, name: str, settings: BareSettings) -> Object:
    nodes = [placement.node for placement in replica.status.placements]
    labels = {
        OWNER_LABEL: replica.spec.owner,
        REPLICA_LABEL: replica.name,
        "app.kubernetes.io/part-of": "flashplane",
        "app.kubernetes.io/component": "bare",
    }
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"fsGroup": CUSTOMER_UID},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {
                                    "key": "kubernetes.io/hostname",
                                    "operator": "In",
                                    "values": nodes,
                                }
                            ]
                        }
                    ]
                }
            }
        },
        "tolerations": [
            {
                "key": replica.spec.configuration.resource,
                "operator": "Exists",
                "effect": "NoSchedule",
            }
        ],
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": it} for it in settings.image_pull_secrets]
    owner = {
        "apiVersion": Replica.resource.api_version,
        "kind": Replica.resource.kind,
        "name": replica.name,
        "uid": replica.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {
        "name": name,
        "namespace": replica.namespace,
        "labels": labels,
        "ownerReferences": [owner],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
