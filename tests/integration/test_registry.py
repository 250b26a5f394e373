"""The registry on a real Valkey."""

import pytest
import redis

from controlplane.registry import gateways, leases, pools, replicas
from controlplane.registry.heartbeats import Table
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


GOOD = b'{"id":"a","url":"http://h","model":"m","path":"serverless","max_model_len":1'
SPOILT = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"null",
    b'{"id":"a"}',
    b'{"id":"\\ud800"}',
    GOOD + b',"published_at":null}',
    GOOD + b',"published_at":1e400}',
    GOOD + b',"published_at":-1}',
    GOOD + b',"published_at":100,"weight":-5}',
    GOOD + b',"published_at":100,"weight":1e99}',
    GOOD.replace(b"http://h", b"http://h\\r\\nx: y") + b',"published_at":100}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_record_that_cannot_be_read_hides_no_other(redis_url: str, spoilt: bytes) -> None:
    with open_store(redis_url) as store:
        replicas.publish(store, replica("b"))
        store.hset(replicas.KEY, "a", spoilt)
        store.hset(replicas.KEY, b"\xff", spoilt)  # type: ignore[arg-type]
        assert replicas.read(store, 100.0) == [replica("b")]


@pytest.mark.parametrize("table", [gateways.TABLE, leases.TABLE, pools.TABLE])
def test_no_table_is_blinded(redis_url: str, table: Table[Replica]) -> None:
    with open_store(redis_url) as store:
        store.hset(table.key, "a", b'{"published_at": "soon"}')
        assert table.read(store, 0.0) == []
