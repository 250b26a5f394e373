"""The pods of a bare lease: the customer's, and the one that proves the GPUs clean after it; pure.

There is no sshd and no key in the customer's container: the SSH gateway enters it through the API
server, so nothing has to be put into an image and revoking a key needs nobody's help.
"""

from dataclasses import dataclass

from controlplane.cluster import Object
from controlplane.crd.base import GROUP
from controlplane.crd.replica import Replica
from controlplane.operator.manifests.base import pod, pod_labels, pod_spec, resources
from controlplane.operator.manifests.security import confined

COMPONENT = "bare"  # the label of its pods
WORKSPACE = "workspace"  # the customer's container
SANITIZE = "sanitize"  # checks the GPUs before it starts
CLASS_ANNOTATION = f"{GROUP}/storage-class"  # of a volume claim: what was ordered and is priced
SCRUB = "scrub"  # checks them after it has gone
TERMINATION_LOG = "/dev/termination-log"
# A tenant's namespace admits no root, whatever the image's own user is.
CUSTOMER_UID = 1000
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
        "resources": resources(replica.spec.configuration),
        "securityContext": confined(CUSTOMER_UID, writable=True),
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
    body = {
        "initContainers": [_check(replica, settings, SANITIZE)],
        "containers": [container],
        "volumes": volumes,
        "terminationGracePeriodSeconds": 30,
        "restartPolicy": "Always",
    }
    return _pod(replica, f"{replica.name}-0", settings, body)


def scrub_pod(replica: Replica, settings: BareSettings) -> Object:
    """Return the pod that holds the same GPUs afterwards and says whether they are clean."""
    spec = {
        "containers": [_check(replica, settings, SCRUB)],
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 600,
    }
    return _pod(replica, f"{replica.name}-{SCRUB}", settings, spec)


def claim_name(endpoint: str) -> str:
    """Return the name of an endpoint's volume claim."""
    return f"{endpoint}-volume"


def _check(replica: Replica, settings: BareSettings, name: str) -> Object:
    command = ["flashplane", "scrub", "--report-file", TERMINATION_LOG]
    if replica.spec.configuration.architecture == "cpu":
        command.append("--no-gpus")
    return {
        "name": name,
        "image": settings.tools_image,
        "command": command,
        "resources": resources(replica.spec.configuration),
        "terminationMessagePath": TERMINATION_LOG,
        "securityContext": confined(),
    }


def _pod(replica: Replica, name: str, settings: BareSettings, spec: Object) -> Object:
    base = pod_spec(replica, settings.image_pull_secrets)
    group: Object = {"securityContext": {"fsGroup": CUSTOMER_UID}}
    return pod(replica, name, pod_labels(replica, COMPONENT), base | group | spec)
