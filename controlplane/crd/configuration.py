"""GPU configurations: the catalogue, which is a ConfigMap, and what a Replica keeps of it."""

from typing import Literal

from pydantic import Field

from controlplane.crd.base import Model

CATALOGUE_NAME = "flashplane-gpu-catalogue"  # the ConfigMap; its key is `catalogue.yaml`


class GPUConfiguration(Model):
    """So many GPUs of one kind, as one replica gets them."""

    id: str = Field(description="Name that deployments refer to, such as h200-x4.")
    gpu: str = Field(description="The GPU's model, such as H200 or RTX-5090.")
    architecture: Literal["ampere", "ada", "hopper", "blackwell", "cpu"] = Field(
        "hopper", description="What engines may run on; cpu is for the tiny model."
    )
    count: int = Field(1, ge=1, le=1024, description="GPUs of one replica, on all its nodes.")
    nodes: int = Field(1, ge=1, description="Nodes of one replica; count is divided evenly.")
    memory_gib: float = Field(
        gt=0, description="Usable memory of one GPU as nvidia-smi tells it, not the marketing size."
    )
    nvlink: bool = Field(True, description="Whether its GPUs share one NVLink domain.")
    parallelism: Literal["tensor", "pipeline", "expert"] = Field(
        "tensor", description="How engines divide the model over these GPUs unless told otherwise."
    )
    resource: str = Field("nvidia.com/gpu", description="Extended resource that nodes offer.")
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Labels of the nodes that have it."
    )
    bare: bool = Field(
        True, description="Whether customers' own containers may run on it; they need confinement."
    )
    spot: bool = Field(False, description="Whether its nodes may be taken away after a notice.")
    cpu: str = Field("4", description="CPU request of one replica on each node.")
    memory: str = Field("32Gi", description="Memory request of one replica on each node.")
    read_bytes_per_second: float = Field(
        2e9, gt=0, description="How fast weights are read; sizes the start-up probe."
    )
    hourly_usd: float | None = Field(
        None,
        ge=0,
        description="What a replica costs an hour; orders configurations, bills nothing.",
    )

    @property
    def gpus_per_node(self) -> int:
        """GPUs on each of its nodes."""
        return self.count // self.nodes
