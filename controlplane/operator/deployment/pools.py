"""Tells gateways every second which deployments there are and how far each is from serving.

A store that is down costs nothing but this: gateways keep their last snapshot for a while, and the
next second tells them again.
"""

from collections.abc import Callable, Mapping, Sequence

import redis

from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Phase, Replica
from controlplane.operator.deployment.fleet import LOADING, is_leaving
from controlplane.operator.deployment.windows import UnknownTimezone, is_open
from controlplane.registry.pools import TABLE, Pool
from controlplane.store import Store

_NEVER = ("Refused", "Deleting")  # phases from which no demand leads to a replica


def pool_record(
    deployment: InferenceDeployment,
    replicas: Sequence[Replica],
    now: float,
    *,
    suspended: bool,
    start_seconds: float,
    max_model_len: int,
) -> Pool:
    """Return what gateways are told of a deployment.

    Args:
        replicas: its own.
        suspended: nothing may run in its namespace.
        start_seconds: how long a start takes.
        max_model_len: the context planned for replicas, told while none serves; 0: unknown.
    """
    spec, status = deployment.spec, deployment.status
    serving = [it for it in replicas if it.status.phase is Phase.SERVING and not is_leaving(it)]
    startable = not suspended and _startable(deployment, now)
    return Pool(
        name=deployment.key,
        model=status.endpoint,
        path=spec.path,
        published_at=now,
        tenant_id=spec.tenant,
        phase=Phase.SERVING.value if serving else status.phase or Phase.PENDING.value,
        serving=len(serving),
        desired=status.desired,
        max_model_len=max((it.status.max_model_len for it in serving), default=max_model_len),
        eta_seconds=0.0 if serving else _eta_seconds(replicas, now, start_seconds, startable),
        hold_timeout_seconds=spec.hold_timeout_seconds,
        startable=startable,
    )


def _startable(deployment: InferenceDeployment, now: float) -> bool:
    spec = deployment.spec
    if spec.stopped or spec.replicas == 0 or deployment.deleting:
        return False
    try:
        return deployment.status.phase not in _NEVER and is_open(spec.windows, now)
    except UnknownTimezone:
        return False


def _eta_seconds(
    replicas: Sequence[Replica], now: float, start_seconds: float, startable: bool
) -> float | None:
    """What is left of the start that is furthest; one that is late is always about to serve."""
    begun = [it.created_at for it in replicas if it.status.phase in LOADING and not is_leaving(it)]
    if begun:
        return round(max(1.0, start_seconds - (now - min(begun))), 1)
    return round(start_seconds, 1) if startable else None


class PoolPublisher:
    """Tells the store of pools whenever `runtime.telling` asks it to."""

    def __init__(self, store: Store, records: Callable[[], Mapping[str, Pool]]) -> None:
        """Prepare. `records` returns all pools by name; it reads caches and must be quick."""
        self._store = store
        self._records = records
        self._told: set[str] = set()

    def publish(self) -> bool:
        """Tell everything once; return whether the store took it."""
        records = self._records()
        try:
            TABLE.publish_all(self._store, records)
            TABLE.withdraw(self._store, *sorted(self._told - records.keys()))
        except redis.RedisError:
            return False
        self._told = set(records)
        return True
