"""What runs inside a replica: engine, weights and isolation. Part of deployments and replicas."""

from typing import Literal

from pydantic import Field, model_validator

from controlplane.crd.base import Model, Rule

EngineName = Literal["flash", "vllm", "sglang"]


class EngineSpec(Model):
    """The inference engine."""

    name: EngineName = Field("flash", description="flash is Flashplane's own; or vllm, sglang.")
    image: str = Field("", description="Container image by digest; empty: the operator's default.")
    max_model_len: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Longest context in tokens; unset: what fits, planned.",
    )
    max_running: int | None = Field(
        None, ge=1, le=4096, description="Most requests that run at once; unset: planned."
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field(
        "fp8", description="fp8 nearly halves the cache; auto keeps the model's own precision."
    )
    parallelism: Literal["", "tensor", "pipeline", "expert"] = Field(
        "", description="How the model is divided over GPUs; empty: as the GPU configuration says."
    )
    draft_tokens: int = Field(0, ge=0, le=8, description="Tokens drafted a step by the MTP block.")
    arguments: list[str] = Field(
        default_factory=list, max_length=64, description="Further arguments, appended as they are."
    )


class ClaimSource(Model):
    """Weights on a PersistentVolumeClaim of the replica's namespace."""

    claim: str = Field(description="The claim's name.")
    path: str = Field("", description="Folder on it.")


class S3Source(Model):
    """Weights in an S3 bucket."""

    url: str = Field(pattern=r"^s3://[^/]+/.*$", description="s3://bucket/prefix")
    endpoint: str = Field("", description="Endpoint URL; empty: AWS.")
    region: str = Field("us-east-1", description="Region.")
    secret: str = Field("", description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")


class HubSource(Model):
    """Weights on a Hugging Face hub."""

    repo: str = Field(pattern=r"^[^/]+/[^/]+$", description="owner/name")
    revision: str = Field("main", description="Commit, tag or branch; pin a commit.")
    endpoint: str = Field("", description="A mirror's URL; empty: the public hub.")
    secret: str = Field("", description="Secret with HF_TOKEN.")


class ImageSource(Model):
    """Weights inside a container image, copied from it before the engine starts."""

    reference: str = Field(description="The image, by digest.")
    path: str = Field("/weights", description="Folder in it.")


class WeightsSpec(Model):
    """Where the weights come from: exactly one of pvc, s3, hub, image."""

    pvc: ClaimSource | None = Field(None, description="On a PersistentVolumeClaim.")
    s3: S3Source | None = Field(None, description="In an S3 bucket.")
    hub: HubSource | None = Field(None, description="On a Hugging Face hub.")
    image: ImageSource | None = Field(None, description="In a container image.")
    digest: str = Field(
        "",
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        description="SHA-256 over the sorted lines `<SHA-256 of a file>  <its path>`; empty: "
        "unchecked.",
    )
    size_bytes: int = Field(
        0, ge=0, description="Size of all files; 0: the model's own, from its geometry."
    )
    node_cache: bool = Field(
        True, description="Keep fetched weights on the node's disk for its next replica."
    )

    rules = (
        Rule(
            "[has(self.pvc), has(self.s3), has(self.hub), has(self.image)]"
            ".filter(x, x).size() == 1",
            "give exactly one of pvc, s3, hub and image",
        ),
    )

    @model_validator(mode="after")
    def _one_source(self) -> "WeightsSpec":
        given = [it for it in (self.pvc, self.s3, self.hub, self.image) if it is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of pvc, s3, hub and image")
        return self


class Isolation(Model):
    """How far a replica is kept from others."""

    node: Literal["shared", "dedicated"] = Field(
        "shared", description="dedicated: no other tenant's replica on its nodes."
    )
    runtime_class: str = Field("", description="RuntimeClass of its pods, such as kata.")
