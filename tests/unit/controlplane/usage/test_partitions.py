"""Partitions of usage: every row has its place, and leaves only when nothing needs it."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from support.invoicing import run
from support.shop import Customer, Shop

from controlplane.billing.invoices import coverage
from controlplane.billing.receipts import receipt
from controlplane.errors import Gone, NotFound
from controlplane.usage import partitions, rollups
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(10, 20, 5, 2)
NOW = datetime.now(UTC)
FAR = NOW + timedelta(days=470)


def made_at(moment: datetime) -> uuid.UUID:
    """A UUIDv7 of a moment."""
    random = uuid.uuid4().int & (1 << 80) - 1
    value = int(moment.timestamp() * 1000) << 80 | random
    return uuid.UUID(int=value & ~(0xF << 76) | 0x7 << 76)


def used(shop: Shop, customer: Customer, request_id: uuid.UUID) -> uuid.UUID:
    shop.hold(customer, request_id=request_id)  # type: ignore[arg-type]
    shop.stage(shop.trace(customer, request_id, USAGE))
    shop.settle()
    return request_id


def place(shop: Shop, request_id: uuid.UUID) -> str:
    """The partition that a request's row lies in."""
    query = text("SELECT tableoid::regclass::text FROM usage_events WHERE request_id = :id")
    with shop.sessions.begin() as session:
        return session.execute(query, {"id": request_id}).scalar_one().removeprefix("partitions.")


def keep(shop: Shop, now: datetime) -> int:
    with shop.sessions.begin() as session:
        return partitions.keep(session, now)


def expire(shop: Shop, now: datetime, *, invoiced: bool = True) -> int:
    with shop.sessions.begin() as session:
        return partitions.expire(session, now, keep_days=400, invoiced=lambda *_: invoiced)


def roll_up(shop: Shop) -> None:
    with shop.sessions.begin() as session:
        while rollups.roll_up(session):
            pass


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer(10**12)


def test_the_months_to_come_have_partitions(shop: Shop) -> None:
    assert keep(shop, NOW) in (2, 3)  # the schema may have been made in the month before
    assert keep(shop, NOW) == 0
    assert keep(shop, NOW + timedelta(days=93)) in (3, 4)
    with shop.sessions.begin() as session:
        known = partitions.existing(session)
    assert known[0].since is None
    assert [it.since for it in known[1:]] == [it.until for it in known[:-1]]


def test_the_last_and_the_first_moment_of_a_month_are_apart(shop: Shop, customer: Customer) -> None:
    keep(shop, NOW)
    with shop.sessions.begin() as session:
        before, after = partitions.existing(session)[-2:]
    last = used(shop, customer, made_at(after.since - timedelta(milliseconds=1)))  # type: ignore[operator]
    first = used(shop, customer, after.from_id)
    assert (place(shop, last), place(shop, first)) == (before.name, after.name)
    assert shop.books().violations == []


@pytest.mark.parametrize("value", [2**128 - 1, 2**127 + 5, (1 << 48) - 1 << 80])
def test_ids_of_no_month_are_settled_too(shop: Shop, customer: Customer, value: int) -> None:
    request_id = used(shop, customer, uuid.UUID(int=value))
    assert place(shop, request_id) == "usage_stray"
    keep(shop, NOW)
    assert place(shop, request_id) == "usage_stray"
    assert shop.books().violations == []


def test_the_lowest_id_is_the_oldest(shop: Shop, customer: Customer) -> None:
    assert place(shop, used(shop, customer, uuid.UUID(int=0))).startswith("usage_until_")


def test_rows_that_came_before_their_partition_move_there(shop: Shop, customer: Customer) -> None:
    early = used(shop, customer, made_at(NOW + timedelta(days=40)))
    assert place(shop, early) == "usage_stray"
    keep(shop, NOW)
    assert place(shop, early) == partitions.month_of(NOW + timedelta(days=40)).name
    with shop.sessions.begin() as session:
        assert receipt(session, tenant_id=customer.tenant_id, request_id=early).event.charge_p > 0
    roll_up(shop)
    assert shop.books().violations == []


def test_nobody_writes_past_the_parent(shop: Shop) -> None:
    keep(shop, NOW)
    with shop.sessions.begin() as session:
        names = [it.name for it in partitions.existing(session)]
    changes = (
        "INSERT INTO {} SELECT * FROM usage_events",
        "UPDATE {} SET charge_p = 0",
        "DELETE FROM {}",
        "TRUNCATE {}",
    )
    for name in [*names, "usage_stray"]:
        for change in changes:
            with (
                pytest.raises(IntegrityError, match="through its parent alone"),
                shop.sessions.begin() as session,
            ):
                session.execute(text(change.format(f"partitions.{name}")))


def test_old_usage_expires_and_its_sums_stay(shop: Shop, customer: Customer) -> None:
    request_id = used(shop, customer, made_at(NOW))
    keep(shop, FAR)
    roll_up(shop)
    assert expire(shop, FAR) == 1
    with shop.sessions.begin() as session:
        of_it = {"tenant_id": customer.tenant_id, "request_id": request_id}
        with pytest.raises(Gone):
            receipt(session, **of_it)
        stranger = {"tenant_id": uuid.uuid4(), "request_id": request_id}
        with pytest.raises(NotFound):
            receipt(session, **stranger)
    assert shop.books().violations == []


@pytest.mark.parametrize("busy", ["kept", "held", "staged", "fresh", "not_invoiced"])
def test_usage_that_is_needed_does_not_expire(shop: Shop, customer: Customer, busy: str) -> None:
    used(shop, customer, made_at(NOW))
    keep(shop, FAR)
    if busy != "fresh":
        roll_up(shop)
    if busy in ("held", "staged"):
        held = shop.hold(customer)
    if busy == "staged":
        shop.stage(shop.trace(customer, held, USAGE))
        with shop.sessions.begin() as session:
            session.execute(text("UPDATE holds SET state = 'released'"))
    now = NOW + timedelta(days=399) if busy == "kept" else FAR
    assert expire(shop, now, invoiced=busy != "not_invoiced") == 0


def test_partitions_expire_one_after_the_other(shop: Shop) -> None:
    keep(shop, FAR)
    gone = 0
    while expire(shop, FAR):
        gone += 1
    assert gone > 1
    with shop.sessions.begin() as session:
        oldest = partitions.existing(session)[0]
    assert oldest.until > FAR - timedelta(days=400)
    assert keep(shop, FAR) == 0


def test_usage_is_covered_when_the_month_after_it_is_invoiced(
    shop: Shop, customer: Customer
) -> None:
    used(shop, customer, made_at(NOW))
    roll_up(shop)
    month = partitions.month_of(NOW)
    assert month.since is not None
    after = partitions.month_of(month.until).until
    for now, covered in ((NOW, False), (month.until, False), (after + timedelta(days=2), True)):
        run(shop.sessions, now)
        with shop.sessions.begin() as session:
            assert coverage.covers(session, month.since, month.until) is covered
