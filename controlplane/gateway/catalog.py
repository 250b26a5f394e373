"""GET /v1/models in OpenAI's and DeepSeek's shape: what can be asked for. Called by `app`."""

import uuid
from datetime import UTC, datetime

from controlplane.gateway.body import MAX_TOKENS_LIMIT
from controlplane.gateway.router import Router
from controlplane.pricing.drafts import SERVERLESS
from controlplane.pricing.snapshot import PriceBook


def listing(book: PriceBook, router: Router, tenant_id: uuid.UUID) -> dict[str, object]:
    """Return every model that has a price, and the tenant's own deployments."""
    names = book.models(SERVERLESS, datetime.now(UTC))
    names += router.dedicated_models(str(tenant_id))
    return {"object": "list", "data": [describe(book, router, tenant_id, it) for it in names]}


def describe(
    book: PriceBook, router: Router, tenant_id: uuid.UUID, model: str
) -> dict[str, object]:
    """Return one model; its lengths are null until a replica has said them.

    Raises:
        ModelNotFound: the model has no price, or is another tenant's.
    """
    route = router.resolve(model, str(tenant_id))
    price = book.price(model, route.path, datetime.now(UTC))
    context_window = router.context_window(route)
    return {
        "id": model,
        "object": "model",
        # A version's id is a UUIDv7: its first 48 bits are the ms of its publication.
        "created": (price.version_id.int >> 80) // 1000,
        "owned_by": "flashplane",
        "context_window": context_window,
        "max_output_tokens": min(context_window, MAX_TOKENS_LIMIT) if context_window else None,
    }
