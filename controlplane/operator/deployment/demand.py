"""What is asked of a deployment now, read out of the signals. Called by `scaling` and `rollout`.

A report that stopped coming is missing, not zero, until its gateway is given up.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from controlplane.crd.replica import Phase, Replica
from controlplane.operator.deployment.judgement import Evidence
from controlplane.operator.signals import Signals
from controlplane.registry.gateways import GatewayReport, Latency
from controlplane.registry.heartbeats import STALE_SECONDS

GIVEN_UP_SECONDS = 900.0  # a gateway that was silent for this long has no requests any more
ENGINE_STALE_SECONDS = 30.0


@dataclass(frozen=True)
class Demand:
    """The load at one moment; None: it could not be read.

    Attributes:
        held: requests that wait for a replica; what is known of them, 0 if nothing is.
        inflight: requests on replicas that are not draining.
        complete: every gateway that may have requests has told, and every engine.
        kv: occupied shares of the serving replicas' caches, summed; None: no engine tells.
        ttft_p95_ms: request-weighted over replicas.
        itl_p95_ms: the same of the time between tokens.
    """

    held: int
    inflight: int | None
    complete: bool
    kv: float | None = None
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None

    @property
    def load(self) -> int | None:
        """Requests held and in flight."""
        return None if self.inflight is None else self.held + self.inflight


def demand(signals: Signals, pool: str, replicas: Sequence[Replica], now: float) -> Demand:
    """Return what is asked of `replicas`, those of `pool` that are not draining."""
    recent, fresh = _recent(signals, now)
    ids = {replica.uid for replica in replicas}
    kv, engines_told = _occupancy(signals, replicas, now)
    rows = [
        latency
        for report in recent
        if _is_fresh(report, now)
        for replica_id, latency in report.latency.items()
        if replica_id in ids
    ]
    return Demand(
        held=sum(report.held.get(pool, 0) for report in recent),
        inflight=_inflight(recent, ids) if fresh else None,
        complete=fresh and len(recent) == _count_fresh(recent, now) and engines_told,
        kv=kv,
        ttft_p95_ms=_mean([(row.ttft_p95_ms, row.requests) for row in rows]),
        itl_p95_ms=_mean([(row.itl_p95_ms, row.requests) for row in rows]),
    )


def evidence(signals: Signals, replicas: Collection[Replica], now: float) -> Evidence:
    """Return what requests to these replicas experienced in the last minute."""
    ids = {replica.uid for replica in replicas}
    total = Evidence()
    for report in signals.gateways or ():
        if not _is_fresh(report, now):
            continue
        for replica_id in ids & report.latency.keys():
            total += _of(report.latency[replica_id])
    return total


def _of(latency: Latency) -> Evidence:
    if latency.ttft_p95_ms is None:
        return Evidence(latency.requests, latency.errors)
    # A row with a percentile had at least one request, whatever it counted.
    timed = max(1, latency.requests - latency.errors)
    return Evidence(latency.requests, latency.errors, latency.ttft_p95_ms * timed, timed)


def inflight_of(signals: Signals, replica: Replica) -> int:
    """Return the requests all gateways told of one replica; to order, not to decide."""
    return sum(report.inflight.get(replica.uid, 0) for report in signals.gateways or ())


def _recent(signals: Signals, now: float) -> tuple[list[GatewayReport], bool]:
    reports = signals.gateways or ()
    recent = [it for it in reports if now - it.published_at < GIVEN_UP_SECONDS]
    return recent, _count_fresh(recent, now) > 0


def _is_fresh(report: GatewayReport, now: float) -> bool:
    return now - report.published_at <= STALE_SECONDS


def _count_fresh(reports: Sequence[GatewayReport], now: float) -> int:
    return sum(1 for report in reports if _is_fresh(report, now))


def _inflight(reports: Sequence[GatewayReport], ids: Collection[str]) -> int:
    return sum(
        count
        for report in reports
        for replica_id, count in report.inflight.items()
        if replica_id in ids
    )


def _occupancy(
    signals: Signals, replicas: Sequence[Replica], now: float
) -> tuple[float | None, bool]:
    """Return the summed occupancy, and whether every serving engine was heard lately.

    An engine that answers but never tells its occupancy does not block anything.
    """
    states = [
        signals.engines.get(replica.uid)
        for replica in replicas
        if replica.status.phase is Phase.SERVING
    ]
    heard = [it for it in states if it is not None and now - it.at <= ENGINE_STALE_SECONDS]
    told = [it.kv_usage for it in heard if it.kv_usage is not None]
    return (sum(told) if told else None), len(heard) == len(states)


def _mean(weighted: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(value, max(1, weight)) for value, weight in weighted if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
