"""GET /v1/models in OpenAI's and DeepSeek's shape: what can be asked for. Called by `app`."""

from datetime import UTC, datetime

from controlplane.errors import ModelNotFound
from controlplane.gateway.admission import PATH
from controlplane.gateway.body import MAX_TOKENS_LIMIT
from controlplane.gateway.router import Router
from controlplane.pricing.book import PriceBook


def listing(book: PriceBook, router: Router) -> dict[str, object]:
    """Return every model that has a price."""
    names = book.models(PATH, datetime.now(UTC))
    return {"object": "list", "data": [describe(book, router, name) for name in names]}


def describe(book: PriceBook, router: Router, model: str) -> dict[str, object]:
    """Return one model; its lengths are null until a replica has said them.

    Raises:
        ModelNotFound: the model has no price.
    """
    now = datetime.now(UTC)
    if model not in book.models(PATH, now):
        raise ModelNotFound(f"The model {model!r} does not exist.", param="model")
    context_window = router.context_window(model, PATH)
    return {
        "id": model,
        "object": "model",
        # A version's id is a UUIDv7: its first 48 bits are the ms of its publication.
        "created": (book.price(model, PATH, now).version_id.int >> 80) // 1000,
        "owned_by": "flashplane",
        "context_window": context_window,
        "max_output_tokens": min(context_window, MAX_TOKENS_LIMIT) if context_window else None,
    }
