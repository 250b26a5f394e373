"""Redis or Valkey: connections. Nothing that may not be lost is kept there.

Called by entry points; the clients go to `replicas` and to whoever else shares state between
processes.
"""

from typing import TypeAlias

import redis

Store: TypeAlias = "redis.Redis[bytes]"

TIMEOUT_SECONDS = 2.0


def open_store(redis_url: str) -> Store:
    """Return a client of `redis://host:port/db` or `unix:///path?db=0`; connects when first used.

    A store that is down answers with `redis.RedisError` within `TIMEOUT_SECONDS`.
    """
    return redis.Redis.from_url(
        redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
    )
