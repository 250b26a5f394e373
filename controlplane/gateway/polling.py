"""The registry, read every half second into the router. Run by `lifecycle`."""

import asyncio
import logging
import time

import redis

from controlplane.gateway.router import Router
from controlplane.gateway.snapshot import SILENCE_SECONDS, Snapshot, believed
from controlplane.registry import pools, replicas
from controlplane.store import Store

POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)


async def poll_once(store: Store, router: Router) -> bool:
    """Give the router a new snapshot; False, and the last one stays, while the store is down."""
    try:
        snapshot = await asyncio.to_thread(_read, store, router.draining)
    except redis.RedisError:
        return False
    router.take(snapshot)
    return True


def _read(store: Store, retired: frozenset[str]) -> Snapshot:
    now = time.time()
    told = replicas.TABLE.read(store, now, stale_seconds=SILENCE_SECONDS)
    offered = pools.TABLE.read(store, now, stale_seconds=SILENCE_SECONDS)
    return Snapshot(*believed(told, offered, now), retired)


async def poll(store: Store, router: Router) -> None:
    """Keep the router's snapshot fresh until cancelled."""
    was_up = True
    while True:
        is_up = await poll_once(store, router)
        if is_up != was_up:
            _log.warning("store_is_up" if is_up else "store_is_down")
        was_up = is_up
        await asyncio.sleep(POLL_SECONDS)
