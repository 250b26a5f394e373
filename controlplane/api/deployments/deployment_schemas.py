"""What the REST API takes and gives of deployments; of GPU time see `gpu_schemas`.

A deployment's `spec` is that of its custom resource, as `kubectl explain inferencedeployment.spec`
or `gpuendpoint.spec` tells it, but for `path` and `tenant`, which follow from the order.
"""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from controlplane.api.schemas import Body
from controlplane.crd.base import Name as ObjectName
from controlplane.crd.base import Path, Suspension
from controlplane.crd.responsibility import RESPONSIBILITY
from controlplane.deployments.history import Happening
from controlplane.deployments.models import Deployment
from controlplane.deployments.quote import Quote
from controlplane.money import p_to_usd

Spec = Annotated[
    dict[str, Any],
    Field(
        description="The custom resource's spec, in its wire form.",
        examples=[{"configurations": ["h200-x4"], "replicas": 1}],
    ),
]


class NewDeployment(Body):
    """A dedicated deployment or a bare GPU endpoint of the calling tenant."""

    name: ObjectName
    path: Literal["dedicated", "bare"]
    spec: Spec


class NewAnyDeployment(Body):
    """A deployment of any tenant, or, without a tenant, a serverless pool."""

    name: ObjectName
    path: Path
    tenant_id: uuid.UUID | None = None
    spec: Spec


class DeploymentChange(Body):
    """A JSON merge patch of the spec (RFC 7386): what is left out stays, null takes away."""

    spec: Spec


class NewSSHKey(Body):
    name: ObjectName
    public_key: str = Field(max_length=8192, description="one line as in authorized_keys")


class DeploymentOut(BaseModel):
    """A deployment: what is wanted, what the cluster says, and who does what.

    `stopped_because` tells why it is stopped though its spec wants it to run. While
    `observed_generation` lags behind `generation`, phase and status speak of an older spec.
    """

    id: uuid.UUID
    tenant_id: uuid.UUID | None
    name: str
    path: Path
    namespace: str
    managed: Literal["row", "external"]
    state: Literal["active", "deleting", "deleted"]
    spec: dict[str, Any]
    generation: int
    observed_generation: int
    phase: str
    model: str | None
    stopped_because: Suspension | None
    refused_by_cluster: str | None
    status: dict[str, Any]
    responsibility: dict[str, str]
    created_at: datetime
    changed_at: datetime
    deleted_at: datetime | None

    @classmethod
    def of(cls, row: Deployment, why_stopped: Suspension | None) -> Self:
        """Return what a tenant sees: not what replicas cost the platform."""
        out = cls.of_all(row, why_stopped)
        status = {name: value for name, value in row.status.items() if name != "hourlyUsd"}
        return out.model_copy(update={"status": status})

    @classmethod
    def of_all(cls, row: Deployment, why_stopped: Suspension | None) -> Self:
        """Return what a platform admin sees."""
        columns = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        told = {
            "phase": row.status.get("phase", ""),
            "model": row.status.get("endpoint") or None,
            "stopped_because": why_stopped,
            "refused_by_cluster": row.refusal,
            "responsibility": _responsibility(Path(row.path)),
        }
        return cls.model_validate(columns | told)


class Placement(BaseModel):
    """The GPU configuration that would be taken first."""

    configuration: str
    gpus: int | None
    nodes: int | None
    spot: bool


class PreviewOut(BaseModel):
    """What an order would get. `stock` is room for replicas now, null where unknown.

    `storage_usd_per_hour` is the price of its volume, which is charged from when the disk is there
    until it is deleted, running or stopped; null: it has none.
    """

    dry_run: Literal[True] = True
    placement: Placement
    stock: dict[str, int | None]
    replicas_min: int
    replicas_max: int
    replica_usd_per_hour: str | None
    usd_per_hour_min: str | None
    usd_per_hour_max: str | None
    storage_usd_per_hour: str | None
    estimated_seconds_to_serve: float | None
    billing: str
    responsibility: dict[str, str]
    warnings: list[str]

    @classmethod
    def of(cls, path: Path, quote: Quote) -> Self:
        rate_p = None if path is Path.SERVERLESS else quote.rate_p_per_hour
        least, most = quote.replicas
        return cls(
            placement=Placement(
                configuration=quote.configuration,
                gpus=quote.gpus,
                nodes=quote.nodes,
                spot=quote.spot,
            ),
            stock=quote.stock,
            replicas_min=least,
            replicas_max=most,
            replica_usd_per_hour=None if rate_p is None else p_to_usd(rate_p),
            usd_per_hour_min=None if rate_p is None else p_to_usd(rate_p * least),
            usd_per_hour_max=None if rate_p is None else p_to_usd(rate_p * most),
            storage_usd_per_hour=None
            if quote.storage_p_per_hour is None
            else p_to_usd(quote.storage_p_per_hour),
            estimated_seconds_to_serve=quote.estimated_seconds,
            billing=_BILLING[path],
            responsibility=_responsibility(path),
            warnings=quote.warnings,
        )


class EventOut(BaseModel):
    """A condition that turned, or a decision of scaling."""

    at: str
    event: str
    reason: str
    message: str

    @classmethod
    def of(cls, happening: Happening) -> Self:
        return cls(
            at=happening.at,
            event=happening.kind,
            reason=happening.reason,
            message=happening.message,
        )


class EventsOut(BaseModel):
    data: list[EventOut]


_BILLING = {
    Path.SERVERLESS: "by token",
    Path.DEDICATED: "by GPU time while replicas are proven to serve; starting up is free: billing"
    " begins at the first proof that a replica serves",
    Path.BARE: "by GPU time while the machine is proven to be reachable; starting up is free:"
    " billing begins at the first proof. A volume is billed by GiB while it exists, stopped or not",
}


def _responsibility(path: Path) -> dict[str, str]:
    return {layer.value: party.value for layer, party in RESPONSIBILITY[path].items()}
