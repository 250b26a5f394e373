"""Admin routes of the price book."""

from fastapi import APIRouter

from controlplane.api.contract import Contract
from controlplane.api.deps import Admin, AfterId, Db, Limit, page
from controlplane.api.schemas import NewPrice, Page, PriceOut
from controlplane.money import usd_per_million_to_rate_p
from controlplane.pricing import book

router = APIRouter(prefix="/admin/v1/prices", tags=["prices"], route_class=Contract)


@router.get("")
def list_prices(
    session: Db, admin: Admin, after: AfterId = None, limit: Limit = 100
) -> Page[PriceOut]:
    """List price versions in the order they were published."""
    found = book.listing(session, after=after, limit=limit + 1)
    return page(found, limit, show=PriceOut.of, cursor=lambda version: version.id)


@router.post("", status_code=201)
def publish_price(body: NewPrice, session: Db, admin: Admin) -> PriceOut:
    """Publish a version. It never changes; requests admitted before keep the price they saw."""
    version = book.publish(
        session,
        model=body.model,
        path=body.path,
        hit_rate_p=usd_per_million_to_rate_p(body.hit_usd_per_million),
        miss_rate_p=usd_per_million_to_rate_p(body.miss_usd_per_million),
        output_rate_p=usd_per_million_to_rate_p(body.output_usd_per_million),
        effective_from=body.effective_from,
    )
    return PriceOut.of(version)
