"""One request while it is served. Made by `app`, filled by `serving`, logged by `telemetry`."""

import uuid
from dataclasses import dataclass, field

from controlplane.gateway.cancellation import Cancellation
from controlplane.gateway.endpoints import Endpoint
from controlplane.gateway.meter import Meter
from controlplane.gateway.reply import Reply


@dataclass(slots=True)
class Call:
    """`tenant_id`, `model` and `meter` are known as far as the request came."""

    request_id: uuid.UUID
    endpoint: Endpoint
    headers: list[tuple[bytes, bytes]]
    content: bytes
    reply: Reply
    started_at_us: int
    cancellation: Cancellation = field(default_factory=Cancellation)
    tenant_id: uuid.UUID | None = None
    model: str | None = None
    meter: Meter | None = None
