"""Bills held against engines' word, on a real database."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from support.shop import Customer, Shop, cost_p

from controlplane.billing.reconcile import comparison, recovery, report
from controlplane.billing.reconcile.models import EngineJournal, Finding, WitnessedAttempt
from controlplane.errors import Conflict, NotFound
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(1, 2, 3, 0)
MINUTE = timedelta(minutes=1)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer(10**12)


def billed(shop: Shop, customer: Customer, usage: TokenUsage = USAGE) -> uuid.UUID:
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, usage))
    shop.settle()
    return request_id


def told(
    shop: Shop,
    request_id: uuid.UUID,
    usage: TokenUsage = USAGE,
    ago: timedelta = timedelta(),
    replica: str = "replica-1",
    finish_reason: str = "stop",
    resumed_tokens: int = 0,
) -> None:
    """Let an engine's journal be known to say `usage`."""
    with shop.sessions.begin() as session:
        session.add(
            WitnessedAttempt(
                replica=replica,
                attempt_id=str(uuid.uuid4()),
                request_id=request_id,
                model="deepseek-v4-flash",
                hit_tokens=usage.hit_tokens,
                miss_tokens=usage.miss_tokens,
                output_tokens=usage.output_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                resumed_tokens=resumed_tokens,
                finish_reason=finish_reason,
                started_at=now() - ago,
                ended_at=now() - ago,
            )
        )


def compared(shop: Shop) -> Sequence[tuple[uuid.UUID, str]]:
    with shop.sessions.begin() as session:
        while comparison.compare(session, now(), limit=1):
            pass
    with shop.sessions.begin() as session:
        return [(it.request_id, it.kind) for it in session.scalars(select(Finding))]


def test_bills_that_agree_are_no_finding(shop: Shop, customer: Customer) -> None:
    for _ in range(3):
        told(shop, billed(shop, customer))
    assert compared(shop) == []
    with shop.sessions.begin() as session:
        found = report.report(session, since=now() - MINUTE, until=now() + MINUTE)
    assert (found.ok, found.requests, found.waiting) == (True, 3, 0)
    assert found.billed == found.charged == found.witnessed
    assert found.billed.output_tokens == 9


def test_a_bill_beyond_its_witness_is_found_once(shop: Shop, customer: Customer) -> None:
    request_id = billed(shop, customer)
    told(shop, request_id, TokenUsage(1, 2, 2, 0))
    assert compared(shop) == [(request_id, "overbilled")]
    told(shop, request_id, TokenUsage(1, 2, 2, 0))
    assert compared(shop) == [(request_id, "overbilled")]


def read_until(shop: Shop, replica: str, moment: datetime) -> None:
    """Let an engine's journal have been read so far, and no further."""
    journal = EngineJournal(replica=replica, kept=True, since=moment - MINUTE, read_until=moment)
    with shop.sessions.begin() as session:
        session.merge(journal)


def test_an_engine_that_was_killed_is_heard_before_anybody_judges(
    shop: Shop, customer: Customer
) -> None:
    request_id = billed(shop, customer)
    read_until(shop, "killed", now() - timedelta(seconds=5))
    # It went on elsewhere, where the client left before anything was made.
    told(shop, request_id, TokenUsage(), replica="other", finish_reason="aborted")
    assert compared(shop) == []
    told(shop, request_id, replica="killed", finish_reason=comparison.INTERRUPTED)
    read_until(shop, "killed", now())
    assert compared(shop) == []
    with shop.sessions.begin() as session:
        assert report.report(session, since=now() - MINUTE, until=now()).waiting == 0


def test_an_answer_that_moved_is_judged_without_the_engine_that_never_came_back(
    shop: Shop, customer: Customer
) -> None:
    request_id = billed(shop, customer, TokenUsage(0, 3, 3, 0))
    warm = TokenUsage(2, 1, 3, 0)
    told(shop, request_id, warm, replica="replica-2", resumed_tokens=1)
    assert compared(shop) == []


def test_an_engine_that_stays_away_is_not_waited_for_long(shop: Shop, customer: Customer) -> None:
    request_id = billed(shop, customer)
    read_until(shop, "gone", now() - 3 * MINUTE)
    ago = comparison.WITNESS_COMES_WITHIN + timedelta(seconds=1)
    told(shop, request_id, TokenUsage(1, 2, 2, 0), ago=ago)
    assert compared(shop) == [(request_id, "overbilled")]


def test_a_request_that_runs_is_waited_for(shop: Shop, customer: Customer) -> None:
    request_id = shop.hold(customer)
    told(shop, request_id, ago=2 * comparison.BILL_COMES_WITHIN)
    assert compared(shop) == []
    with shop.sessions.begin() as session:
        assert report.report(session, since=now() - MINUTE, until=now()).waiting == 1


def test_work_that_nobody_was_billed_for_is_found_when_no_bill_can_come(
    shop: Shop,
) -> None:
    lost, fresh = uuid.uuid4(), uuid.uuid4()
    told(shop, lost, ago=2 * comparison.BILL_COMES_WITHIN)
    told(shop, fresh)
    assert compared(shop) == [(lost, "unbilled")]


def test_a_bill_that_no_engine_knows_is_found_once_its_journal_is_read_past_it(
    shop: Shop, customer: Customer
) -> None:
    request_id = billed(shop, customer)
    journal = EngineJournal(
        replica="replica-1", kept=True, since=now() - MINUTE, read_until=now() + MINUTE
    )
    with shop.sessions.begin() as session:
        session.add(journal)
    with shop.sessions.begin() as session:
        assert comparison.find_unwitnessed(session, now()) == 0
        journal = session.get_one(EngineJournal, "replica-1")
        journal.read_until = now() + comparison.WITNESS_COMES_WITHIN + MINUTE
        session.flush()
        assert comparison.find_unwitnessed(session, now()) == 1
        assert comparison.find_unwitnessed(session, now()) == 0
        assert session.scalars(select(Finding.request_id)).all() == [request_id]


def test_a_finding_is_explained_once(shop: Shop, customer: Customer) -> None:
    request_id = billed(shop, customer)
    told(shop, request_id, TokenUsage(1, 2, 2, 0))
    compared(shop)
    with shop.sessions.begin() as session:
        report.explain(session, request_id, explanation="refunded", author="me")
        assert report.report(session, since=now() - MINUTE, until=now() + MINUTE).ok
        with pytest.raises(Conflict, match="me has explained"):
            report.explain(session, request_id, explanation="again", author="you")
        with pytest.raises(NotFound):
            report.explain(session, uuid.uuid4(), explanation="what", author="you")


def test_what_a_lost_journal_does_not_tell_is_billed_from_the_engines(
    shop: Shop, customer: Customer
) -> None:
    known, unknown = shop.hold(customer), shop.hold(customer)
    told(shop, known)
    shop.close_epoch()
    with shop.sessions.begin() as session:
        assert recovery.stage_witnessed(session) == 1
        assert recovery.stage_witnessed(session) == 0
    shop.settle()
    assert shop.release_dead() == 1
    assert shop.balance(customer).balance_p == 10**12 - cost_p(USAGE)
    assert shop.balance(customer).held_p == 0
    assert compared(shop) == []
    assert shop.books().ok
    assert unknown != known


def test_old_attempts_are_forgotten_once_compared(shop: Shop, customer: Customer) -> None:
    told(shop, billed(shop, customer), ago=2 * comparison.KEPT)
    with shop.sessions.begin() as session:
        assert comparison.forget(session, now()) == 0
    compared(shop)
    with shop.sessions.begin() as session:
        assert comparison.forget(session, now()) == 1
