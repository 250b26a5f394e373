"""Admin routes of the price book of volumes."""

from fastapi import APIRouter

from controlplane.api.contract.route import Contract
from controlplane.api.deployments.gpu_schemas import NewStoragePrice, StoragePriceOut
from controlplane.api.deps import Admin, AfterId, Db, Limit, page
from controlplane.api.schemas import Page
from controlplane.money import usd_to_p
from controlplane.pricing import storage

router = APIRouter(prefix="/admin/v1/storage-prices", tags=["prices"], route_class=Contract)


@router.get("")
def list_storage_prices(
    session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[StoragePriceOut]:
    """List price versions in the order they were published."""
    found = storage.listing(session, after=after, limit=limit + 1)
    return page(found, limit, show=StoragePriceOut.of, cursor=lambda version: version.id)


@router.post("", status_code=201)
def publish_storage_price(body: NewStoragePrice, session: Db, admin: Admin) -> StoragePriceOut:
    """Publish a version. It never changes; volumes that exist keep the price they began with."""
    version = storage.publish(
        session,
        storage_class=body.storage_class,
        rate_p_per_gib_hour=usd_to_p(body.usd_per_gib_hour),
        effective_from=body.effective_from,
    )
    return StoragePriceOut.of(version)
