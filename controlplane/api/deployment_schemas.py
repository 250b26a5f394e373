"""What the REST API takes and gives of deployments, GPU prices and GPU time.

A deployment's `spec` is that of its custom resource, as `kubectl explain inferencedeployment.spec`
or `gpuendpoint.spec` tells it, but for `path` and `tenant`, which follow from the order.
"""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field

from controlplane.api.schemas import Body, Name, Usd
from controlplane.crd.base import Name as ObjectName
from controlplane.crd.base import Path
from controlplane.crd.responsibility import RESPONSIBILITY
from controlplane.deployments.history import Happening, Totals
from controlplane.deployments.models import Deployment, GpuInterval
from controlplane.deployments.quote import Market, Offer, Quote
from controlplane.money import p_to_usd
from controlplane.pricing.models import GpuPriceVersion

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

    `stopped_because` tells why it is stopped though its spec wants it to run. While `observed`
    lags behind `generation`, phase and status speak of an older spec.
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
    stopped_because: Literal["insufficient_balance"] | None
    refused_by_cluster: str | None
    status: dict[str, Any]
    responsibility: dict[str, str]
    created_at: datetime
    changed_at: datetime
    deleted_at: datetime | None

    @classmethod
    def of(cls, row: Deployment) -> Self:
        """Return what a tenant sees: not what replicas cost the platform."""
        out = cls.of_all(row)
        status = {name: value for name, value in row.status.items() if name != "hourlyUsd"}
        return out.model_copy(update={"status": status})

    @classmethod
    def of_all(cls, row: Deployment) -> Self:
        """Return what a platform admin sees."""
        path = Path(row.path)
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            name=row.name,
            path=path,
            namespace=row.namespace,
            managed="row" if row.managed == "row" else "external",
            state="active"
            if row.state == "active"
            else ("deleting" if row.state == "deleting" else "deleted"),
            spec=row.spec,
            generation=row.generation,
            observed_generation=row.observed_generation,
            phase=str(row.status.get("phase", "")),
            model=row.status.get("endpoint") or None,
            stopped_because="insufficient_balance" if row.out_of_funds else None,
            refused_by_cluster=row.refusal,
            status=row.status,
            responsibility=_responsibility(path),
            created_at=row.created_at,
            changed_at=row.changed_at,
            deleted_at=row.deleted_at,
        )


class Placement(BaseModel):
    """The GPU configuration that would be taken first."""

    configuration: str
    gpus: int | None
    nodes: int | None
    spot: bool


class PreviewOut(BaseModel):
    """What an order would get. `stock` is room for replicas now, null where unknown."""

    dry_run: Literal[True] = True
    placement: Placement
    stock: dict[str, int | None]
    replicas_min: int
    replicas_max: int
    replica_usd_per_hour: str | None
    usd_per_hour_min: str | None
    usd_per_hour_max: str | None
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


class GpuTimeOut(BaseModel):
    """A replica's proven life. Time that the account did not cover is waived."""

    id: uuid.UUID
    replica: str
    configuration: str
    gpus: int
    spot: bool
    usd_per_hour: str
    started_at: datetime
    proven_until: datetime
    ended_at: datetime | None
    proven_ms: int
    billed_ms: int
    charge_usd: str
    charge_p: str
    waived_usd: str
    waived_p: str

    @classmethod
    def of(cls, interval: GpuInterval) -> Self:
        columns = {
            name: getattr(interval, name) for name in cls.model_fields if hasattr(interval, name)
        }
        money = {
            "usd_per_hour": p_to_usd(interval.rate_p_per_hour),
            "charge_usd": p_to_usd(interval.billed_p),
            "charge_p": str(interval.billed_p),
            "waived_usd": p_to_usd(interval.waived_p),
            "waived_p": str(interval.waived_p),
        }
        return cls(**(columns | money))


class DeploymentUsage(BaseModel):
    """What a deployment cost: all of it, and its replicas' lives a page at a time."""

    proven_ms: int
    billed_ms: int
    charge_usd: str
    charge_p: str
    waived_usd: str
    waived_p: str
    data: list[GpuTimeOut]
    next: str | None

    @classmethod
    def of(cls, totals: Totals, data: list[GpuTimeOut], next: str | None) -> Self:
        return cls(
            proven_ms=totals.proven_ms,
            billed_ms=totals.billed_ms,
            charge_usd=p_to_usd(totals.billed_p),
            charge_p=str(totals.billed_p),
            waived_usd=p_to_usd(totals.waived_p),
            waived_p=str(totals.waived_p),
            data=data,
            next=next,
        )


class NewGpuPrice(Body):
    """What a replica on a GPU configuration costs an hour from a moment on, null: from now."""

    configuration: Name = Field(examples=["h200-x4"])
    kind: Literal["on_demand", "spot"] = "on_demand"
    usd_per_hour: Usd = Field(examples=["19.36"])
    effective_from: AwareDatetime | None = None


class GpuPriceOut(BaseModel):
    id: uuid.UUID
    configuration: str
    kind: str
    usd_per_hour: str
    effective_from: datetime
    created_at: datetime

    @classmethod
    def of(cls, version: GpuPriceVersion) -> Self:
        return cls(
            id=version.id,
            configuration=version.configuration,
            kind=version.kind,
            usd_per_hour=p_to_usd(version.rate_p_per_hour),
            effective_from=version.effective_from,
            created_at=version.created_at,
        )


class GpuConfigurationOut(BaseModel):
    """A GPU configuration that can be ordered. A price of null: not for sale."""

    id: str
    gpu: str
    architecture: str
    gpus: int
    nodes: int
    memory_gib: float
    nvlink: bool
    spot: bool
    usd_per_hour: str | None
    free_replicas: int | None

    @classmethod
    def of(cls, offer: Offer, market: Market) -> Self:
        configuration = offer.configuration
        rate_p = market.rate_p_per_hour(configuration.id)
        return cls(
            id=configuration.id,
            gpu=configuration.gpu,
            architecture=configuration.architecture,
            gpus=configuration.count,
            nodes=configuration.nodes,
            memory_gib=configuration.memory_gib,
            nvlink=configuration.nvlink,
            spot=configuration.spot,
            usd_per_hour=None if rate_p is None else p_to_usd(rate_p),
            free_replicas=offer.free_replicas,
        )


_BILLING = {
    Path.SERVERLESS: "by token",
    Path.DEDICATED: "by GPU time while replicas are proven to serve; starting up is free",
    Path.BARE: "by GPU time while the machine is proven to be reachable; starting up is free",
}


def _responsibility(path: Path) -> dict[str, str]:
    return {layer.value: party.value for layer, party in RESPONSIBILITY[path].items()}
