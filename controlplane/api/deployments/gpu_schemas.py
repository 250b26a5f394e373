"""What the REST API takes and gives of GPU time: configurations, prices, and what was had."""

import uuid
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from controlplane.amounts import Usd
from controlplane.api.schemas import Body, Moment, Name
from controlplane.deployments.history import Totals
from controlplane.deployments.models import GpuInterval
from controlplane.deployments.quote import Market, Offer
from controlplane.money import p_to_usd
from controlplane.pricing.models import GpuPriceVersion, StoragePriceVersion


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
    effective_from: Moment | None = None


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


class NewStoragePrice(Body):
    """What a GiB of volume costs an hour from a moment on, null: from now.

    `storage_class` is one that orders name; `*` is every other, the cluster's default among them.
    """

    storage_class: Name = Field("*", examples=["*", "fast-ssd"])
    usd_per_gib_hour: Usd = Field(examples=["0.000137"])
    effective_from: Moment | None = None


class StoragePriceOut(BaseModel):
    id: uuid.UUID
    storage_class: str
    usd_per_gib_hour: str
    effective_from: datetime
    created_at: datetime

    @classmethod
    def of(cls, version: StoragePriceVersion) -> Self:
        return cls(
            id=version.id,
            storage_class=version.storage_class,
            usd_per_gib_hour=p_to_usd(version.rate_p_per_gib_hour),
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
