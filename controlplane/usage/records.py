"""What a gateway writes down about a request while it runs. Times are integer µs since 1970 UTC."""

import uuid

import msgspec


class TokenUsage(msgspec.Struct, frozen=True, array_like=True):
    """Cumulative tokens of one request by class; reasoning is part of output."""

    hit_tokens: int = 0
    miss_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="o"):
    """A hold is durable and the request is about to be dispatched.

    Written again when the hold is replaced; the last one counts. The last three are the hold's own
    figures, so that it can be made again in a database that never had it; `amount_p` is None in
    journals from before they were kept.
    """

    request_id: uuid.UUID
    tenant_id: uuid.UUID
    api_key_id: uuid.UUID
    model: str
    path: str
    thinking: bool
    streamed: bool
    price_version_id: uuid.UUID
    started_at_us: int
    band: str = "standard"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    amount_p: int | None = None


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """Usage up to a chunk that is about to be forwarded."""

    request_id: uuid.UUID
    replica: str
    usage: TokenUsage
    at_us: int


class Final(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """The request has ended; the bill is `usage`. `replica` is None when nothing was dispatched."""

    request_id: uuid.UUID
    replica: str | None
    usage: TokenUsage
    finish_reason: str
    first_token_at_us: int | None
    finished_at_us: int


Record = Opened | Progress | Final
