"""Admin routes of the model registry: what models are called, and what is told of them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from sqlalchemy import select

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, Db, Limit, page
from controlplane.api.identity.schemas import ModelIn, ModelName, ModelOut
from controlplane.api.schemas import Page
from controlplane.errors import Conflict, UnprocessableRequest
from controlplane.pricing.drafts import SERVERLESS
from controlplane.pricing.models import PriceVersion
from controlplane.tenants import offered

router = APIRouter(prefix="/admin/v1/models", tags=["models"], route_class=Contract)

Named = Annotated[ModelName, Path(description="as requests name it")]
AfterName = Annotated[ModelName | None, Query(description="`next` of the page before")]


@router.get("")
def list_models(
    session: Db, admin: Admin, after: AfterName = None, limit: Limit = 100
) -> Page[ModelOut]:
    """List what is told of models. One with a price alone is visible without being listed here."""
    found = offered.listing(session, after=after, limit=limit + 1)
    return page(found, limit, show=ModelOut.model_validate, cursor=lambda model: model.name)


@router.get("/{name}")
def get_model(name: Named, session: Db, admin: Admin) -> ModelOut:
    """Show what is told of a model."""
    return ModelOut.model_validate(offered.get(session, name=name))


@router.put("/{name}")
def put_model(name: Named, body: ModelIn, session: Db, admin: Admin) -> ModelOut:
    """Describe, hide or show a model, or make an alias of one. Gateways follow within a second."""
    if body.alias_of is not None:
        if _has_price(session, name):
            raise Conflict(f"{name!r} has a price of its own.", param="alias_of")
        if not _has_price(session, body.alias_of):
            raise UnprocessableRequest(f"{body.alias_of!r} has no price.", param="alias_of")
    row = offered.put(
        session,
        name=name,
        description=body.description,
        visible=body.visible,
        alias_of=body.alias_of,
    )
    return ModelOut.model_validate(row)


@router.delete("/{name}")
def remove_model(name: Named, session: Db, admin: Admin) -> ModelOut:
    """Tell nothing of a model any more. An alias ends; a model with a price is visible again."""
    return ModelOut.model_validate(offered.remove(session, name=name))


def _has_price(session: Db, name: str) -> bool:
    query = select(PriceVersion.id).where(
        PriceVersion.model == name, PriceVersion.path == SERVERLESS
    )
    return session.scalar(query.limit(1)) is not None
