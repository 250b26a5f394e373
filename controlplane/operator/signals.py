"""What is known of load and health beyond Kubernetes' objects: the inputs of scaling and drains.

`replica.monitor` collects them, plans take them as data. Missing is not zero: a signal that could
not be read is None, and nothing is scaled down or declared drained on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.registry.gateways import GatewayReport


@dataclass(frozen=True)
class EngineState:
    """What an engine told last. `at` is seconds since 1970 UTC.

    Attributes:
        healthy: it answered its health check.
        proven: it has completed a generation since it started.
        running: requests it works on; None where it does not tell.
        waiting: requests in its own queue.
        kv_usage: occupied share of its cache, 0 to 1.
        max_model_len: tokens.
        started_at: start of the process that it is about, seconds since 1970 by its node's clock.
    """

    at: float
    healthy: bool
    proven: bool = False
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    max_model_len: int | None = None
    error: str = ""
    started_at: float | None = None


@dataclass(frozen=True)
class GPUError:
    """An XID that a node's driver reported; `at` is seconds since 1970 UTC."""

    at: float
    xid: int
    message: str = ""


@dataclass(frozen=True)
class Signals:
    """Everything at one moment.

    Attributes:
        gateways: every gateway's newest report, stale ones included; None: the store is down.
        engines: by Replica uid; absent: never asked.
        notices: eviction notices by node name: the moment it is taken away, seconds since 1970.
        gpu_errors: what GPUs reported in the last day by node name, newest last.
    """

    gateways: tuple[GatewayReport, ...] | None = None
    engines: Mapping[str, EngineState] = field(default_factory=dict)
    notices: Mapping[str, float] = field(default_factory=dict)
    gpu_errors: Mapping[str, tuple[GPUError, ...]] = field(default_factory=dict)
