"""How weights come into an engine's pod: volumes, init containers, and the folder it reads.

A claim is mounted read-only, and read once before if it has a digest; a hub or bucket is fetched by
`flashplane-worker fetch` into the node's cache, or the pod's own disk; an image is copied from.
"""

import hashlib
from dataclasses import dataclass, field

from controlplane.cluster import Object
from controlplane.crd.engine import HubSource, ImageSource, S3Source, WeightsSpec
from controlplane.operator.manifests.security import confined
from controlplane.operator.manifests.settings import PodSettings

MOUNT = "/weights"
FETCH = "fetch"  # the init container
_VOLUME = "weights"
_COPY_TO = "/flashplane-weights"  # not MOUNT: that may be where the image has them

_FETCH_RESOURCES: Object = {
    "requests": {"cpu": "1", "memory": "1Gi"},
    "limits": {"memory": "4Gi"},
}


@dataclass(frozen=True)
class Weights:
    """The weights' part of a pod; `directory` is what the engine reads."""

    directory: str
    volumes: list[Object]
    mounts: list[Object]
    init_containers: list[Object] = field(default_factory=list)
    from_network: bool = False


def weights_part(spec: WeightsSpec, settings: PodSettings, namespace: str) -> Weights:
    """Return the part of a pod that brings `spec`'s weights."""
    mounts: list[Object] = [{"name": _VOLUME, "mountPath": MOUNT, "readOnly": True}]
    if spec.pvc is not None:
        claim = {"claimName": spec.pvc.claim, "readOnly": True}
        directory = _under(spec.pvc.path)
        return Weights(
            directory,
            [{"name": _VOLUME, "persistentVolumeClaim": claim}],
            mounts,
            [_verify(spec.digest, settings, directory)] if spec.digest else [],
        )
    if spec.image is not None:
        own_disk: Object = {"name": _VOLUME, "emptyDir": {}}
        return Weights(MOUNT, [own_disk], mounts, [_copy(spec.image)])
    directory = f"{MOUNT}/{_key(spec)}"
    cache = {"name": _VOLUME, **_cache(spec, settings, namespace)}
    fetch = _fetch(spec, settings, directory)
    return Weights(directory, [cache], mounts, [fetch], from_network=True)


def _cache(spec: WeightsSpec, settings: PodSettings, namespace: str) -> Object:
    kept = spec.node_cache and settings.cache_path and namespace in settings.cache_namespaces
    if not kept:
        return {"emptyDir": {}}
    return {"hostPath": {"path": settings.cache_path, "type": "Directory"}}


def _verify(digest: str, settings: PodSettings, directory: str) -> Object:
    """Read a claim's weights once and compare. Kubernetes makes one dollar of two."""
    script = (
        'found="$$(flashplane-worker digest "$1")" && [ "$found" = "$2" ] && exit 0; '
        'echo "the claim holds $found, not $2" >&2; exit 1'
    )
    return _ours(settings, ["sh", "-c", script, "sh", directory, digest], read_only=True)


def _fetch(spec: WeightsSpec, settings: PodSettings, directory: str) -> Object:
    source = spec.hub or spec.s3
    assert source is not None
    arguments = _hub(source) if isinstance(source, HubSource) else _s3(source)
    if spec.digest:
        arguments += ["--digest", spec.digest]
    container = _ours(settings, ["flashplane-worker", "fetch", directory, *arguments])
    if source.secret:
        container["envFrom"] = [{"secretRef": {"name": source.secret}}]
    return container


def _ours(settings: PodSettings, command: list[str], *, read_only: bool = False) -> Object:
    return {
        "name": FETCH,
        "image": settings.image("flash"),
        "command": command,
        "env": [{"name": "HOME", "value": "/tmp"}],
        "volumeMounts": [
            {"name": _VOLUME, "mountPath": MOUNT, "readOnly": read_only},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "resources": _FETCH_RESOURCES,
        "securityContext": confined(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _hub(source: HubSource) -> list[str]:
    arguments = ["--hub", source.repo, "--revision", source.revision]
    return arguments + (["--endpoint", source.endpoint] if source.endpoint else [])


def _s3(source: S3Source) -> list[str]:
    arguments = ["--s3", source.url, "--region", source.region]
    return arguments + (["--endpoint", source.endpoint] if source.endpoint else [])


def _copy(source: ImageSource) -> Object:
    """Copy out of the weights' own image, which must have `cp`."""
    return {
        "name": FETCH,
        "image": source.reference,
        "command": ["cp", "-rL", f"{source.path.rstrip('/')}/.", f"{_COPY_TO}/"],
        "volumeMounts": [{"name": _VOLUME, "mountPath": _COPY_TO}],
        "resources": _FETCH_RESOURCES,
        "securityContext": confined(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _key(spec: WeightsSpec) -> str:
    """A folder's name: equal weights share it, others never do."""
    source = spec.model_dump_json(exclude={"node_cache", "size_bytes"}, exclude_none=True)
    return (spec.digest.removeprefix("sha256:") or hashlib.sha256(source.encode()).hexdigest())[:32]


def _under(path: str) -> str:
    clean = path.strip("/")
    return f"{MOUNT}/{clean}" if clean else MOUNT
