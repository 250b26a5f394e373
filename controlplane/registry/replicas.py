"""Who serves which model where.

A replica's keeper publishes it while it is healthy, and what has changed within a second: the
supervisor repeats the built-in worker every second, the operator every other each three. Gateways
read.
"""

import msgspec

from controlplane.registry.heartbeats import STALE_SECONDS, Count, Moment, Table, Text
from controlplane.store import Store

__all__ = ["KEY", "STALE_SECONDS", "Replica", "publish", "read", "withdraw"]

KEY = "flashplane:replicas"


class Replica(msgspec.Struct, frozen=True):
    """One engine. `published_at` is seconds since 1970 UTC.

    Attributes:
        model: the name the engine serves.
        path: serverless or dedicated.
        deployment: whose replica it is; empty for the built-in worker.
        tenant_id: the only tenant it serves; empty for all.
        weight: its share of new requests among its deployment's replicas, 0 to 100.
        draining: takes no new request; still published so that gateways acknowledge it.
    """

    id: str
    url: Text
    model: str
    path: str
    max_model_len: Count
    published_at: Moment
    deployment: str = ""
    tenant_id: str = ""
    weight: Count = 100
    draining: bool = False


TABLE = Table(KEY, Replica)


def publish(store: Store, replica: Replica) -> None:
    """Say that `replica` is there; to be repeated well within `STALE_SECONDS`."""
    TABLE.publish(store, replica.id, replica)


def withdraw(store: Store, replica_id: str) -> None:
    """Say that a replica is gone."""
    TABLE.withdraw(store, replica_id)


def read(store: Store, now: float) -> list[Replica]:
    """Return the replicas published within `STALE_SECONDS` before `now`, in order of id."""
    return TABLE.read(store, now)
