"""Folders that stand for a pod's volumes; called by `pod` before its first container."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.cluster import CONFIG_MAPS, SECRETS, NotFound, Object, Resource
from controlplane.local.admission import is_name
from controlplane.local.launching import NotConfigured
from controlplane.local.texts import texts_of


@dataclass(frozen=True)
class Disks:
    """The disks of one machine: everything lies below `root`.

    Attributes:
        claims: folders that are there already, by the name of the claim that stands for each, in
            any namespace.
    """

    root: Path
    claims: Mapping[str, Path] = field(default_factory=dict)

    @property
    def process_file(self) -> Path:
        """Every container's process that was started and has not been seen to end."""
        return self.root / "processes.json"

    def of_pod(self, uid: str) -> Path:
        """What goes with a pod."""
        return self.root / "pods" / uid

    def of_claim(self, namespace: str, name: str) -> Path:
        """What outlives pods."""
        return self.claims.get(name, self.root / "claims" / namespace / name)

    def of_host(self, path: str) -> Path:
        """What stands for a folder of the node."""
        return self.root / "host" / path.strip("/")


def volume_folders(
    pod: Object, disks: Disks, read: Callable[[Resource, str], Object]
) -> dict[str, Path]:
    """Make and return the folder of each of a pod's volumes, by the volume's name.

    Raises:
        NotConfigured: a ConfigMap or Secret is missing, or the kind of volume is not known here.
    """
    found = {}
    for volume in pod["spec"].get("volumes", ()):
        folder = _folder(volume, pod, disks)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for word, name_word, resource in (
            ("configMap", "name", CONFIG_MAPS),
            ("secret", "secretName", SECRETS),
        ):
            if word in volume:
                _fill(folder, volume[word], volume[word][name_word], resource, read)
        found[volume["name"]] = folder
    return found


def mounts_of(container: Object, folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return what stands for which path in a container."""
    return {
        mount["mountPath"]: folders[mount["name"]] / mount.get("subPath", "")
        for mount in container.get("volumeMounts", ())
    }


def _folder(volume: Object, pod: Object, disks: Disks) -> Path:
    if "persistentVolumeClaim" in volume:
        claim = volume["persistentVolumeClaim"]["claimName"]
        if not is_name(claim):  # a folder's name, from whoever wrote the deployment
            raise NotConfigured(f"volume {volume['name']}: there is no claim {claim!r}")
        return disks.of_claim(pod["metadata"]["namespace"], claim)
    if "hostPath" in volume:
        return disks.of_host(volume["hostPath"]["path"])
    if {"emptyDir", "configMap", "secret"} & volume.keys():
        name: str = volume["name"]
        return disks.of_pod(pod["metadata"]["uid"]) / "volumes" / name
    raise NotConfigured(f"volume {volume['name']}: {sorted(volume)} is not known here")


def _fill(
    folder: Path,
    source: Object,
    name: str,
    resource: Resource,
    read: Callable[[Resource, str], Object],
) -> None:
    try:
        texts = texts_of(read(resource, name))
    except NotFound as error:
        if source.get("optional"):
            return
        raise NotConfigured(str(error)) from None
    items = source.get("items") or [{"key": key, "path": key} for key in texts]
    for item in items:
        (folder / item["path"]).write_text(texts[item["key"]])
