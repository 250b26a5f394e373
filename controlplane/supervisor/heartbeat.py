"""Publishes the local engine worker in the replica registry while it is healthy.

In a cluster the operator does this; on one machine the supervisor does, from a thread of its own.
"""

import threading
import time

import httpx
import redis

from controlplane.registry.replicas import Replica, publish, withdraw
from controlplane.store import open_store

INTERVAL_SECONDS = 1.0
REPLICA_ID = "flash-0"


class Heartbeat:
    """Asks the worker's health every second and publishes or withdraws its replica."""

    def __init__(self, redis_url: str, worker_url: str, *, path: str) -> None:
        self._store = open_store(redis_url)
        self._worker_url = worker_url
        self._path = path
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; call it once."""
        self._thread.start()

    def stop(self) -> None:
        """Withdraw the replica and end; the store must still be up to be told."""
        self._stopping.set()
        self._thread.join()
        self._store.close()

    def _run(self) -> None:
        with httpx.Client(timeout=INTERVAL_SECONDS, trust_env=False) as client:
            while not self._stopping.is_set():
                self._tell(client)
                self._stopping.wait(INTERVAL_SECONDS)
        self._withdraw()

    def _tell(self, client: httpx.Client) -> None:
        try:
            response = client.get(f"{self._worker_url}/health")
        except httpx.TimeoutException:
            # Busy, perhaps with a long prompt. Silence for long lets the entry lapse by itself.
            return
        except httpx.HTTPError:
            self._withdraw()
            return
        if response.status_code != 200:
            self._withdraw()
            return
        health = response.json()
        replica = Replica(
            id=REPLICA_ID,
            url=self._worker_url,
            model=health["model"],
            path=self._path,
            max_model_len=health["max_model_len"],
            published_at=time.time(),
        )
        try:
            publish(self._store, replica)
        except redis.RedisError:
            return  # the next beat tries again

    def _withdraw(self) -> None:
        try:
            withdraw(self._store, REPLICA_ID)
        except redis.RedisError:
            return  # unheard of, it lapses by itself
