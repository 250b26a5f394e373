"""Storage from proofs that volumes exist to the ledger, on a real database."""

import random
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.shop import Customer, Shop

from controlplane.accounts import ledger
from controlplane.billing.gpu import volumes
from controlplane.deployments.models import VolumeInterval
from controlplane.pricing import storage
from controlplane.registry.volumes import Volume

START = 1_900_000_000.0
RATE_P = 137_000_019  # p$ per GiB and hour; an hour of 7 GiB is no multiple of it
GIB = 7
HOUR = 3600.0
USD = 10**12


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


def cost_p(seconds: float, size_gib: int = GIB) -> int:
    """floor(R x GiB x t / 3.6M), worked out apart from the product."""
    return RATE_P * size_gib * int(seconds * 1000) // 3_600_000


class Disks:
    """One customer's volumes and their proofs."""

    def __init__(self, shop: Shop, customer: Customer) -> None:
        self.shop = shop
        self.customer = customer

    def price(self, rate_p: int, *, from_seconds: float = -60, storage_class: str = "*") -> None:
        with self.shop.sessions.begin() as session:
            storage.publish(
                session,
                storage_class=storage_class,
                rate_p_per_gib_hour=rate_p,
                effective_from=at(from_seconds),
            )

    def proof(self, uid: uuid.UUID, since: float, until: float, **fields: object) -> Volume:
        told: dict[str, object] = {
            "uid": str(uid),
            "claim": "dev-volume",
            "deployment": "fp-t/dev",
            "tenant_id": str(self.customer.tenant_id),
            "storage_class": "",
            "size_gib": GIB,
            "alive_since": START + since,
            "published_at": START + until,
        }
        return Volume(**(told | fields))  # type: ignore[arg-type]

    def see(self, *proofs: Volume, now: float = 10**7) -> None:
        with self.shop.sessions.begin() as session:
            volumes.extend(session, proofs, at(now))

    def charge(self, now: float) -> int:
        with self.shop.sessions.begin() as session:
            return volumes.charge(session, at(now))

    def interval(self, uid: uuid.UUID) -> VolumeInterval | None:
        with self.shop.sessions.begin() as session:
            return session.get(VolumeInterval, uid)

    def balance_p(self) -> int:
        return self.shop.balance(self.customer).balance_p


@pytest.fixture
def disks(shop: Shop) -> Disks:
    return Disks(shop, shop.customer(100 * USD))


def test_a_volume_is_billed_by_the_hour_and_its_rest_at_the_end(disks: Disks) -> None:
    disks.price(RATE_P)
    uid = uuid.uuid4()
    disks.see(disks.proof(uid, 0, HOUR - 1))
    disks.charge(HOUR - 1)
    assert disks.balance_p() == 100 * USD
    disks.see(disks.proof(uid, 0, HOUR + 0.5))
    disks.charge(HOUR + 0.5)
    assert disks.balance_p() == 100 * USD - cost_p(HOUR + 0.5)
    disks.see(disks.proof(uid, 0, 2.25 * HOUR, ended=True))
    disks.charge(2.25 * HOUR)
    assert disks.balance_p() == 100 * USD - cost_p(2.25 * HOUR)
    assert disks.shop.books().violations == []


def test_a_ledger_line_explains_the_storage(disks: Disks) -> None:
    disks.price(RATE_P)
    disks.see(disks.proof(uuid.uuid4(), 0, HOUR, ended=True))
    disks.charge(HOUR)
    with disks.shop.sessions.begin() as session:
        line = ledger.lines(session, tenant_id=disks.customer.tenant_id)[0]
    assert (line.kind, line.amount_p) == ("storage", -cost_p(HOUR))
    assert line.explanation == (
        "3600 s of 7 GiB of volume (dev-volume) at 0.000959000133 USD per hour = 0.000959000133 USD"
    )


def test_nothing_is_billed_while_a_volume_is_not_proven(disks: Disks) -> None:
    disks.price(RATE_P)
    uid = uuid.uuid4()
    disks.see(disks.proof(uid, 0, HOUR))
    disks.see(disks.proof(uid, 5 * HOUR, 6 * HOUR, ended=True))
    disks.charge(6 * HOUR)
    assert disks.balance_p() == 100 * USD - cost_p(2 * HOUR)


def test_a_volume_without_a_price_costs_nothing_until_there_is_one(disks: Disks) -> None:
    uid = uuid.uuid4()
    disks.see(disks.proof(uid, 0, HOUR), now=HOUR)
    assert disks.interval(uid) is None
    disks.price(RATE_P, from_seconds=2 * HOUR)
    disks.see(disks.proof(uid, 0, 3 * HOUR), now=3 * HOUR)
    disks.charge(3 * HOUR)
    assert disks.balance_p() == 100 * USD - cost_p(HOUR)


def test_a_class_may_have_a_price_of_its_own_and_a_rate_is_pinned(disks: Disks) -> None:
    disks.price(RATE_P)
    disks.price(2 * RATE_P, storage_class="fast")
    plain, fast = uuid.uuid4(), uuid.uuid4()
    disks.see(disks.proof(plain, 0, 1), disks.proof(fast, 0, 1, storage_class="fast"), now=1)
    disks.price(9 * RATE_P, from_seconds=2)
    disks.see(disks.proof(plain, 0, HOUR, ended=True), disks.proof(fast, 0, HOUR, ended=True))
    disks.charge(HOUR)
    assert disks.balance_p() == 100 * USD - cost_p(HOUR) - 2 * cost_p(HOUR)


def test_an_empty_account_pays_what_it_has_and_the_rest_is_waived(shop: Shop) -> None:
    disks = Disks(shop, shop.customer(1000))
    disks.price(RATE_P)
    uid = uuid.uuid4()
    disks.see(disks.proof(uid, 0, HOUR, ended=True))
    disks.charge(HOUR)
    interval = disks.interval(uid)
    assert interval is not None
    assert (interval.billed_p, interval.waived_p) == (1000, cost_p(HOUR) - 1000)
    assert disks.balance_p() == 0
    assert shop.books().violations == []


def test_storage_of_nobody_we_know_is_not_billed(disks: Disks) -> None:
    disks.price(RATE_P)
    uid = uuid.uuid4()
    disks.see(disks.proof(uid, 0, HOUR, tenant_id="somebody"))
    assert disks.interval(uid) is None


@pytest.fixture
def priced(disks: Disks) -> Disks:
    disks.price(RATE_P)
    return disks


steps = st.lists(
    st.tuples(st.floats(0.001, 9000), st.booleans(), st.booleans()), min_size=1, max_size=8
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps, st.randoms(use_true_random=False))
def test_any_schedule_of_proofs_and_charges_has_the_same_total(
    priced: Disks, schedule: list[tuple[float, bool, bool]], chance: random.Random
) -> None:
    uid, now, proofs = uuid.uuid4(), 0.0, []
    before_p = priced.balance_p()
    for pause, told, charged in schedule:
        now += pause
        proofs.append(priced.proof(uid, 0, now))
        if told:
            priced.see(chance.choice(proofs))
        if charged:
            priced.charge(now)
    last = priced.proof(uid, 0, now, ended=True)
    priced.see(last)
    priced.see(*chance.sample(proofs, len(proofs)))
    priced.see(last)
    while priced.charge(now):
        pass
    total_ms = int(last.published_at * 1000) - int(START * 1000)
    assert before_p - priced.balance_p() == RATE_P * GIB * total_ms // 3_600_000
    priced.shop.top_up(priced.customer, before_p - priced.balance_p() + 1)
    assert priced.shop.books().violations == []
