"""What the gateway tells of itself: Prometheus objects and one access-log line a request.

Neither prompts nor keys nor answers come near this module. Called by `app`, `meter`, `holding` and
`waiting`.
"""

import logging
import time
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from controlplane.gateway.call import Call

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REQUESTS = Counter(
    "flashplane_gateway_requests",
    "Requests by outcome: a status, aborted or failed",
    ["outcome"],
)
IN_FLIGHT = Gauge("flashplane_gateway_in_flight", "Requests being served")
TTFT_SECONDS = Histogram(
    "flashplane_gateway_ttft_seconds",
    "Arrival to the answer's first chunk",
    buckets=LATENCY_BUCKETS,
)
CHUNKS = Counter("flashplane_gateway_chunks", "Chunks read from engines")
RESUMPTIONS = Counter(
    "flashplane_gateway_resumptions",
    "Answers whose engine was lost, by whether another went on: resumed or failed",
    ["outcome"],
)
HELD = Gauge("flashplane_gateway_held", "Requests waiting for a replica to start")
HELD_SECONDS = Histogram(
    "flashplane_gateway_held_seconds",
    "How long requests waited for a replica to start, those included that waited in vain",
    buckets=(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200),
)
HOLD_SECONDS = Histogram(
    "flashplane_gateway_hold_seconds", "Placing a hold, its batch included", buckets=LATENCY_BUCKETS
)
JOURNAL_SECONDS = Histogram(
    "flashplane_gateway_journal_seconds", "Making a FINAL durable", buckets=LATENCY_BUCKETS
)
UNSHIPPED = Gauge("flashplane_gateway_unshipped", "Ended requests not staged in PostgreSQL yet")

_access_log = logging.getLogger("controlplane.gateway.access")


def record(call: "Call", outcome: str) -> None:
    """Count and log a request that has ended.

    Args:
        call: the request.
        outcome: its status, or `aborted` for a client that left, `failed` for a broken stream.
    """
    now_us = time.time_ns() // 1000
    REQUESTS.labels(outcome).inc()
    fields: dict[str, object] = {
        "request_id": str(call.request_id),
        "tenant_id": str(call.tenant_id) if call.tenant_id is not None else None,
        "model": call.model,
        "outcome": outcome,
        "status": call.reply.status,
        "duration_ms": (now_us - call.started_at_us) / 1000,
    }
    meter = call.meter
    if meter is not None:
        usage = meter.usage
        fields |= {
            "finish_reason": meter.finish_reason,
            "hit_tokens": usage.hit_tokens,
            "miss_tokens": usage.miss_tokens,
            "output_tokens": usage.output_tokens,
        }
        if meter.first_token_at_us is not None:
            ttft_us = meter.first_token_at_us - call.started_at_us
            TTFT_SECONDS.observe(ttft_us / 1e6)
            fields["ttft_ms"] = ttft_us / 1000
    _access_log.info("request", extra=fields)
