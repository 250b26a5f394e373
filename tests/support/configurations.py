"""GPU configurations and replicas for tests of the planner and of manifests."""

from typing import Any

from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.replica import Replica

HARDWARE = {  # architecture and GiB as nvidia-smi tells
    "A100-80GB": ("ampere", 80.0),
    "H100-80GB": ("hopper", 79.6),
    "H100-NVL": ("hopper", 93.6),
    "H200": ("hopper", 140.4),
    "B200": ("blackwell", 179.06),
    "RTX-5090": ("blackwell", 31.8),
    "cpu": ("cpu", 8.0),
}


def configuration(gpu: str = "H200", count: int = 8, **fields: Any) -> GPUConfiguration:
    """`count` GPUs of one kind; "cpu" is for the tiny model."""
    architecture, memory_gib = HARDWARE[gpu]
    defaults: dict[str, Any] = {
        "id": f"{gpu.lower()}-x{count}",
        "gpu": gpu,
        "count": count,
        "architecture": architecture,
        "memory_gib": memory_gib,
    }
    if gpu == "cpu":
        defaults["resource"] = "flashplane.io/tiny"
    return GPUConfiguration(**defaults | fields)


def replica(
    *,
    where: GPUConfiguration | None = None,
    engine: dict[str, Any] | None = None,
    weights: dict[str, Any] | None = None,
    nodes: tuple[str, ...] = ("node-a",),
    namespace: str = "acme",
    **spec: Any,
) -> Replica:
    """A replica that has its GPUs, as the API server would hold it. Fields in wire form."""
    where = where or configuration()
    body = {
        "metadata": {"name": "chat-0", "namespace": namespace, "uid": "11-22", "generation": 1},
        "spec": {
            "ownerKind": "InferenceDeployment",
            "owner": "chat",
            "path": "dedicated",
            "tenant": "acme",
            "model": "deepseek-v4-flash@chat",
            "revision": "r1",
            "configuration": where.wire(),
            "engine": engine or {},
            "weights": weights or {"pvc": {"claim": "v4-flash"}},
        }
        | spec,
        "status": {
            "phase": "Reserved",
            "placements": [{"node": it, "gpus": where.gpus_per_node} for it in nodes],
        },
    }
    return Replica.of(body)
