"""Replicas of one customer on a clock of their own, from proofs to charges, for money tests."""

import uuid
from datetime import UTC, datetime

from support.shop import Customer, Shop

from controlplane.billing.gpu import intervals, stops, volumes
from controlplane.deployments import rows
from controlplane.deployments.models import GpuInterval
from controlplane.pricing import gpu, storage
from controlplane.registry.leases import Lease
from controlplane.registry.volumes import Volume

START = 1_900_000_000.0  # after the orders that tests make
RATE_P = 7_201_003_600_007  # an hour is no multiple of it
USD = 10**12


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


class Meter:
    """Replicas of one customer, their proofs, and the clock."""

    def __init__(self, shop: Shop, customer: Customer) -> None:
        self.shop = shop
        self.customer = customer
        self.now = 0.0
        self.publish_price(RATE_P)
        with shop.sessions.begin() as session:
            self.deployment = rows.add(
                session,
                tenant_id=customer.tenant_id,
                namespace="fp-t",
                name="bot",
                path="dedicated",
                spec={},
                idempotency_key=None,
            )

    def publish_price(
        self, rate_p: int, from_seconds: float = -60, kind: str = "on_demand"
    ) -> None:
        with self.shop.sessions.begin() as session:
            gpu.publish(
                session,
                configuration="h200-x4",
                kind="spot" if kind == "spot" else "on_demand",
                rate_p_per_hour=rate_p,
                effective_from=at(from_seconds),
            )

    def proof(self, uid: uuid.UUID, since: float, until: float, **fields: object) -> Lease:
        given: dict[str, object] = {
            "uid": str(uid),
            "replica": "bot-0",
            "deployment": "fp-t/bot",
            "path": "dedicated",
            "tenant_id": str(self.customer.tenant_id),
            "configuration": "h200-x4",
            "gpus": 4,
            "spot": False,
            "alive_since": START + since,
            "published_at": START + until,
        }
        return Lease(**(given | fields))  # type: ignore[arg-type]

    def see(self, *proofs: Lease) -> int:
        self.now = max([self.now, *(it.published_at - START for it in proofs)])
        with self.shop.sessions.begin() as session:
            return intervals.extend(session, proofs, at(self.now))

    def publish_volume_price(self, rate_p: int) -> None:
        with self.shop.sessions.begin() as session:
            storage.publish(
                session, storage_class="*", rate_p_per_gib_hour=rate_p, effective_from=at(-60)
            )

    def see_volume(self, uid: uuid.UUID, since: float, until: float, *, size_gib: int) -> None:
        self.now = max(self.now, until)
        proof = Volume(
            uid=str(uid),
            claim="dev-volume",
            deployment="fp-t/dev",
            tenant_id=str(self.customer.tenant_id),
            storage_class="",
            size_gib=size_gib,
            alive_since=START + since,
            published_at=START + until,
        )
        with self.shop.sessions.begin() as session:
            volumes.extend(session, [proof], at(self.now))

    def charge(self, wait_seconds: float = 0) -> None:
        self.now += wait_seconds
        count = 1
        while count:
            with self.shop.sessions.begin() as session:
                count = intervals.charge(session, at(self.now))
        with self.shop.sessions.begin() as session:
            stops.stop_broke(session, at(self.now))

    def interval(self, uid: uuid.UUID) -> GpuInterval:
        with self.shop.sessions.begin() as session:
            return session.get_one(GpuInterval, uid)

    def balance_p(self) -> int:
        return self.shop.balance(self.customer).balance_p


def cost_p(seconds: float, rate_p: int = RATE_P) -> int:
    return rate_p * round(seconds * 1000) // 3_600_000
