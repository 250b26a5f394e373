"""GET /v1/models in OpenAI's and DeepSeek's shape: what can be asked for. Called by `app`."""

import uuid
from datetime import UTC, datetime

from controlplane.gateway.aliases import Aliases
from controlplane.gateway.body import MAX_TOKENS_LIMIT
from controlplane.gateway.router import Router
from controlplane.pricing.drafts import SERVERLESS
from controlplane.pricing.snapshot import PriceBook


def listing(
    book: PriceBook, aliases: Aliases, router: Router, tenant_id: uuid.UUID
) -> dict[str, object]:
    """Return every visible model that has a price, their aliases, and the tenant's own
    deployments."""
    priced = book.models(SERVERLESS, datetime.now(UTC))
    own = router.dedicated_models(str(tenant_id))
    told = aliases.offered
    others = [it for it, row in told.items() if row.alias_of in priced and it not in priced]
    seen = [it for it in (*priced, *others) if it not in told or told[it].visible]
    names = [*(it for it in seen if it not in own), *own]
    return {
        "object": "list",
        "data": [describe(book, aliases, router, tenant_id, it) for it in names],
    }


def describe(
    book: PriceBook, aliases: Aliases, router: Router, tenant_id: uuid.UUID, model: str
) -> dict[str, object]:
    """Return one model; its lengths are null until a replica has said them. An alias tells of the
    model behind it, and in `alias_of` which that is.

    Raises:
        ModelNotFound: the model has no price, is hidden, or is another tenant's.
    """
    target = aliases.target(model, router.dedicated_models(str(tenant_id)))
    route = router.resolve(target, str(tenant_id))
    price = book.price(target, route.path, datetime.now(UTC))
    context_window = router.context_window(route)
    shown: dict[str, object] = {
        "id": model,
        "object": "model",
        # A version's id is a UUIDv7: its first 48 bits are the ms of its publication.
        "created": (price.version_id.int >> 80) // 1000,
        "owned_by": "flashplane",
        "context_window": context_window,
        "max_output_tokens": min(context_window, MAX_TOKENS_LIMIT) if context_window else None,
    }
    told = aliases.offered.get(model)
    if target != model:
        shown["alias_of"] = shown["root"] = target
    if told is not None and told.description:
        shown["description"] = told.description
    return shown
