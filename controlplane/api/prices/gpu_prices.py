"""Admin routes of the price book of GPU time."""

from fastapi import APIRouter

from controlplane.api.contract.route import Contract
from controlplane.api.deployments.gpu_schemas import GpuPriceOut, NewGpuPrice
from controlplane.api.deps import Admin, AfterId, Db, Limit, page
from controlplane.api.schemas import Page
from controlplane.money import usd_to_p
from controlplane.pricing import gpu

router = APIRouter(prefix="/admin/v1/gpu-prices", tags=["prices"], route_class=Contract)


@router.get("")
def list_gpu_prices(
    session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[GpuPriceOut]:
    """List price versions in the order they were published."""
    found = gpu.listing(session, after=after, limit=limit + 1)
    return page(found, limit, show=GpuPriceOut.of, cursor=lambda version: version.id)


@router.post("", status_code=201)
def publish_gpu_price(body: NewGpuPrice, session: Db, admin: Admin) -> GpuPriceOut:
    """Publish a version. It never changes; replicas that serve keep the price they began with."""
    version = gpu.publish(
        session,
        configuration=body.configuration,
        kind=body.kind,
        rate_p_per_hour=usd_to_p(body.usd_per_hour),
        effective_from=body.effective_from,
    )
    return GpuPriceOut.of(version)
