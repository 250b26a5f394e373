"""Whether a candidate is worse than what runs: error share and time to first token, side by side.

Gateways report the last minute of each replica. `demand` sums it up, `history` adds minutes up.
"""

from dataclasses import dataclass

from controlplane.crd.inference import AbortOn


@dataclass(frozen=True)
class Evidence:
    """What requests to one revision experienced.

    Attributes:
        requests: answered or failed.
        errors: failed.
        ttft_ms_sum: the replicas' p95 times to first token in ms, each times its requests.
        timed: requests of those replicas.
    """

    requests: int = 0
    errors: int = 0
    ttft_ms_sum: float = 0.0
    timed: int = 0

    def __add__(self, other: "Evidence") -> "Evidence":
        return Evidence(
            self.requests + other.requests,
            self.errors + other.errors,
            self.ttft_ms_sum + other.ttft_ms_sum,
            self.timed + other.timed,
        )

    @property
    def error_ratio(self) -> float:
        """Share of requests that failed; 0 without any."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def ttft_ms(self) -> float | None:
        """The request-weighted mean of the p95 times to first token."""
        return self.ttft_ms_sum / self.timed if self.timed else None


NONE = Evidence()


def worse(candidate: Evidence, current: Evidence, limits: AbortOn) -> str:
    """Return in what the candidate is worse; empty: in nothing, or it had too few requests."""
    if candidate.requests < limits.requests:
        return ""
    beyond = candidate.error_ratio - current.error_ratio
    if beyond > limits.error_ratio:
        return (
            f"{candidate.error_ratio:.1%} of its requests failed, "
            f"{current.error_ratio:.1%} of the current revision's"
        )
    slow, usual = candidate.ttft_ms, current.ttft_ms
    if slow is None or not usual or slow <= usual * limits.ttft_ratio:
        return ""
    return f"its p95 time to first token is {slow:.0f} ms, the current revision's {usual:.0f} ms"
