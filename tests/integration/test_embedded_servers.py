"""The embedded PostgreSQL and Valkey as the supervisor and every other test use them."""

import psycopg
import redis
from sqlalchemy import text

from controlplane.db import open_engine


def test_database_is_migrated_and_reachable_through_the_engine(database_url: str) -> None:
    engine = open_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tenants")) == 0
        assert connection.scalar(text("SHOW server_encoding")) == "UTF8"
        assert connection.scalar(text("SHOW data_checksums")) == "on"
        assert connection.scalar(text("SHOW listen_addresses")) == ""
    engine.dispose()


def test_each_test_has_a_database_of_its_own(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM tenants").fetchone() == (0,)


def test_valkey_is_empty_and_appends_to_disk(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("key", "value")
        assert client.get("key") == b"value"
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_valkey_listens_on_no_port(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.config_get("port") == {"port": "0"}
