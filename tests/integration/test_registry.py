"""The registry on a real Valkey."""

import pytest
import redis

from controlplane.registry import replicas
from controlplane.registry.replicas import STALE_SECONDS, Replica
from controlplane.store import open_store


def replica(name: str, published_at: float = 100.0) -> Replica:
    return Replica(name, "http://127.0.0.1:1", "m", "serverless", 4096, published_at)


def test_what_is_published_is_read_until_withdrawn(redis_url: str) -> None:
    with open_store(redis_url) as store:
        replicas.publish(store, replica("b"))
        replicas.publish(store, replica("a"))
        replicas.publish(store, replica("a", 101.0))
        assert replicas.read(store, 101.0) == [replica("a", 101.0), replica("b")]
        replicas.withdraw(store, "a")
        assert replicas.read(store, 101.0) == [replica("b")]


def test_a_replica_that_is_not_published_again_goes_stale(redis_url: str) -> None:
    with open_store(redis_url) as store:
        replicas.publish(store, replica("a"))
        assert replicas.read(store, 100.0 + STALE_SECONDS)
        assert not replicas.read(store, 100.1 + STALE_SECONDS)


def test_a_store_that_is_down_is_an_error(tmp_path: object) -> None:
    with open_store(f"unix://{tmp_path}/none") as store, pytest.raises(redis.RedisError):
        replicas.read(store, 0.0)
