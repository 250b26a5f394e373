"""GPUEndpoint: bare GPUs with a customer's image, SSH and chosen ports."""

from typing import Literal

from pydantic import Field

from controlplane.crd.base import ENDPOINTS, Model, Name, Rule, StatusModel, Stored
from controlplane.crd.conditions import Condition


class SSHKey(Model):
    """A public key that opens the endpoint; deleting it ends its sessions."""

    name: Name = Field(description="What it is called.")
    public_key: str = Field(max_length=8192, description="One line as in authorized_keys.")


class Port(Model):
    """A port of the container that is reachable as HTTPS."""

    name: Name = Field(description="Part of its host name.")
    port: int = Field(ge=1, le=65535, description="Port inside the container.")


class Volume(Model):
    """A disk that outlives stops; it is kept, and priced, until the endpoint is deleted."""

    size_gib: int = Field(ge=1, le=65536, alias="sizeGiB", description="Size in GiB.")
    storage_class: str = Field("", description="StorageClass; empty: the cluster's default.")
    mount_path: str = Field("/data", pattern=r"^/.+", description="Where it is mounted.")


class GPUEndpointSpec(Model):
    """What is wanted."""

    tenant: str = Field(min_length=1, max_length=63, description="The tenant's id.")
    configurations: list[str] = Field(
        min_length=1, max_length=16, description="GPU configurations, the preferred first."
    )
    image: str = Field("", description="The customer's image; empty: the default for its CUDA.")
    cuda: str = Field("12.8", pattern=r"^\d+\.\d+$", description="CUDA of the default image.")
    command: list[str] = Field(default_factory=list, description="Instead of the image's own.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the container.")
    ssh_keys: list[SSHKey] = Field(
        default_factory=list, max_length=64, description="Who may log in, live."
    )
    ports: list[Port] = Field(default_factory=list, max_length=16, description="Ports as HTTPS.")
    volume: Volume | None = Field(None, description="A disk that outlives stops.")
    whole_node: bool = Field(False, description="Nobody else on its node.")
    runtime_class: str = Field("", description="RuntimeClass of its pod, such as kata.")
    ttl_seconds: float | None = Field(
        None, gt=0, description="Deleted this long after its creation."
    )
    state: Literal["Running", "Stopped"] = Field(
        "Running", description="Stopped: GPUs are given back, volumes stay."
    )

    rules = (Rule("self.tenant == oldSelf.tenant", "the tenant is immutable"),)


class ScrubProof(StatusModel):
    """That nothing of a customer was left on GPUs."""

    at: str
    ok: bool
    foreign_pids: int = 0
    memory_used_mib: int = Field(0, alias="memoryUsedMiB")
    quick_test: Literal["passed", "failed", "absent"] = "absent"
    message: str = ""


class GPUEndpointStatus(StatusModel):
    """What is true."""

    observed_generation: int = 0
    phase: str = ""
    conditions: list[Condition] = Field(default=[])
    replica: str = Field("", description="The Replica that holds its GPUs.")
    skipped: list[str] = Field(
        default=[],
        description="Configurations without free GPUs lately; tried again after the rest.",
    )
    host: str = Field("", description="Where to log in: `ssh <endpoint>@<host>`.")
    host_key_fingerprint: str = Field("", description="SHA256 fingerprint of the gateway's key.")
    gpu_uuids: list[str] = Field(default=[], alias="gpuUUIDs")
    urls: dict[str, str] = Field(default={}, description="Its ports' URLs by name.")
    billed_since: str | None = None
    expires_at: str | None = None
    hourly_usd: float | None = None


class GPUEndpoint(Stored[GPUEndpointSpec, GPUEndpointStatus]):
    """A GPUEndpoint as the API server holds it."""

    resource = ENDPOINTS
