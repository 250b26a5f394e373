"""When a draining replica may stop: nobody has a request on it any more, or its time is over.

A gateway lists a replica in `draining` only once it cannot be chosen any more, so a zero there is
final for that gateway. Silence proves nothing: a gateway that stopped reporting may still stream.
"""

from controlplane.crd.base import seconds
from controlplane.crd.replica import ReplicaStatus
from controlplane.operator.replica.ending import Ending, asked
from controlplane.operator.replica.observed import Observed
from controlplane.registry.gateways import GatewayReport
from controlplane.registry.heartbeats import STALE_SECONDS

ACKNOWLEDGED, DEADLINE, GONE, UNSERVED = "acknowledged", "deadline", "gone", "unserved"
# How old an engine's word about its requests may be.
ENGINE_FRESH_SECONDS = 5.0


def deadline(observed: Observed, cause: Ending | None, since: float) -> float:
    """Return until when requests in flight may finish, seconds since 1970 UTC.

    Args:
        since: when the drain began.
    """
    own = since + observed.replica.spec.drain_timeout_seconds
    return own if cause is None or cause.by is None else min(own, cause.by)


def drained_by(observed: Observed, status: ReplicaStatus, cause: Ending | None, now: float) -> str:
    """Return why it may stop now, one of this module's words; empty: it may not yet."""
    assert status.phase_since is not None
    since = seconds(status.phase_since)
    if (cause is not None and cause.lost) or not observed.pods:
        return GONE
    if now >= deadline(observed, cause, since):
        return DEADLINE
    if not observed.workload.probed:
        # No gateway routes to it. Who holds it has asked for its end, or has until the notice.
        return ACKNOWLEDGED if asked(observed) is not None else ""
    return ACKNOWLEDGED if _acknowledged(observed, since, now) else ""


def _acknowledged(observed: Observed, since: float, now: float) -> bool:
    reports, uid = observed.signals.gateways, observed.replica.uid
    if reports is None or _engine_requests(observed, since, now):
        return False
    fresh = [it for it in reports if now - it.published_at <= STALE_SECONDS]
    if not all(_lists_zero(report, uid, since) for report in fresh):
        return False
    if fresh and len(fresh) == len(reports):
        return True
    # A gateway vanished with its streams, or none reports: then the engine has the last word, once
    # every gateway that lives has had the time to report.
    long_enough = now - since > STALE_SECONDS
    return long_enough and _engine_requests(observed, since, now) == 0


def _lists_zero(report: GatewayReport, uid: str, since: float) -> bool:
    return report.published_at >= since and report.draining.get(uid) == 0


def _engine_requests(observed: Observed, since: float, now: float) -> int | None:
    """Return how many requests the engine told of lately; None: it did not tell."""
    engine = observed.engine
    if engine is None or engine.at < since or now - engine.at > ENGINE_FRESH_SECONDS:
        return None
    if engine.running is None or engine.waiting is None:
        return None
    return engine.running + engine.waiting
