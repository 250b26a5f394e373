"""Audit events: chained, gapless, in the order of their commits, and not to be changed."""

import threading
import uuid

import pytest
from sqlalchemy import exc, select, text
from sqlalchemy.orm import Session, sessionmaker
from support.shop import Shop

from controlplane.audit.chain import BEGINNING, event_hash, record
from controlplane.audit.models import PLATFORM, AuditEvent

WRITERS, EACH = 8, 12


def write(session: Session, tenant_id: uuid.UUID | None = None, **told: object) -> None:
    record(
        session,
        tenant_id=tenant_id,
        actor="root",
        action="create_tenant",
        subject="tenant",
        details=told,
    )


def events(sessions: sessionmaker[Session], chain: uuid.UUID) -> list[AuditEvent]:
    with sessions.begin() as session:
        query = select(AuditEvent).where(AuditEvent.chain == chain).order_by(AuditEvent.seq)
        return list(session.scalars(query))


def test_events_count_from_one_and_each_hashes_the_one_before(
    sessions: sessionmaker[Session],
) -> None:
    for number in range(3):
        with sessions.begin() as session:
            write(session, number=number, nested={"amounts": ["1.50", 7, None, True]})
    found = events(sessions, PLATFORM)
    assert [event.seq for event in found] == [1, 2, 3]
    previous = BEGINNING
    for event in found:
        assert event.previous_hash == previous
        assert event.hash == event_hash(
            chain=PLATFORM,
            seq=event.seq,
            at=event.at,
            actor="root",
            action="create_tenant",
            subject="tenant",
            details=event.details,
            previous_hash=previous,
        )
        previous = event.hash


def test_a_tenant_has_a_chain_of_its_own(shop: Shop) -> None:
    customer = shop.customer()
    with shop.sessions.begin() as session:
        write(session)
        write(session, customer.tenant_id)
    (event,) = events(shop.sessions, customer.tenant_id)
    assert (event.seq, event.tenant_id) == (1, customer.tenant_id)


def test_what_is_rolled_back_leaves_no_gap(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        write(session)
        session.rollback()
    with sessions.begin() as session:
        write(session)
    assert [event.seq for event in events(sessions, PLATFORM)] == [1]


def test_writers_at_the_same_time_make_one_chain_in_commit_order(
    sessions: sessionmaker[Session],
) -> None:
    failures: list[Exception] = []

    def append() -> None:
        try:
            for _ in range(EACH):
                with sessions.begin() as session:
                    write(session)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=append) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = events(sessions, PLATFORM)
    assert [event.seq for event in found] == list(range(1, WRITERS * EACH + 1))
    assert [event.previous_hash for event in found[1:]] == [event.hash for event in found[:-1]]
    with sessions.begin() as session:
        # Transactions get their numbers at their first write, which is under the chain's lock.
        query = text("SELECT xmin::text::bigint FROM audit_events ORDER BY seq")
        numbers = list(session.scalars(query))
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET actor = 'nobody'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
    ],
)
def test_the_database_refuses_to_change_events(
    sessions: sessionmaker[Session], statement: str
) -> None:
    with sessions.begin() as session:
        write(session)
    with (
        pytest.raises(exc.IntegrityError, match="append-only"),
        sessions.begin() as session,
    ):
        session.execute(text(statement))


def test_whatever_text_comes_in_an_event_is_written(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        write(session, **{"nul\x00": "a\x00b", "half": "\ud800", "ratio": 0.1, "wide": 2**80})
    (event,) = events(sessions, PLATFORM)
    assert event.details == {
        "nul\ufffd": "a\ufffdb",
        "half": "\ufffd",
        "ratio": "0.1",
        "wide": str(2**80),
    }
