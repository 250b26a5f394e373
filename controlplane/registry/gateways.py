"""What each gateway has in flight and in waiting: the autoscaler's demand, the drains' proof.

A gateway reports every half second, and withdraws its report when it has ended cleanly. A replica
is drained when every report made after it was published as draining lists it in `draining` with
zero. A report that stopped coming proves nothing: absent is not zero.
"""

import msgspec

from controlplane.registry.heartbeats import Count, Moment, Table


class Latency(msgspec.Struct, frozen=True):
    """The 95th percentiles of the last minute, in ms; None without a sample."""

    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    requests: Count = 0
    errors: Count = 0


class GatewayReport(msgspec.Struct, frozen=True):
    """One gateway's state.

    Attributes:
        gateway: its lasting name.
        inflight: requests by replica id; replicas without any are absent.
        draining: requests by id of every replica this gateway knows to be draining, zeros too.
        held: requests that wait for a replica, by pool name.
        latency: by replica id, of the last minute.
    """

    gateway: str
    published_at: Moment
    inflight: dict[str, Count] = {}
    draining: dict[str, Count] = {}
    held: dict[str, Count] = {}
    latency: dict[str, Latency] = {}


TABLE = Table("flashplane:gateways", GatewayReport)
