"""The registry, read every half second into the router. Run by `lifecycle`."""

import asyncio
import logging
import time

import redis

from controlplane.gateway.router import Router
from controlplane.gateway.snapshot import SILENCE_SECONDS, believed
from controlplane.registry import pools, replicas
from controlplane.registry.pools import Pool
from controlplane.registry.replicas import Replica
from controlplane.store import Store

POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)


async def poll_once(store: Store, router: Router) -> bool:
    """Give the router a new snapshot; False, and the last one stays, while the store is down."""
    try:
        told, offered = await asyncio.to_thread(_read, store)
    except redis.RedisError:
        return False
    router.update(*believed(told, offered, time.time()))
    return True


def _read(store: Store) -> tuple[list[Replica], list[Pool]]:
    now = time.time()
    return (
        replicas.TABLE.read(store, now, stale_seconds=SILENCE_SECONDS),
        pools.TABLE.read(store, now, stale_seconds=SILENCE_SECONDS),
    )


async def poll(store: Store, router: Router) -> None:
    """Keep the router's snapshot fresh until cancelled."""
    was_up = True
    while True:
        is_up = await poll_once(store, router)
        if is_up != was_up:
            _log.warning("store_is_up" if is_up else "store_is_down")
        was_up = is_up
        await asyncio.sleep(POLL_SECONDS)
