"""What the cluster of one machine holds at first, and how its operator tells that it is ready.

Called by `local_operator`, which keeps that cluster, and by its supervisor.
"""

from pathlib import Path

import yaml

from controlplane.cluster import CONFIG_MAPS, NAMESPACES, Cluster
from controlplane.crd.configuration import CATALOGUE_NAME, GPUConfiguration

NODE = "local"
TINY_RESOURCE = "flashplane.io/tiny"
TINY_CLAIM = "tiny"  # what the weights are called of the model that `up` serves
TINIES = 8  # tiny replicas that this machine takes at once
CPU_TINY = GPUConfiguration(
    id="cpu-tiny",
    gpu="CPU",
    architecture="cpu",
    memory_gib=8,
    resource=TINY_RESOURCE,
    cpu="1",
    memory="1Gi",
    hourly_usd=0.01,
    bare=False,
)


def seed(cluster: Cluster, namespace: str) -> None:
    """Put into an empty cluster what a chart would: the release's namespace and the catalogue."""
    cluster.create(NAMESPACES, {"metadata": {"name": namespace}})
    catalogue = {"configurations": [CPU_TINY.wire()]}
    cluster.create(
        CONFIG_MAPS,
        {
            "metadata": {"namespace": namespace, "name": CATALOGUE_NAME},
            "data": {"catalogue.yaml": yaml.safe_dump(catalogue, sort_keys=False)},
        },
    )


def is_ready(folder: Path) -> bool:
    """Return whether the process that keeps this folder's pods works; asked by its supervisor."""
    try:
        pid = int(ready_file(folder).read_text())
        return "local-operator" in Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return False


def ready_file(folder: Path) -> Path:
    """Return the file that names the process that works."""
    return folder / "operator.pid"
