"""The registry of replicas: who serves which model where, alive within the last seconds.

A replica's keeper (the supervisor on one machine, the operator in a cluster) publishes it every
second while it is healthy; gateways read. One hash in the store, one field a replica: losing it
costs one second of heartbeats.
"""

import msgspec

from controlplane.store import Store

KEY = "flashplane:replicas"
STALE_SECONDS = 10.0


class Replica(msgspec.Struct, frozen=True):
    """One engine that can serve. `published_at` is seconds since 1970 UTC."""

    id: str
    url: str
    model: str
    path: str
    max_model_len: int
    published_at: float


_DECODER = msgspec.json.Decoder(Replica)


def publish(store: Store, replica: Replica) -> None:
    """Say that `replica` is ready; to be repeated well within `STALE_SECONDS`."""
    store.hset(KEY, replica.id, msgspec.json.encode(replica))


def withdraw(store: Store, replica_id: str) -> None:
    """Say that a replica takes no more requests."""
    store.hdel(KEY, replica_id)


def read(store: Store, now: float) -> list[Replica]:
    """Return the replicas published within `STALE_SECONDS` before `now`, in order of id."""
    values = store.hgetall(KEY).values()
    replicas = [_DECODER.decode(value) for value in values]
    fresh = [replica for replica in replicas if now - replica.published_at <= STALE_SECONDS]
    return sorted(fresh, key=lambda replica: replica.id)
