"""GPU time in a storm: replicas of one customer, proven as an operator proves them.

Time runs faster for them, so that a short storm sees many ticks: each life lies in the past, and
its proofs come nearer to now. What each must cost is worked out here, not by the product.
"""

import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import redis
from sqlalchemy.orm import Session, sessionmaker

from controlplane.accounts import ledger
from controlplane.accounts.opening import create_tenant
from controlplane.pricing import gpu
from controlplane.registry.leases import TABLE, Lease
from controlplane.store import open_store

RATE_P = 7_201_003_600_007  # an hour is no multiple of it
FUNDS_P = 10**16
SPEED = 600.0
PROVES_EVERY_SECONDS = 0.25
MS_PER_HOUR = 3_600_000

COST = """
    SELECT coalesce(-sum(e.amount_p), 0) FROM ledger_transactions AS t
    JOIN ledger_entries AS e ON e.transaction_id = t.id
    JOIN accounts AS a ON a.id = e.account_id AND a.tenant_id = t.tenant_id
    WHERE t.kind = 'gpu_time' AND t.tenant_id = %s
"""
LIVES = (
    "SELECT id, proven_ms, billed_ms, billed_p, waived_p FROM gpu_intervals WHERE tenant_id = %s"
)


@dataclass
class Life:
    """One replica's: `since` and `until` in seconds since 1970."""

    uid: uuid.UUID
    since: float
    until: float
    ended: bool = False

    @property
    def ms(self) -> int:
        return int(self.until * 1000) - int(self.since * 1000)


class Renter:
    """Rents one replica after another; all that were are proven again and again."""

    def __init__(self, sessions: sessionmaker[Session], *, life_seconds: float, seed: int) -> None:
        self._rng = random.Random(f"renter-{seed}")
        self._life_seconds = life_seconds
        self.lives: list[Life] = []
        self._began = 0.0  # when proofs of the last one began
        self._stopping = threading.Event()
        self._ending = threading.Event()
        with sessions.begin() as session:
            self.tenant_id = create_tenant(session, name="renter").id
            ledger.top_up(
                session, tenant_id=self.tenant_id, amount_p=FUNDS_P, reason="test", author="test"
            )
            gpu.publish(
                session,
                configuration="h200-x4",
                kind="on_demand",
                rate_p_per_hour=RATE_P,
                effective_from=datetime.now(UTC) - timedelta(days=3650),
            )

    @contextmanager
    def proven(self, redis_url: str) -> Iterator[None]:
        """Prove its lives meanwhile."""
        thread = threading.Thread(target=self._prove, args=(redis_url,), name="renter")
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def end(self) -> None:
        """End the life that is; no other one begins."""
        self._ending.set()

    def wrong(self, database_url: str) -> list[str]:
        """I9: return what is billed otherwise than floor(R * T / 3.6M) of all that was proven."""
        due_p = {life.uid: RATE_P * life.ms // MS_PER_HOUR for life in self.lives}
        with psycopg.connect(database_url) as connection:
            rows = connection.execute(LIVES, (self.tenant_id,)).fetchall()
            row = connection.execute(COST, (self.tenant_id,)).fetchone()
        expected = {(it.uid, it.ms, it.ms, due_p[it.uid], 0) for it in self.lives}
        found = [f"{it} is not as proven" for it in set(rows) ^ expected]
        if row is None or row[0] != sum(due_p.values()):
            found.append(f"{row} was paid, not {sum(due_p.values())}")
        return found

    def _prove(self, redis_url: str) -> None:
        with open_store(redis_url) as store:
            while not self._stopping.is_set():
                self._live_on()
                proofs = {str(life.uid): self._proof(life) for life in self.lives}
                with suppress(redis.RedisError):
                    TABLE.publish_all(store, proofs)
                self._stopping.wait(PROVES_EVERY_SECONDS)

    def _live_on(self) -> None:
        now = time.time()
        last = self.lives[-1] if self.lives else None
        if last is not None and not last.ended:
            last.until += PROVES_EVERY_SECONDS * SPEED * self._rng.random()
            # The next one begins where no proof can reach any more.
            last.ended = self._ending.is_set() or now - self._began > self._life_seconds
        elif not self._ending.is_set():
            self._began = now
            since = now - 2 * SPEED * self._life_seconds
            self.lives.append(Life(uuid.uuid4(), since, since + 1))

    def _proof(self, life: Life) -> Lease:
        return Lease(
            uid=str(life.uid),
            replica=f"bot-{life.uid}",
            deployment="fp-renter/bot",
            path="dedicated",
            tenant_id=str(self.tenant_id),
            configuration="h200-x4",
            gpus=4,
            spot=False,
            alive_since=life.since,
            published_at=life.until,
            ended=life.ended,
        )
