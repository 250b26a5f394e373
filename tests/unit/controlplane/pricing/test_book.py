"""The price book: which version holds when, and that none ever changes."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import exc, text
from sqlalchemy.orm import Session, sessionmaker

from controlplane.errors import Conflict, ModelNotFound, UnprocessableRequest
from controlplane.pricing import book
from controlplane.pricing.rating import Price

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def publish(session: Session, *, output_rate_p: int = 3, effective_from: datetime = NOON) -> None:
    book.publish(
        session,
        model="m",
        hit_rate_p=1,
        miss_rate_p=2,
        output_rate_p=output_rate_p,
        effective_from=effective_from,
    )


def test_a_price_holds_from_its_moment_until_the_next(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session, output_rate_p=30, effective_from=NOON + HOUR)
        publish(session, output_rate_p=10, effective_from=NOON)
        found = book.current(session)
    assert found.price("m", "serverless", NOON).output_rate_p == 10
    assert found.price("m", "serverless", NOON + HOUR / 2).output_rate_p == 10
    assert found.price("m", "serverless", NOON + HOUR).output_rate_p == 30


def test_no_price_before_the_first_version(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
        found = book.current(session)
    with pytest.raises(ModelNotFound):
        found.price("m", "serverless", NOON - HOUR)
    assert found.models("serverless", NOON - HOUR) == []
    assert found.models("serverless", NOON) == ["m"]


def test_an_unknown_model_is_named(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        found = book.current(session)
    with pytest.raises(ModelNotFound, match="nope"):
        found.price("nope", "serverless", NOON)


def test_two_versions_cannot_start_at_the_same_moment(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
        with pytest.raises(Conflict):
            publish(session)


def test_a_hit_dearer_than_a_miss_is_refused(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session, pytest.raises(UnprocessableRequest):
        book.publish(session, model="m", hit_rate_p=3, miss_rate_p=2, output_rate_p=1)


def test_a_published_price_never_changes(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
    with sessions() as session, pytest.raises(exc.IntegrityError, match="append-only"):
        session.execute(text("UPDATE price_versions SET output_rate_p = 0"))


def test_one_price_holds_for_every_dedicated_model_without_its_own() -> None:
    anybody = Price(uuid.UUID(int=1), "*", "dedicated", 0, 0, 0)
    own = Price(uuid.UUID(int=2), "m@own", "dedicated", 1, 2, 3)
    found = book.PriceBook([(NOON, anybody), (NOON, own)])
    assert found.price("m@prod", "dedicated", NOON) == anybody
    assert found.price("m@own", "dedicated", NOON) == own
    with pytest.raises(ModelNotFound):
        found.price("m@prod", "serverless", NOON)


def test_a_new_database_prices_dedicated_tokens_at_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        found = book.current(session).price("m@prod", "dedicated", NOON)
    assert (found.hit_rate_p, found.miss_rate_p, found.output_rate_p) == (0, 0, 0)
